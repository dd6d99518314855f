// What every model of model_list() must do.  A new model adds its line to the list and nothing here.
#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/models/list.h"
#include "mixrec/nn/module.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/tests/card.h"
#include "mixrec/tests/golden.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/random_requests.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

std::unique_ptr<RankingModel> built(const ModelEntry& entry, const FeatureSet& set, DType dtype = f32) {
  Rng rng(5);
  auto model = entry.build(set, entry.default_options, rng);
  std::vector<Parameter> parameters = model->parameters();
  // Every part of a model counts, also those that begin at zero or near it.
  for (Parameter& p : parameters) {
    if (p.kind == ParameterKind::buffer) continue;
    std::vector<double> values = cast(p.value.detach(), f64).to_vector<double>();
    for (double& x : values) x += .3 * rng.uniform() - .15;
    p.value.detach().copy_from(Tensor::from(values, p.value.shape()));
  }
  if (dtype != f32) model->to_dtype(dtype);
  return model;
}

Tensor loss_of(RankingModel& model, const RequestBatch& batch, DType compute = f32) {
  Pass pass;
  pass.compute = compute;
  const Tensor logits = model.forward(batch, pass);
  Tensor loss = sum(bce_with_logits_per_task(logits, cast(batch.labels, logits.dtype()),
                                             cast(batch.weights, logits.dtype())));
  return loss;
}

// Logits and the gradient of every parameter, by name.
std::vector<std::pair<std::string, Tensor>> everything(RankingModel& model, const RequestBatch& batch) {
  std::vector<std::pair<std::string, Tensor>> all;
  for (const Parameter& p : model.parameters()) Tensor(p.value).zero_grad();
  Pass pass;
  all.emplace_back("logits", model.forward(batch, pass).detach());
  loss_of(model, batch).backward();
  for (const Parameter& p : model.parameters())
    if (p.kind != ParameterKind::buffer && p.value.grad().defined())
      all.emplace_back(p.name, p.value.grad().clone());
  return all;
}

// Features of candidates alone, of requests alone, several histories, none.
struct Variant {
  std::string name;
  FeatureSet set;
};
std::vector<Variant> variants() {
  std::vector<Variant> all{{"one history", mixed_features()},
                           {"no history", mixed_features(0)},
                           {"two histories", mixed_features(2)}};
  for (const FeatureScope left_out : {FeatureScope::request, FeatureScope::candidate}) {
    FeatureSet set = mixed_features();
    std::erase_if(set.features, [&](const FeatureSpec& f) { return f.scope == left_out; });
    all.push_back(
        {left_out == FeatureScope::request ? "no feature of requests" : "no feature of candidates", set});
  }
  return all;
}

}  // namespace

TEST_CASE(
    "models: in f64 a request's candidates together give what they give one by one, gradients included") {
  for (const ModelEntry& entry : model_list()) {
    CAPTURE(entry.name);
    const FeatureSet set = mixed_features();
    Rng rng(1);
    const RequestBatch batch = random_requests(set, {3, 1, 2, 1}, {4, 0, 7, 1}, rng);
    const auto model = built(entry, set, f64);
    const auto requests = everything(*model, batch), rows = everything(*model, batch.expanded());
    REQUIRE(requests.size() == rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      CAPTURE(rows[i].first);
      CHECK(relative_difference(requests[i].second, rows[i].second) < 1e-12);
    }
  }
}

TEST_CASE("models: the gradient of every parameter agrees with a difference along a random direction") {
  for (const ModelEntry& entry : model_list()) {
    CAPTURE(entry.name);
    const FeatureSet set = mixed_features();
    Rng rng(2);
    const RequestBatch batch = random_requests(set, {2, 1, 3}, {3, 5, 0}, rng);
    const auto model = built(entry, set, f64);
    const auto gradients = everything(*model, batch);
    for (const Parameter& p : model->parameters()) {
      if (p.kind == ParameterKind::buffer) continue;
      CAPTURE(p.name);
      const auto found = std::find_if(gradients.begin(), gradients.end(),
                                      [&](const auto& named) { return named.first == p.name; });
      REQUIRE(found != gradients.end());
      const auto gradient = found->second.to_vector<double>();
      std::vector<double> direction(gradient.size());
      double along = 0;
      for (size_t i = 0; i < direction.size(); ++i)
        direction[i] = 2 * rng.uniform() - 1, along += direction[i] * gradient[i];
      const Tensor step = Tensor::from(direction, p.value.shape()), at = p.value.detach().clone();
      const auto moved = [&](double by) {
        const NoGrad guard;
        p.value.detach().copy_from(at + by * step);
        const double loss = loss_of(*model, batch).item();
        p.value.detach().copy_from(at);
        return loss;
      };
      constexpr double h = 1e-4;
      // Fourth order: what is left is h^4 and rounding.
      const double difference = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
      CHECK(std::abs(difference - along) <= 1e-6 * (std::abs(difference) + std::abs(along)) + 1e-9);
    }
  }
}

TEST_CASE("models: f32 is close to f64, bf16 to f32, and logits are f32") {
  for (const ModelEntry& entry : model_list()) {
    CAPTURE(entry.name);
    const FeatureSet set = mixed_features();
    Rng rng(3);
    const RequestBatch batch = random_requests(set, {3, 1, 2}, {4, 0, 7}, rng);
    const auto exact = built(entry, set, f64), model = built(entry, set);
    Pass whole, half;
    half.compute = bf16;
    const Tensor reference = exact->forward(batch, whole), y = model->forward(batch, whole);
    const Tensor z = model->forward(batch, half);
    CHECK(y.dtype() == f32);
    CHECK(z.dtype() == f32);
    CHECK(y.shape() == Shape{6, 2});
    CHECK(relative_difference(cast(y, f64), reference) < 1e-5);
    CHECK(relative_difference(cast(z, f64), reference) < 2e-2);
  }
}

TEST_CASE("models: the same bits for any number of threads") {
  const int before = num_threads();
  for (const ModelEntry& entry : model_list()) {
    CAPTURE(entry.name);
    const FeatureSet set = mixed_features();
    Rng rng(4);
    const RequestBatch batch =
        random_requests(set, std::vector<int64_t>(60, 2), std::vector<int64_t>(60, 5), rng);
    const auto model = built(entry, set);
    set_num_threads(1);
    const auto one = everything(*model, batch);
    set_num_threads(3);
    const auto three = everything(*model, batch);
    for (size_t i = 0; i < one.size(); ++i) {
      CAPTURE(one[i].first);
      CHECK(one[i].second.contiguous().to_vector<float>() == three[i].second.contiguous().to_vector<float>());
    }
  }
  set_num_threads(before);
}

TEST_CASE("models: every set of features gives finite logits and gradients, or is refused with a sentence") {
  for (const ModelEntry& entry : model_list()) {
    for (const Variant& variant : variants()) {
      CAPTURE(entry.name);
      CAPTURE(variant.name);
      std::unique_ptr<RankingModel> model;
      try {
        model = built(entry, variant.set);
      } catch (const Error& error) {
        MESSAGE(entry.name, " with ", variant.name, ": ", std::string(error.what()));
        CHECK(std::string(error.what()).size() > 20);
        continue;
      }
      Rng rng(6);
      for (const auto& events : {std::vector<int64_t>{3, 0, 2}, std::vector<int64_t>{0, 0, 0}}) {
        const RequestBatch batch = random_requests(variant.set, {2, 1, 1}, events, rng);
        for (const auto& [name, value] : everything(*model, batch)) {
          CAPTURE(name);
          for (const float x : value.contiguous().to_vector<float>()) REQUIRE(std::isfinite(x));
        }
      }
    }
  }
}

TEST_CASE("models: a user side that is kept gives the logits of the whole") {
  for (const ModelEntry& entry : model_list()) {
    CAPTURE(entry.name);
    const FeatureSet set = mixed_features();
    Rng rng(7);
    const RequestBatch batch = random_requests(set, {5}, {6}, rng);
    const auto model = built(entry, set, f64);
    const NoGrad guard;
    Pass pass;
    const auto kept = model->user_side(batch, pass);
    if (!kept) continue;
    CHECK(kept->bytes() > 0);
    CHECK(relative_difference(model->item_side(*kept, batch, pass), model->forward(batch, pass)) < 1e-12);
  }
}

TEST_CASE("cuda: models: a card gives the host's logits and gradients") {
  if (!has_card("every model on a card")) return;
  for (const ModelEntry& entry : model_list()) {
    CAPTURE(entry.name);
    const FeatureSet set = mixed_features();
    Rng rng(8);
    const RequestBatch batch = random_requests(set, {3, 1, 2, 1}, {4, 0, 7, 1}, rng);
    const auto host = built(entry, set, f64), card = built(entry, set, f64);
    to_device(card->parameters(), kCard);
    const auto expected = everything(*host, batch), got = everything(*card, batch.to(kCard));
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(got[i].first);
      CHECK(relative_difference(got[i].second.to(kCpu), expected[i].second) < 1e-11);
    }
  }
}

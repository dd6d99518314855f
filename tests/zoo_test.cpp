// Models that are put together from modules, against golden files that scripts wrote from the papers' equations:
// tests/oracle/{din,dcnv2,deepfm}_golden.py; and what they share: pairs of events and candidates.
#include "mixrec/core/error.h"
#include "mixrec/models/list.h"
#include "mixrec/models/sequence/mean_pooling.h"
#include "mixrec/models/stack.h"
#include "mixrec/nn/pairs.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/tests/card.h"
#include "mixrec/tests/golden.h"
#include "mixrec/tests/golden_batch.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/random_requests.h"
#include "mixrec/train/serve/recorded_pass.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

Tensor loss_of(RankingModel& model, const RequestBatch& batch, Pass& pass) {
  const Tensor logits = model.forward(batch, pass);
  return sum(bce_with_logits_per_task(logits, cast(batch.labels, logits.dtype()),
                                      cast(batch.weights, logits.dtype())));
}

// The golden model, in f64, with the golden weights.
std::unique_ptr<RankingModel> golden_model(const std::string& name) {
  const Golden golden(name);
  Rng rng(1);
  const SafetensorsFile file("tests/golden/" + name + ".safetensors");
  auto model = find_model("stack").build(golden_spec(), file.metadata().at("options"), rng);
  model->to_dtype(f64);
  size_t weights = 0;
  for (const TensorHeader& tensor : golden.tensors()) weights += tensor.name.starts_with("weight.") ? 1 : 0;
  CHECK(model->parameters().size() == weights);
  for (Parameter& p : model->parameters()) {
    CAPTURE(p.name);
    const Tensor value = golden["weight." + p.name];
    REQUIRE(p.value.shape() == value.shape());
    p.value.detach().copy_from(cast(value, p.value.dtype()));
  }
  return model;
}

// Cells begin .. end.
FeatureColumn cells(const FeatureColumn& column, int64_t begin, int64_t end) {
  if (column.values.defined()) return {.values = column.values.narrow(0, begin, end - begin).clone()};
  if (!column.offsets.defined()) return {.ids = column.ids.narrow(0, begin, end - begin).clone()};
  const auto* at = column.offsets.data<const int64_t>();
  FeatureColumn part{.ids = column.ids.narrow(0, at[begin], at[end] - at[begin]).clone(),
                     .offsets = column.offsets.narrow(0, begin, end - begin + 1).clone()};
  for (int64_t i = end - begin; i >= 0; --i) part.offsets.data<int64_t>()[i] -= at[begin];
  return part;
}

RequestBatch one_request(const RequestBatch& batch, const FeatureSet& set, int64_t r) {
  const auto* at = batch.offsets.data<const int64_t>();
  RequestBatch one;
  one.requests = 1, one.candidates = at[r + 1] - at[r];
  one.offsets = Tensor::from({int64_t{0}, one.candidates}, {2});
  for (size_t f = 0; f < set.features.size(); ++f)
    one.features.push_back(set.features[f].scope == FeatureScope::request
                               ? cells(batch.features[f], r, r + 1)
                               : cells(batch.features[f], at[r], at[r + 1]));
  for (const HistoryBatch& history : batch.histories) {
    const auto* of = history.offsets.data<const int64_t>();
    HistoryBatch& part = one.histories.emplace_back();
    part.offsets = Tensor::from({int64_t{0}, of[r + 1] - of[r]}, {2});
    for (const FeatureColumn& column : history.columns)
      part.columns.push_back(cells(column, of[r], of[r + 1]));
  }
  one.validate(set);
  return one;
}

// The scripts' gradients are differences.
void check_golden(const std::string& name, Device device) {
  CAPTURE(name);
  const Golden golden(name);
  const FeatureSet set = golden_spec();
  const RequestBatch batch = golden_batch(golden, set).to(device);
  const auto model = golden_model(name);
  to_device(model->parameters(), device);
  Pass pass;
  CHECK(relative_difference(model->forward(batch, pass).to(kCpu), golden["logits"]) < 1e-12);
  const Tensor loss = loss_of(*model, batch, pass);
  CHECK(relative_difference(loss.to(kCpu), golden["loss"]) < 1e-12);
  loss.backward();
  for (const Parameter& p : model->parameters()) {
    CAPTURE(p.name);
    if (p.kind == ParameterKind::buffer) continue;
    REQUIRE(p.value.grad().defined());
    CHECK(relative_difference(p.value.grad().to(kCpu), golden["gradient." + p.name]) < 1e-8);
  }
}

const std::vector<std::string> kGolden{"din",           "din_softmax", "dcnv2", "dcnv2_low_rank",
                                       "dcnv2_mixture", "deepfm"};

std::vector<double> column(const Tensor& x) { return cast(x, f64).contiguous().to_vector<double>(); }

}  // namespace

TEST_CASE("zoo: logits, loss and every gradient are those of the scripts") {
  for (const std::string& name : kGolden) check_golden(name, kCpu);
}

TEST_CASE("cuda: zoo: logits, loss and every gradient on a card are those of the scripts") {
  if (!has_card("golden stacks on a card")) return;
  for (const std::string& name : kGolden) check_golden(name, kCard);
}

TEST_CASE("zoo: a request alone, and filled up as graphs are, has the logits that it has in a batch") {
  const FeatureSet set = golden_spec();
  for (const std::string& name : kGolden) {
    CAPTURE(name);
    const Golden golden(name);
    const RequestBatch batch = golden_batch(golden, set);
    const auto model = golden_model(name);
    const auto* at = batch.offsets.data<const int64_t>();
    for (int64_t r = 0; r < batch.requests; ++r) {
      CAPTURE(r);
      Pass pass;
      const RequestBatch one = one_request(batch, set, r);
      const Tensor want = golden["logits"].narrow(0, at[r], at[r + 1] - at[r]);
      CHECK(relative_difference(model->forward(one, pass), want) < 1e-12);
      const Tensor padded = model->forward(padded_to_buckets(one, set), pass);
      CHECK(relative_difference(padded.narrow(0, 0, one.candidates), want) < 1e-12);
    }
  }
}

TEST_CASE("zoo: in training, statistics of a batch count candidates and pairs, also of few and of none") {
  const FeatureSet set = mixed_features(2);
  const std::vector<std::string> all{
      R"({"sequence": {"name": "din", "widths": [5, 4], "norm": "batch"},
          "interaction": {"name": "mlp", "widths": [6], "norm": "batch", "activation": "dice"}})",
      R"({"sequence": {"name": "din", "softmax": true},
          "interaction": {"name": "dcnv2", "deep": {"widths": [6], "activation": "dice"}}})",
      R"({"compose": "parallel", "sequence": {"name": "din"},
          "interaction": {"name": "deepfm", "widths": [6], "norm": "batch"}})"};
  for (const std::string& options : all) {
    CAPTURE(options);
    for (const auto& events : {std::vector<int64_t>{3, 0, 2}, {0, 0, 1}, {0, 0, 0}}) {
      Rng rng(4);
      const RequestBatch batch = random_requests(set, {2, 3, 1}, events, rng);
      std::vector<std::vector<double>> got[2];
      for (const bool expanded : {false, true}) {
        Rng fresh(2);
        const auto model = find_model("stack").build(set, options, fresh);
        model->to_dtype(f64);
        Pass pass;
        pass.training = true;
        loss_of(*model, expanded ? batch.expanded() : batch, pass).backward();
        for (const Parameter& p : model->parameters()) {
          const bool buffer = p.kind == ParameterKind::buffer;  // running statistics
          CAPTURE(p.name);
          const Tensor value = buffer ? p.value : p.value.grad();  // undefined where no event was looked up
          got[expanded].push_back(value.defined() ? column(value) : std::vector<double>{});
        }
      }
      REQUIRE(got[0].size() == got[1].size());
      for (size_t i = 0; i < got[0].size(); ++i) {
        REQUIRE(got[0][i].size() == got[1][i].size());
        for (size_t j = 0; j < got[0][i].size(); ++j)
          CHECK(std::abs(got[0][i][j] - got[1][i][j]) <= 1e-9 * (1e-3 + std::abs(got[1][i][j])));
      }
    }
  }
}

TEST_CASE("pairs: listed or as a grid, every event of a candidate's request and no other") {
  const FeatureSet set = mixed_features();
  for (const auto& lengths : {std::vector<int64_t>{3, 2}, {0, 4}, {5, 0}, {4}}) {
    for (const bool training : {false, true}) {  // a grid in evaluation
      CAPTURE(training);
      Rng rng(9);
      const RequestBatch batch = random_requests(
          set, lengths.size() == 1 ? std::vector<int64_t>{3} : std::vector<int64_t>{2, 3}, lengths, rng);
      const InputLayer layer(set, {}, rng);
      Pass pass;
      pass.training = training;
      const Inputs in(layer, batch, pass);
      const Pairs pairs(in, 0, pass);
      const int64_t E = in.history(0).events.dim(0), C = batch.candidates;
      Tensor event = empty({E, 2}, f64), candidate = empty({C, 1}, f64);
      rng.fill_normal(event, 0, 1), rng.fill_normal(candidate, 0, 1);
      const Tensor scores = pairs.of_candidates(candidate) * pairs.of_events(event.narrow(1, 0, 1));
      const Tensor plain = pairs.weighted_sum(scores, event);
      const Tensor shares = pairs.weighted_sum(pairs.softmax(scores), event);
      for (size_t r = 0; r < lengths.size(); ++r) {
        const auto first = batch.histories[0].offsets.to_vector<int64_t>()[r];
        for (int64_t c = batch.offsets.to_vector<int64_t>()[r]; c < batch.offsets.to_vector<int64_t>()[r + 1];
             ++c) {
          double weights = 0, sums[2] = {}, averages[2] = {};
          for (int64_t t = first; t < first + lengths[r]; ++t) {
            const double score = candidate.data<double>()[c] * event.data<double>()[2 * t];
            weights += std::exp(score);
            for (int64_t d = 0; d < 2; ++d) {
              sums[d] += score * event.data<double>()[2 * t + d];
              averages[d] += std::exp(score) * event.data<double>()[2 * t + d];
            }
          }
          for (int64_t d = 0; d < 2; ++d) {
            CHECK(column(plain)[static_cast<size_t>(2 * c + d)] == doctest::Approx(sums[d]).epsilon(1e-12));
            CHECK(column(shares)[static_cast<size_t>(2 * c + d)] ==
                  doctest::Approx(weights > 0 ? averages[d] / weights : 0).epsilon(1e-12));
          }
        }
      }
    }
  }
}

namespace {

struct LearnedRow : Module {  // a module that a program might bring: one learned row for every request
  LearnedRow(const SequenceInput&, const MeanPoolingOptions&, Rng& rng) : row(1, 3, rng) {}
  Tensor forward(const Inputs& in, Pass&) const {
    return row.forward(ones({in.requests(), 1}, row.weight.dtype()));
  }
  int64_t width() const { return 3; }
  bool of_request() const { return true; }
  void visit(Visitor& v) { v.module("row", row); }
  Linear row;
};

struct Half : Module {
  Half(const InteractionInput&, const MeanPoolingOptions&, Rng&) {}
  Interaction forward(const Inputs& in, Pass&) const { return {.logits = full({in.candidates(), 1}, .5)}; }
  int64_t width() const { return 0; }
  void visit(Visitor&) {}
};

}  // namespace

TEST_CASE("zoo: a program's own modules are found by stacks while it runs, and listed") {
  const FeatureSet set = mixed_features();
  const char* options = R"({"sequence": {"name": "learned_row"}, "interaction": {"name": "half"}})";
  Rng rng(1);
  {
    const OwnModules own({sequence_entry<LearnedRow, MeanPoolingOptions>("learned_row", "a row")},
                         {interaction_entry<Half, MeanPoolingOptions>("half", "even odds")});
    CHECK(sequence_modules()[0].name == "learned_row");
    CHECK(interaction_modules()[0].name == "half");
    const auto model = find_model("stack").build(set, options, rng);
    Pass pass;
    CHECK(model->forward(random_requests(set, {2, 1}, {1, 0}, rng), pass).to_vector<float>() ==
          std::vector<float>(6, .5f));
    // An alias finds it too.
    CHECK_NOTHROW(find_model("dcnv2").build(set, R"({"sequence": {"name": "learned_row"}})", rng));
  }
  CHECK(sequence_modules().size() == sequence_list().size());
  CHECK(message_of([&] { find_model("stack").build(set, options, rng); }).find("'half'") !=
        std::string::npos);
}

TEST_CASE("zoo: a model is called what the configuration calls it") {
  for (const char* name : {"din", "dcnv2", "deepfm", "fm", "stack"}) {
    Rng rng(1);
    CHECK(find_model(name).build(mixed_features(), "{}", rng)->name() == name);
  }
}

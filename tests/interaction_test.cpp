// Models that are interactions of features, against loops over plain numbers.
#include "mixrec/models/mlp.h"
#include "mixrec/models/unified/mixformer.h"
#include "mixrec/models/unified/ui_mixformer.h"
#include "mixrec/tests/expected.h"
#include "mixrec/tests/golden_batch.h"

#include <cmath>
#include <doctest/doctest.h>
#include <map>

using namespace mixrec;
using namespace mixrec::test;

namespace {

using Numbers = std::vector<double>;

// The tensors of a model by name, as plain numbers.
template <class Model>
std::map<std::string, Plain> weights_of(Model& model) {
  std::map<std::string, Plain> all;
  for (const Parameter& p : parameters(model))
    all[p.name] = {{p.value.shape().begin(), p.value.shape().end()}, p.value.to_vector<double>()};
  return all;
}

// Moves every weight away from its start, so that zeros and ones cannot hide anything.
template <class Model>
void shake(Model& model) {
  Rng rng(8);
  for (const Parameter& p : parameters(model)) rng.fill_normal(p.value.detach(), .1, .5);
}

Numbers row_of(const Plain& table, int64_t id) {
  Numbers row;
  for (int64_t k = 0; k < table.shape[1]; ++k) row.push_back(table(id, k));
  return row;
}

void append(Numbers& to, const Numbers& more) { to.insert(to.end(), more.begin(), more.end()); }

// One feature of row `at`: a table's row, the mean of several, or a value times a vector.
Numbers embedded(const std::map<std::string, Plain>& weights, const FeatureSpec& spec,
                 const FeatureColumn& column, int64_t at) {
  if (spec.kind == FeatureKind::numeric) {
    Numbers row = row_of(weights.at("embedding.numeric." + spec.name), 0);
    for (double& v : row) v *= column.values.to_vector<double>()[static_cast<size_t>(at)];
    return row;
  }
  const Plain& table = weights.at("embedding.tables." + spec.name);
  const auto ids = column.ids.to_vector<int64_t>();
  if (spec.kind == FeatureKind::categorical) return row_of(table, ids[static_cast<size_t>(at)]);
  const auto offsets = column.offsets.to_vector<int64_t>();
  const int64_t begin = offsets[static_cast<size_t>(at)], end = offsets[static_cast<size_t>(at) + 1];
  Numbers sum(static_cast<size_t>(spec.width));
  for (int64_t i = begin; i < end; ++i)
    for (size_t k = 0; k < sum.size(); ++k)
      sum[k] += row_of(table, ids[static_cast<size_t>(i)])[k] / static_cast<double>(end - begin);
  return sum;
}

// Features of one scope, side by side.
Numbers all_embedded(const std::map<std::string, Plain>& weights, const FeatureSet& spec,
                     const RequestBatch& batch, FeatureScope scope, int64_t at) {
  Numbers all;
  for (size_t f = 0; f < spec.features.size(); ++f)
    if (spec.features[f].scope == scope)
      append(all, embedded(weights, spec.features[f], batch.features[f], at));
  return all;
}

// x W + b, with SiLU in front of every layer but the first.
Numbers mlp(const std::map<std::string, Plain>& weights, Numbers x) {
  for (int layer = 0; weights.contains("mlp." + std::to_string(layer) + ".weight"); ++layer) {
    const Plain& w = weights.at("mlp." + std::to_string(layer) + ".weight");
    Numbers y = weights.at("mlp." + std::to_string(layer) + ".bias").values;
    for (double& v : x) v = layer > 0 ? v / (1 + std::exp(-v)) : v;
    REQUIRE(static_cast<int64_t>(x.size()) == w.shape[0]);
    for (int64_t i = 0; i < w.shape[0]; ++i)
      for (int64_t j = 0; j < w.shape[1]; ++j)
        y[static_cast<size_t>(j)] += x[static_cast<size_t>(i)] * w(i, j);
    x = y;
  }
  return x;
}

struct Rows {
  Golden golden{"mixformer"};
  FeatureSet spec = golden_spec();
  RequestBatch batch = golden_batch(golden, spec);

  // f(request, candidate)
  template <class F>
  void each(F f) const {
    const auto offsets = batch.offsets.to_vector<int64_t>();
    for (int64_t r = 0; r < batch.requests; ++r)
      for (int64_t c = offsets[static_cast<size_t>(r)]; c < offsets[static_cast<size_t>(r) + 1]; ++c) f(r, c);
  }
};

}  // namespace

TEST_CASE("the MLP is its equations: features of request, mean event and candidate side by side") {
  const Rows rows;
  for (const bool pooled : {true, false}) {
    CAPTURE(pooled);
    Rng rng(2);
    MlpModel model(rows.spec, {.hidden = 6, .pooled_history = pooled}, rng);
    shake(model);
    const auto weights = weights_of(model);
    Pass pass;
    const auto logits = model.forward(rows.batch, pass).to_vector<double>();
    const auto events = rows.batch.histories[0].offsets.to_vector<int64_t>();
    const auto& history = rows.spec.histories[0].features;
    rows.each([&](int64_t r, int64_t c) {
      Numbers x = all_embedded(weights, rows.spec, rows.batch, FeatureScope::request, r);
      const auto begin = events[static_cast<size_t>(r)], end = events[static_cast<size_t>(r) + 1];
      Numbers mean(11);
      for (int64_t e = begin; e < end; ++e) {
        Numbers event;
        for (size_t f = 0; f < history.size(); ++f)
          append(event, embedded(weights, history[f], rows.batch.histories[0].columns[f], e));
        REQUIRE(event.size() == mean.size());
        for (size_t k = 0; k < event.size(); ++k) mean[k] += event[k] / static_cast<double>(end - begin);
      }
      if (pooled) append(x, mean);
      append(x, all_embedded(weights, rows.spec, rows.batch, FeatureScope::candidate, c));
      const Numbers expected = mlp(weights, x);
      for (size_t t = 0; t < 2; ++t)
        CHECK(logits[static_cast<size_t>(c) * 2 + t] == doctest::Approx(expected[t]).epsilon(2e-5));
    });
  }
}

TEST_CASE("logistic regression is a bias and one weight per value and task") {
  const Rows rows;
  Rng rng(2);
  LogisticRegressionModel model(rows.spec, {}, rng);
  shake(model);
  const auto weights = weights_of(model);
  FeatureSet wide = rows.spec;
  for (FeatureSpec& f : wide.features) f.width = 2;
  Pass pass;
  const auto logits = model.forward(rows.batch, pass).to_vector<double>();
  rows.each([&](int64_t r, int64_t c) {
    for (size_t t = 0; t < 2; ++t) {
      double expected = weights.at("bias").values[t];
      for (const auto& [scope, at] : {std::pair{FeatureScope::request, r}, {FeatureScope::candidate, c}}) {
        const Numbers parts = all_embedded(weights, wide, rows.batch, scope, at);
        for (size_t i = t; i < parts.size(); i += 2) expected += parts[i];
      }
      CHECK(logits[static_cast<size_t>(c) * 2 + t] == doctest::Approx(expected).epsilon(1e-5));
    }
  });
}

TEST_CASE("models drop features out in training only") {
  const Rows rows;
  const auto check = [&](auto& model) {
    shake(model);
    const auto logits = [&](bool training, uint64_t seed) {
      Pass pass;
      pass.training = training;
      pass.rng = Rng(seed);
      return model.forward(rows.batch, pass).template to_vector<float>();
    };
    CHECK(logits(false, 1) == logits(false, 2));
    CHECK(logits(true, 1) == logits(true, 1));
    CHECK(logits(true, 1) != logits(true, 2));
    CHECK(logits(true, 1) != logits(false, 1));
  };
  Rng rng(2);
  MlpModel mlp(rows.spec, {.hidden = 6, .dropout = .5}, rng);
  check(mlp);
  MixFormerOptions options{.heads = 4, .width = 8, .layers = 1, .event_width = 3, .dropout = .5};
  MixFormer mixformer(rows.spec, options, rng);
  check(mixformer);
  UiMixFormerOptions ui;
  static_cast<MixFormerOptions&>(ui) = options;
  UiMixFormer ui_mixformer(rows.spec, ui, rng);
  check(ui_mixformer);
}

// Inputs, and modules put together from configuration, against loops written from their equations.
#include "mixrec/models/stack.h"

#include "mixrec/core/error.h"
#include "mixrec/models/list.h"
#include "mixrec/tests/golden.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/random_requests.h"

#include <cmath>
#include <doctest/doctest.h>
#include <map>

using namespace mixrec;
using namespace mixrec::test;

namespace {

using Row = std::vector<double>;

// Parameters by name, as doubles.
struct Named {
  std::map<std::string, Tensor> tensors;
  explicit Named(const std::vector<Parameter>& parameters) {
    for (const Parameter& p : parameters) tensors[p.name] = p.value;
  }
  double at(const std::string& name, int64_t row, int64_t column) const {
    const Tensor& t = tensors.at(name);
    return t.to_vector<double>()[static_cast<size_t>(row * t.dim(t.ndim() - 1) + column)];
  }
  int64_t width(const std::string& name) const { return tensors.at(name).dim(tensors.at(name).ndim() - 1); }
};

// What one cell is embedded as, with the tables behind `prefix`.
Row embedded(const Named& named, const std::string& prefix, const FeatureSpec& feature,
             const FeatureColumn& cells, int64_t row) {
  if (feature.kind == FeatureKind::numeric) {
    const std::string name = prefix + "numeric." + feature.name;
    Row e;
    for (int64_t i = 0; i < named.width(name); ++i)
      e.push_back(cells.values.data<float>()[row] * named.at(name, 0, i));
    return e;
  }
  const std::string name = prefix + "tables." + feature.table_name();
  Row e(static_cast<size_t>(named.width(name)), 0);
  const bool list = feature.kind == FeatureKind::list;
  const int64_t first = list ? cells.offsets.data<int64_t>()[row] : row;
  const int64_t last = list ? cells.offsets.data<int64_t>()[row + 1] : row + 1;
  for (int64_t i = first; i < last; ++i)
    for (size_t j = 0; j < e.size(); ++j)
      e[j] += named.at(name, cells.ids.data<int64_t>()[i], static_cast<int64_t>(j)) /
              static_cast<double>(last - first);
  return e;
}

std::vector<int64_t> request_of(const RequestBatch& batch) {
  std::vector<int64_t> request;
  for (int64_t r = 0; r < batch.requests; ++r)
    for (int64_t c = batch.offsets.data<int64_t>()[r]; c < batch.offsets.data<int64_t>()[r + 1]; ++c)
      request.push_back(r);
  return request;
}

// Every feature of candidate c: those of its request first.
std::vector<Row> fields_of(const Named& named, const std::string& prefix, const FeatureSet& set,
                           const RequestBatch& batch, int64_t c) {
  const int64_t r = request_of(batch)[static_cast<size_t>(c)];
  std::vector<Row> fields;
  for (const FeatureScope scope : {FeatureScope::request, FeatureScope::candidate})
    for (size_t f = 0; f < set.features.size(); ++f)
      if (set.features[f].scope == scope)
        fields.push_back(embedded(named, prefix, set.features[f], batch.features[f],
                                  scope == FeatureScope::request ? r : c));
  return fields;
}

Row event_of(const Named& named, const FeatureSet& set, const RequestBatch& batch, size_t h, int64_t event) {
  Row e;
  for (size_t f = 0; f < set.histories[h].features.size(); ++f) {
    const Row part =
        embedded(named, "embedding.", set.histories[h].features[f], batch.histories[h].columns[f], event);
    e.insert(e.end(), part.begin(), part.end());
  }
  return e;
}

Row times(const Row& x, const Named& named, const std::string& weight, const std::string& bias = "") {
  Row y;
  for (int64_t o = 0; o < named.width(weight); ++o) {
    double sum = bias.empty() ? 0 : named.at(bias, 0, o);
    for (size_t i = 0; i < x.size(); ++i) sum += x[i] * named.at(weight, static_cast<int64_t>(i), o);
    y.push_back(sum);
  }
  return y;
}

Row silu_of(Row x) {
  for (double& v : x) v /= 1 + std::exp(-v);
  return x;
}

Row joined(Row a, const Row& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::unique_ptr<RankingModel> stack_of(const FeatureSet& set, const std::string& options) {
  Rng rng(3);
  auto model = find_model("stack").build(set, options, rng);
  for (Parameter& p : model->parameters()) {
    std::vector<float> values = p.value.detach().to_vector<float>();
    for (float& x : values) x += static_cast<float>(.6 * rng.uniform() - .3);
    p.value.detach().copy_from(Tensor::from(values, p.value.shape()));
  }
  model->to_dtype(f64);
  return model;
}

Row candidate_row(const Tensor& x, int64_t c) {
  const auto values = x.contiguous().to_vector<double>();
  const int64_t width = x.dim(1);
  return Row(values.begin() + c * width, values.begin() + (c + 1) * width);
}

void check_rows(const Row& got, const Row& want) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(want[i]).epsilon(1e-11));
}

}  // namespace

TEST_CASE("stack: target attention of two histories, then an MLP, by the equations") {
  const FeatureSet set = mixed_features(2);
  Rng rng(1);
  const RequestBatch batch = random_requests(set, {2, 1}, {3, 0}, rng);
  const auto model = stack_of(set, R"({"sequence": {"name": "target_attention", "width": 5},
                                       "interaction": {"name": "mlp", "widths": [6]}})");
  const Named named(model->parameters());
  Pass pass;
  const Tensor logits = model->forward(batch, pass);
  for (int64_t c = 0; c < batch.candidates; ++c) {
    CAPTURE(c);
    const int64_t r = request_of(batch)[static_cast<size_t>(c)];
    std::vector<Row> fields = fields_of(named, "embedding.", set, batch, c);
    Row e;
    for (const Row& field : fields) e = joined(e, field);
    // Events begin with item and tags, which are fields 3 and 4 of a candidate.
    const Row target = joined(fields[3], fields[4]);
    for (size_t h = 0; h < 2; ++h) {
      const std::string at = "sequence." + set.histories[h].name + ".";
      const Row q = times(target, named, at + "query.weight");
      const int64_t first = batch.histories[h].offsets.data<int64_t>()[r];
      const int64_t last = batch.histories[h].offsets.data<int64_t>()[r + 1];
      Row sum(5, 0);
      double total = 0;
      for (int64_t t = first; t < last; ++t) {
        const Row event = event_of(named, set, batch, h, t);
        const Row k = times(event, named, at + "key"), v = times(event, named, at + "value");
        double score = 0;
        for (size_t i = 0; i < 5; ++i) score += q[i] * k[i] / std::sqrt(5.);
        total += std::exp(score);
        for (size_t i = 0; i < 5; ++i) sum[i] += std::exp(score) * v[i];
      }
      for (double& x : sum) x = total > 0 ? x / total : 0;
      e = joined(e, times(sum, named, at + "output.weight"));
    }
    const Row hidden = silu_of(times(e, named, "interaction.0.weight", "interaction.0.bias"));
    Row want;
    for (const char* task : {"click", "buy"})
      want.push_back(times(hidden, named, std::string("heads.") + task + ".mlp.0.weight",
                           std::string("heads.") + task + ".mlp.0.bias")[0]);
    check_rows(candidate_row(logits, c), want);
  }
}

TEST_CASE(
    "stack: a factorisation machine beside mean pooling; fields of other widths are projected or refused") {
  FeatureSet set = mixed_features();
  set.features[2].width = 3;  // age
  const std::string options =
      R"({"compose": "parallel", "field_width": 4, "sequence": {"name": "mean_pooling"},
                                  "interaction": {"name": "fm"}})";
  Rng rng(2);
  const RequestBatch batch = random_requests(set, {1, 3}, {2, 4}, rng);
  const auto model = stack_of(set, options);
  const Named named(model->parameters());
  Pass pass;
  const Tensor logits = model->forward(batch, pass);
  for (int64_t c = 0; c < batch.candidates; ++c) {
    CAPTURE(c);
    std::vector<Row> fields = fields_of(named, "embedding.", set, batch, c);
    fields[2] = times(fields[2], named, "embedding.field_projections.age.weight");
    double pairs = 0;
    for (size_t i = 0; i < fields.size(); ++i)
      for (size_t j = i + 1; j < fields.size(); ++j)
        for (size_t d = 0; d < 4; ++d) pairs += fields[i][d] * fields[j][d];
    const std::vector<Row> weights = fields_of(named, "embedding.first_order.", set, batch, c);
    const int64_t r = request_of(batch)[static_cast<size_t>(c)];
    const int64_t first = batch.histories[0].offsets.data<int64_t>()[r];
    const int64_t last = batch.histories[0].offsets.data<int64_t>()[r + 1];
    Row pooled(12, 0);
    for (int64_t t = first; t < last; ++t) {
      const Row event = event_of(named, set, batch, 0, t);
      for (size_t i = 0; i < 12; ++i) pooled[i] += event[i] / static_cast<double>(last - first);
    }
    Row want;
    for (int64_t t = 0; t < 2; ++t) {
      const std::string head = "heads." + set.tasks[static_cast<size_t>(t)].name + ".mlp.0.";
      double logit = pairs + named.at("interaction.bias", 0, t) +
                     times(pooled, named, head + "weight", head + "bias")[0];
      for (const Row& weight : weights) logit += weight[static_cast<size_t>(t)];
      want.push_back(logit);
    }
    check_rows(candidate_row(logits, c), want);
  }
  Rng fresh(1);
  CHECK(message_of([&] {
          find_model("stack").build(set, R"({"interaction": {"name": "fm"}})", fresh);
        }).find("feature 'user' is 4 wide, feature 'age' 3") != std::string::npos);
}

TEST_CASE("stack: names and options that do not exist are refused with what was meant") {
  const FeatureSet set = mixed_features();
  Rng rng(1);
  const auto refused = [&](const char* options) {
    return message_of([&] { find_model("stack").build(set, options, rng); });
  };
  CHECK(refused(R"({"sequence": {"name": "mean_poling"}})").find("did you mean 'mean_pooling'?") !=
        std::string::npos);
  CHECK(refused(R"({"interaction": {"name": "mlp", "width": [3]}})").find("model.interaction.width") !=
        std::string::npos);
  CHECK(refused(R"({"interaction": {"name": "mlp", "widths": [0]}})").find("widths.0 is 0") !=
        std::string::npos);
  CHECK(refused(R"({"compose": "both"})").find("compose") != std::string::npos);
}

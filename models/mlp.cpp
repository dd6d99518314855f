#include "mixrec/models/mlp.h"

#include "mixrec/core/error.h"
#include "mixrec/nn/init.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/request.h"

namespace mixrec {
namespace {

std::vector<int64_t> mlp_sizes(const FeatureSet& spec, const FeatureEmbedding& embedding,
                               const MlpModelOptions& o) {
  int64_t width = embedding.request_width() + embedding.candidate_width();
  for (size_t h = 0; o.pooled_history && h < embedding.histories(); ++h) width += embedding.event_width(h);
  return {width, o.hidden, o.hidden, static_cast<int64_t>(spec.tasks.size())};
}

// Every table one weight a task wide, and no histories.
FeatureSet linear_spec(FeatureSet spec) {
  for (FeatureSpec& feature : spec.features) feature.width = static_cast<int64_t>(spec.tasks.size());
  spec.histories.clear();
  return spec;
}

}  // namespace

void MlpModelOptions::visit(OptionVisitor& v) {
  v.number("hidden", hidden, between(1, 1 << 20), "width of both hidden layers");
  v.flag("pooled_history", pooled_history, "the mean of the raw events is one more feature");
  v.number("dropout", dropout, below(0, 1), "on the features, in training");
  v.number("table_deviation", table_deviation, between(0, 1e3), "standard deviation of initial embeddings");
}

MlpModel::MlpModel(const FeatureSet& spec, const MlpModelOptions& options, Rng& rng)
    : options_(options),
      embedding_(spec, rng, {options.table_deviation}),
      dropout_(options.dropout),
      mlp_(mlp_sizes(spec, embedding_, options), rng) {}

Tensor MlpModel::forward(const RequestBatch& batch, Pass& pass) const {
  std::vector<Tensor> user{embedding_.requests(batch, pass.compute)};
  for (size_t h = 0; options_.pooled_history && h < embedding_.histories(); ++h) {
    user.push_back(segment_mean(embedding_.events(batch, h, pass.compute), batch.histories[h].offsets));
  }
  return mlp_.forward(dropout_.forward(embedding_.candidates(batch, user, {}, 0, pass.compute), pass));
}

double MlpModel::forward_flops(const RequestBatch& batch) const {
  double weights = 0;
  for (const Linear& layer : mlp_.layers) weights += static_cast<double>(layer.weight.numel());
  return 2 * weights * static_cast<double>(batch.candidates);
}

LogisticRegressionModel::LogisticRegressionModel(const FeatureSet& spec, const LogisticRegressionOptions&,
                                                 Rng& rng)
    : tasks_(static_cast<int64_t>(spec.tasks.size())),
      embedding_(linear_spec(spec), rng, {.table_deviation = 1e-4}),
      bias_(constant_parameter({tasks_}, 0)) {}

Tensor LogisticRegressionModel::forward(const RequestBatch& batch, Pass& pass) const {
  const auto total = [&](const Tensor& e) {
    return cast(sum(e.reshape({e.dim(0), e.dim(1) / tasks_, tasks_}), 1), bias_.dtype());
  };
  return expand_by_request(total(embedding_.requests(batch, pass.compute)), batch.offsets, batch.candidates) +
         total(embedding_.candidates(batch, pass.compute)) + bias_;
}

}  // namespace mixrec

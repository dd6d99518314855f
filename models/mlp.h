// Baselines: an MLP on all features and the mean-pooled history, and logistic regression.
#pragma once

#include "mixrec/models/model.h"
#include "mixrec/nn/embedding.h"
#include "mixrec/nn/mlp.h"

namespace mixrec {

struct MlpModelOptions {
  int64_t hidden = 128;  // width of both hidden layers
  bool pooled_history = true;
  double dropout = 0;
  double table_deviation = 0.005;

  void visit(OptionVisitor& v);
};

// logits = MLP([e_1; …; e_M; mean_t s_t]): the concatenation of eq 1 with the history mean-pooled; C x tasks.
class MlpModel : public Module {
 public:
  MlpModel(const FeatureSet& spec, const MlpModelOptions& options, Rng& rng);
  Tensor forward(const RequestBatch& batch, Pass& pass) const;
  double forward_flops(const RequestBatch& batch) const;
  void visit(Visitor& v) { v.module("embedding", embedding_), v.module("mlp", mlp_); }

 private:
  MlpModelOptions options_;
  FeatureEmbedding embedding_;
  Dropout dropout_;
  MLP mlp_;
};

struct LogisticRegressionOptions {
  void visit(OptionVisitor&) {}
};

// logit = b + Σ_i w_i[value of feature i]: one weight a table row, per task; events are not read.
class LogisticRegressionModel : public Module {
 public:
  LogisticRegressionModel(const FeatureSet& spec, const LogisticRegressionOptions& options, Rng& rng);
  Tensor forward(const RequestBatch& batch, Pass& pass) const;
  void visit(Visitor& v) { v.module("embedding", embedding_), v.parameter("bias", bias_); }

 private:
  int64_t tasks_;
  FeatureEmbedding embedding_;
  Tensor bias_;  // [tasks]
};

}  // namespace mixrec

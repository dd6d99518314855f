// Normalisation of columns by their mean and variance over the rows of a batch.
//
//   training     x̂ = (x - μ) / √(σ² + eps),  μ, σ² of this batch;  running ← running + momentum (batch - running)
//   evaluation   x̂ of the running mean and variance, which are buffers: a checkpoint holds them
//
// Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167.  The running variance is unbiased, n / (n - 1) σ².
// A row may stand for several (RowCounts), so that a request that is computed once weighs as much as its candidates
// would.  Statistics are f32 (f64 for f64) whatever the dtype of x.
#pragma once

#include "mixrec/nn/module.h"
#include "mixrec/nn/pass.h"

namespace mixrec {

// How often each row counts.
struct RowCounts {
  Tensor each = {};   // f32 [rows]; undefined: once
  int64_t total = 0;  // their sum, where `each` is given: a device is not asked for it
};

struct ColumnStatistics : Module {
  Tensor mean, variance;  // [width], running
  double momentum, eps;

  explicit ColumnStatistics(int64_t width, double eps = 1e-5, double momentum = .1);
  // x̂ of x [rows, width], in f32 (f64 for f64).  Throws when a batch in training counts fewer than two rows.
  Tensor normalise(const Tensor& x, Pass& pass, const RowCounts& counts = {}) const;
  void visit(Visitor& v) { v.buffer("mean", mean), v.buffer("variance", variance); }
};

// x̂ ⊙ gain + bias, in x's dtype.
struct BatchNorm : Module {
  Tensor gain, bias;  // [width]
  ColumnStatistics statistics;

  explicit BatchNorm(int64_t width, double eps = 1e-5, double momentum = .1);
  Tensor forward(const Tensor& x, Pass& pass, const RowCounts& counts = {}) const;
  void visit(Visitor& v) {
    v.parameter("gain", gain), v.parameter("bias", bias), v.module("statistics", statistics);
  }
};

}  // namespace mixrec

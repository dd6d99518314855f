// Normalisation over the last dimension.
#pragma once

#include "mixrec/nn/module.h"

namespace mixrec {

// x / sqrt(mean(x²) + eps) ⊙ gain; the gain [width] is shared by everything in front of the last dimension.
struct RMSNorm : Module {
  Tensor gain;
  double eps;

  explicit RMSNorm(int64_t width, double eps = 1e-6);
  Tensor forward(const Tensor& x) const;
  void visit(Visitor& v) { v.parameter("gain", gain); }
};

// (x - mean) / sqrt(variance + eps) ⊙ gain + bias.
struct LayerNorm : Module {
  Tensor gain, bias;
  double eps;

  explicit LayerNorm(int64_t width, double eps = 1e-5);
  Tensor forward(const Tensor& x) const;
  void visit(Visitor& v) { v.parameter("gain", gain), v.parameter("bias", bias); }
};

}  // namespace mixrec

// Linear maps: one for all rows, or one per head.
#pragma once

#include "mixrec/nn/module.h"

namespace mixrec {

struct LinearOptions {
  bool bias = true;
  double gain = 1;  // weight deviation is gain / sqrt(in)
};

// y = x W + b;  x [..., in] -> [..., out].
struct Linear : Module {
  Tensor weight;  // [in, out]
  Tensor bias;    // [out] or undefined

  Linear(int64_t in, int64_t out, Rng& rng, const LinearOptions& options = {});
  Tensor forward(const Tensor& x) const;
  void visit(Visitor& v) { v.parameter("weight", weight), v.parameter("bias", bias); }
};

// y_i = x_i W_i, a weight of its own for every head;  x [B, N, in] -> [B, N, out].  No bias.
struct PerHeadLinear : Module {
  Tensor weight;  // [N, in, out]

  PerHeadLinear(int64_t heads, int64_t in, int64_t out, Rng& rng, double gain = 1);
  Tensor forward(const Tensor& x) const;
  void visit(Visitor& v) { v.parameter("weight", weight); }
};

}  // namespace mixrec

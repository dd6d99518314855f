// Feed-forward networks with the SwiGLU gate:  ffn(x) = (silu(x W_gate) ⊙ (x W_up)) W_down,  no biases.
//
// W_gate and W_up lie side by side in one parameter, so that they are one product.  forward(x, residual) adds a
// residual of the result's shape.
#pragma once

#include "mixrec/nn/module.h"

namespace mixrec {

struct FfnOptions {
  // The down-projection starts this much smaller than its usual deviation, so that a residual block starts
  // near the identity (TokenMixer-Large section 3: .01).
  double down_scale = 0.01;
};

// One network for all rows; x [..., width] -> [..., width].  MixFormer eq 5.
struct SwiGLU : Module {
  Tensor gate_up;  // [width, 2 hidden]: W_gate, W_up
  Tensor down;     // [hidden, width]

  SwiGLU(int64_t width, int64_t hidden, Rng& rng, const FfnOptions& options = {});
  Tensor forward(const Tensor& x, const Tensor& residual = {}) const;
  void visit(Visitor& v) { v.parameter("gate_up", gate_up), v.parameter("down", down); }
};

// A network of its own for every head; x [B, N, width] -> [B, N, width].  MixFormer eqs 4 and 9.
struct PerHeadFFN : Module {
  Tensor gate_up;  // [N, width, 2 hidden]
  Tensor down;     // [N, hidden, width]

  PerHeadFFN(int64_t heads, int64_t width, int64_t hidden, Rng& rng, const FfnOptions& options = {});
  Tensor forward(const Tensor& x, const Tensor& residual = {}) const;
  void visit(Visitor& v) { v.parameter("gate_up", gate_up), v.parameter("down", down); }
};

}  // namespace mixrec

// A feed-forward network behind a norm, around which the input passes: what MixFormer's blocks are made of (eqs 4,
// 5 and 9).
//
//   y = x + ffn(rms_norm(x))        rms_norm: ops/norm.h        ffn(n) = (silu(n W_gate) ⊙ (n W_up)) W_down: ops/ffn/ffn.h
//
// One op because of its memory and its passes over it.  On a device the residual is added by the product that makes
// y and its gradient by the norm's backward.  It saves x, the norm's factors, n, n [W_gate, W_up] and the gated
// product; with `recompute` x and the factors alone, and the backward makes the rest again, `block_rows` rows at a
// time, so that it never exists for all rows at once.  (On the CPU it is composed of rms_norm and ffn, with
// checkpoint_rows.)  reference::residual_ffn is the composed twin.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

struct ResidualFfnOptions {
  double eps = 1e-6;
  bool recompute = false;
  // Enough to fill a card, few enough that what a block needs is small beside x.
  int64_t block_rows = 16384;
};

// One network for all rows: x [..., D], gain [D], gate_up [D, 2F], down [F, D] -> [..., D].
// One a head: x [B, N, D], gain [D], gate_up [N, D, 2F], down [N, F, D] -> [B, N, D].
// One dtype, but for a bf16 x with f32 parameters as in linear().
Tensor residual_ffn(const Tensor& x, const Tensor& gain, const Tensor& gate_up, const Tensor& down,
                    const ResidualFfnOptions& options = {});

}  // namespace mixrec

// Cross attention of MixFormer (eqs 7-8): every head attends to its slice of the events with one query, over
// jagged histories.
//
//   k_t = h_t^n W_k^n,   v_t = h_t^n W_v^n,   z[c, n] = Σ_t softmax_t(q[c, n] · k_t / √D) v_t (+ residual)
//
// computed without K and V, which would be as long as the histories:
//
//   u = q (W_k^n)ᵀ / √D,   m = attend(u, h),   z = m W_v^n
//
// q: [C, N, D]; key, value: [N, Ds, D]; h: [E, N·Ds]; offsets as in ops/attention/attend.h, which also says what an
// empty history and C = R mean.  The scale is 1/√D also where Ds differs from D.  Composed from
// per_head_matmul and attend, which save what they need.  reference::cross_attention (ops/reference.h) is the
// literal form.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

Tensor cross_attention(const Tensor& q, const Tensor& key, const Tensor& value, const Tensor& h,
                       const Tensor& history_offsets, const Tensor& candidate_offsets,
                       const Tensor& residual = {});  // -> [C, N, D]

}  // namespace mixrec

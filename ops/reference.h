// The composed twins of fused ops: the same signature, written from plain ops as the formula reads.  For
// tests, for study, and for a backend that lacks the fused kernel.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec::reference {

// With K and V as in MixFormer's eqs 7-8, one candidate after the other (ops/cross_attention.h).
Tensor cross_attention(const Tensor& q, const Tensor& key, const Tensor& value, const Tensor& h,
                       const Tensor& history_offsets, const Tensor& candidate_offsets);

}  // namespace mixrec::reference

// A linear map of rows whose first columns are the same for all candidates of a request: those are multiplied once a
// request.
//
//   y[c] = shared[r] w[:A] + own[c] w[A:] + bias        c a candidate of request r
//   dshared = (Σ_c dy) w[:A]ᵀ;  down = dy w[A:]ᵀ;  dw = [sharedᵀ (Σ_c dy); ownᵀ dy]        saves shared, own, w, offsets
//
// The same as linear() of [expand_by_request(shared), own], but for the order of the sums.  Dtypes as there.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// shared [R, A], own [C, B], offsets i64 [R + 1], w [A + B, F], bias [F] or undefined -> [C, F].
Tensor linear_by_request(const Tensor& shared, const Tensor& own, const Tensor& offsets, const Tensor& w,
                         const Tensor& bias = {});

}  // namespace mixrec

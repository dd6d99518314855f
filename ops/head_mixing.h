// HeadMixing of MixFormer: every output head takes one chunk of every input head (papers: MixFormer eq 3, and
// eqs 10-11 for the mask).
//
//   out[c, r·w + k] = in[r, c·w + k] (+ residual[c, r·w + k]),   w = D / N,  0 <= k < w
//
// i.e. N×D is cut into N×N chunks of w, which are transposed.  It has no parameters and undoes itself.  With
// user_heads = U > 0, out[c, r·w + k] is zero where c < U <= r: user heads never read item heads, so that
// they do not depend on the candidate.
//
// x: [B, N, D], N dividing D, rows of any stride; 0 <= user_heads < N.  The gradient is the same permutation
// of the masked upstream gradient; nothing is saved.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// x and the residual, or none: [B, N, D] -> [B, N, D]
Tensor head_mixing(const Tensor& x, int64_t user_heads = 0, const Tensor& residual = {});

namespace kernel {

// batch = B, rows = N, cols = D; a residual without data is none.  `transposed`: the mask of the backward, zero
// where r < U <= c.
template <class T>
void head_mixing(Cpu, Mat<const T> x, int64_t user_heads, bool transposed, Mat<const T> residual, Mat<T> y);

// The same on a device.
template <class T>
void head_mixing(Cuda, Mat<const T> x, int64_t user_heads, bool transposed, Mat<const T> residual, Mat<T> y);

}  // namespace kernel
}  // namespace mixrec

// HeadMixing for the heads of one side of UI-MixFormer (eqs 10-11 of arXiv 2602.14110), where what the other side gives
// exists once a request.  n heads of this side, U of the other, chunks of w columns:
//
//   y[c, h, i·w + k] = shared[r, i, h·w + k]      i < U, c a candidate of request r
//                    = own[c, i - U, h·w + k]     U <= i < U + n
//                    = 0                          further columns
//                      + residual[c, h, i·w + k]
//
// User heads read each other (U = 0, further columns masked); item heads read the shared user heads and each other.
//
//   dresidual = dy;  down, dshared: the same chunks of dy back in place, dshared summed over the candidates of a request
//
// Saves offsets.  Sums run in the order of the candidates and are kept in f32 (f64 for f64).
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// own [C, n, n·w], residual [C, n, D], D >= (U + n)·w, shared [R, U, n·w] with its offsets i64 [R + 1] or neither
// -> [C, n, D].  Rows of own and shared may be strided.
Tensor side_mixing(const Tensor& own, const Tensor& residual, const Tensor& shared = {},
                   const Tensor& offsets = {});

namespace kernel {

// As above; a shared without data is none.
template <class T>
void side_mixing(Cpu, Mat<const T> own, Mat<const T> residual, Mat<const T> shared, const int64_t* offsets,
                 Mat<T> y);
template <class T>
void side_mixing(Cuda, Mat<const T> own, Mat<const T> residual, Mat<const T> shared, const int64_t* offsets,
                 Mat<T> y);

// Back in place: dx[c, i, h·w + k] = dy[c, h, (first + i)·w + k];  dy [C, n, D], dx [C, any, n·w].
template <class T>
void side_mixing_backward(Cpu, Mat<const T> dy, int64_t first, Mat<T> dx);
template <class T>
void side_mixing_backward(Cuda, Mat<const T> dy, int64_t first, Mat<T> dx);

}  // namespace kernel
}  // namespace mixrec

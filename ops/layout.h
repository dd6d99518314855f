// Putting tensors together and taking them apart.  Any dtype; gradients for floating ones.
#pragma once

#include "mixrec/core/tensor.h"

#include <cstdint>
#include <vector>

namespace mixrec {

// Side by side along `dim`; the other sizes must agree.  Gradient: each part gets its slice of dy.
Tensor concat(const std::vector<Tensor>& parts, int dim);

// Views of x that follow each other along `dim`; `sizes` must add up to that dimension.  The backward writes
// one gradient for all parts, where as many narrow() would write one each.
std::vector<Tensor> split(const Tensor& x, int dim, const std::vector<int64_t>& sizes);

// y[j] = x[ids[j]]: rows along dimension 0.  x: [R, ...], ids: i64 [n] in [0, R) -> [n, ...].
// dx[r] = Σ_{ids[j] = r} dy[j], summed in the order of j, in f32 for bf16: deterministic.
Tensor gather_rows(const Tensor& x, const Tensor& ids);

// x: [..., D] -> [..., D + count], zeros appended.
Tensor pad_last(const Tensor& x, int64_t count);

namespace kernel {

// X and Y are one type, or float and bfloat16.  On a device an id outside x gives zeros, and is reported by
// cuda::check_device_errors().
template <class X, class Y>
void gather_rows(Cpu, Mat<const X> x, const int64_t* ids, Mat<Y> y);
template <class X, class Y>
void gather_rows(Cuda, Mat<const X> x, const int64_t* ids, Mat<Y> y);
template <class T>
void gather_rows_backward(Cpu, const int64_t* ids, Mat<const T> dy, Mat<T> dx);
template <class T>
void gather_rows_backward(Cuda, const int64_t* ids, Mat<const T> dy, Mat<T> dx);

}  // namespace kernel
}  // namespace mixrec

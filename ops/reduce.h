// Sums, means and maxima.  Sums are kept in f32 (f64 for f64) and added in an order that depends on the shape
// alone.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

Tensor sum(const Tensor& x);           // of all elements -> []
Tensor sum(const Tensor& x, int dim);  // removes the dimension
Tensor mean(const Tensor& x);
Tensor mean(const Tensor& x, int dim);

// The largest along a dimension, which is removed.  The gradient goes to the first of equals; a NaN wins.
Tensor max(const Tensor& x, int dim);

// Sums over the dimensions that broadcasting stretched from `shape` to x.shape(): the gradient of
// broadcasting.
Tensor sum_to(const Tensor& x, const Shape& shape);

// x with dimensions of size 1 (or missing in front) repeated up to `shape`, as a view with stride 0.
Tensor broadcast_to(const Tensor& x, const Shape& shape);

namespace kernel {

// y[o, i] = sum_m x[o, m, i] over a dense x.
template <class T>
void sum_middle(Cpu, int64_t outer, int64_t middle, int64_t inner, const T* x, T* y);

// y[o, i] = max_m x[o, m, i], first found at m = index[o, i]; middle > 0.
template <class T>
void max_middle(Cpu, int64_t outer, int64_t middle, int64_t inner, const T* x, T* y, int64_t* index);
template <class T>
void max_middle_backward(Cpu, int64_t outer, int64_t middle, int64_t inner, const int64_t* index, const T* dy,
                         T* dx);

// The same on a device.
template <class T>
void sum_middle(Cuda, int64_t outer, int64_t middle, int64_t inner, const T* x, T* y);
template <class T>
void max_middle(Cuda, int64_t outer, int64_t middle, int64_t inner, const T* x, T* y, int64_t* index);
template <class T>
void max_middle_backward(Cuda, int64_t outer, int64_t middle, int64_t inner, const int64_t* index,
                         const T* dy, T* dx);

}  // namespace kernel
}  // namespace mixrec

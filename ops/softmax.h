// Softmax over the last dimension, and its relatives.
//
//   softmax      y_j = exp(x_j - max x) / sum_k exp(x_k - max x)      dx = y ⊙ (dy - <dy, y>)      saves y
//   log_softmax  y_j = x_j - logsumexp(x)                             dx = dy - exp(y) sum(dy)     saves y
//   logsumexp    y = max x + log sum_k exp(x_k - max x)               dx = softmax(x) dy           saves x, y
//
// x: [..., K], K > 0, any floating dtype; sums are kept in f32 (f64 for f64).  A row of -inf gives NaN.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

Tensor softmax(const Tensor& x);      // [..., K] -> [..., K]
Tensor log_softmax(const Tensor& x);  // [..., K] -> [..., K]
Tensor logsumexp(const Tensor& x);    // [..., K] -> [...]

namespace kernel {

template <class T>
void softmax(Cpu, Mat<const T> x, Mat<T> y);
template <class T>
void softmax_backward(Cpu, Mat<const T> y, Mat<const T> dy, Mat<T> dx);
template <class T>
void log_softmax(Cpu, Mat<const T> x, Mat<T> y);
template <class T>
void log_softmax_backward(Cpu, Mat<const T> y, Mat<const T> dy, Mat<T> dx);
template <class T>
void logsumexp(Cpu, Mat<const T> x, T* y);
template <class T>
void logsumexp_backward(Cpu, Mat<const T> x, const T* y, const T* dy, Mat<T> dx);

// The same on a device.
template <class T>
void softmax(Cuda, Mat<const T> x, Mat<T> y);
template <class T>
void softmax_backward(Cuda, Mat<const T> y, Mat<const T> dy, Mat<T> dx);
template <class T>
void log_softmax(Cuda, Mat<const T> x, Mat<T> y);
template <class T>
void log_softmax_backward(Cuda, Mat<const T> y, Mat<const T> dy, Mat<T> dx);
template <class T>
void logsumexp(Cuda, Mat<const T> x, T* y);
template <class T>
void logsumexp_backward(Cuda, Mat<const T> x, const T* y, const T* dy, Mat<T> dx);

}  // namespace kernel
}  // namespace mixrec

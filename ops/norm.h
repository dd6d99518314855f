// Normalisation over the last dimension, x: [..., D], D > 0.
//
//   rms_norm     x̂ = x r            r = 1 / √(mean(x²) + eps)              y = x̂ ⊙ gain
//   layer_norm   x̂ = (x - μ) r      r = 1 / √(mean((x - μ)²) + eps)        y = x̂ ⊙ gain + bias
//
//   with h = dy ⊙ gain:
//   rms_norm     dx = r (h - x̂ mean(h ⊙ x̂))                    dgain = Σ_rows dy ⊙ x̂
//   layer_norm   dx = r (h - mean(h) - x̂ mean(h ⊙ x̂))          dbias = Σ_rows dy
//
// RMSNorm: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467; LayerNorm: Ba et al. 2016,
// https://arxiv.org/abs/1607.06450.  gain and bias are [D] of x's dtype or, with a bf16 x, f32; an undefined
// one is left out.  A gradient has the dtype of what it belongs to.  Saves x, gain and, per row, r (and μ).
// Statistics and sums are f32 (f64 for f64), in an order that depends on the shape alone.
#pragma once

#include "mixrec/core/dtype.h"
#include "mixrec/core/tensor.h"

namespace mixrec {

Tensor rms_norm(const Tensor& x, const Tensor& gain = {}, double eps = 1e-6);
Tensor layer_norm(const Tensor& x, const Tensor& gain = {}, const Tensor& bias = {}, double eps = 1e-5);

namespace kernel {

// gain, bias and the gradients may be null: not there, not computed.
template <class T>
void rms_norm(Cpu, Mat<const T> x, const acc_t<T>* gain, double eps, Mat<T> y, acc_t<T>* scale);
template <class T>
void rms_norm_backward(Cpu, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* scale, Mat<const T> dy,
                       Mat<T> dx, acc_t<T>* dgain);
template <class T>
void layer_norm(Cpu, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* bias, double eps, Mat<T> y,
                acc_t<T>* mean, acc_t<T>* scale);
template <class T>
void layer_norm_backward(Cpu, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* mean,
                         const acc_t<T>* scale, Mat<const T> dy, Mat<T> dx, acc_t<T>* dgain, acc_t<T>* dbias);

// The same on a device.  `added`, the gradient that passes by the norm on a residual, is added to dx when it has
// data; it may be dx.
template <class T>
void rms_norm(Cuda, Mat<const T> x, const acc_t<T>* gain, double eps, Mat<T> y, acc_t<T>* scale);
template <class T>
void rms_norm_backward(Cuda, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* scale, Mat<const T> dy,
                       Mat<T> dx, acc_t<T>* dgain, Mat<const T> added = {});
template <class T>
void layer_norm(Cuda, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* bias, double eps, Mat<T> y,
                acc_t<T>* mean, acc_t<T>* scale);
template <class T>
void layer_norm_backward(Cuda, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* mean,
                         const acc_t<T>* scale, Mat<const T> dy, Mat<T> dx, acc_t<T>* dgain, acc_t<T>* dbias);

}  // namespace kernel
}  // namespace mixrec

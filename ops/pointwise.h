// One number in, one number out: y = f(x), dx = f'(x) ⊙ dy.  Saves x.
//
// x: any shape, any floating dtype; f32 inside for bf16.  Every function is a struct with `value` and `slope`
// (ops/pointwise_functions.h); one kernel runs them all.  At a kink the slope is that of the flat side, or 0
// between two slopes, as noted.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

Tensor relu(const Tensor& x);  // max(x, 0); slope 0 at 0
Tensor leaky_relu(const Tensor& x,
                  double negative_slope = .01);  // x, below 0 negative_slope x; that slope at 0
Tensor silu(const Tensor& x);                    // x / (1 + e^-x)
Tensor gelu(const Tensor& x);                    // x Φ(x), exact
Tensor sigmoid(const Tensor& x);                 // 1 / (1 + e^-x)
Tensor tanh(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor log1p(const Tensor& x);  // log(1 + x), accurate for small x
Tensor sqrt(const Tensor& x);   // slope infinite at 0
Tensor square(const Tensor& x);
Tensor abs(const Tensor& x);       // slope 0 at 0
Tensor softplus(const Tensor& x);  // log(1 + e^x), without overflow
// x kept within [low, high]; slope 1 there, both ends included, else 0.  Throws unless low <= high.
Tensor clamp(const Tensor& x, double low, double high);
Tensor pow(const Tensor& x, double exponent);  // as std::pow: NaN for a negative x and a fraction

namespace kernel {

template <class T, class F>
void pointwise(Cpu, const F& function, Mat<const T> x, Mat<T> y);
template <class T, class F>
void pointwise_backward(Cpu, const F& function, Mat<const T> x, Mat<const T> dy, Mat<T> dx);

// The same on a device.
template <class T, class F>
void pointwise(Cuda, const F& function, Mat<const T> x, Mat<T> y);
template <class T, class F>
void pointwise_backward(Cuda, const F& function, Mat<const T> x, Mat<const T> dy, Mat<T> dx);

}  // namespace kernel
}  // namespace mixrec

// Element-wise a + b, a - b, a * b, a / b with broadcasting; the operators of Tensor (core/tensor.h) call
// these.
//
//   add  y = a + b   da = dy       db = dy
//   sub  y = a - b   da = dy       db = -dy
//   mul  y = a b     da = dy b     db = dy a           saves a, b
//   div  y = a / b   da = dy / b   db = -dy a / b²     saves a, b
//
// Equal dtypes; shapes broadcast from the last dimension.  Gradients are summed back over stretched
// dimensions.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);

// a * scale + shift with plain numbers.
Tensor affine(const Tensor& a, double scale, double shift);

enum class Arithmetic { add, sub, mul, div };

namespace kernel {

// y = op(a, b) over a shape of at least one dimension and one element; strides are those of the broadcast
// operands, 0 where stretched.  y is dense.
template <class T>
void arithmetic(Cpu, Arithmetic op, const Shape& shape, const T* a, const Shape& a_strides, const T* b,
                const Shape& b_strides, T* y);
template <class T>
void affine(Cpu, int64_t n, const T* a, double scale, double shift, T* y);

// The same on a device.
template <class T>
void arithmetic(Cuda, Arithmetic op, const Shape& shape, const T* a, const Shape& a_strides, const T* b,
                const Shape& b_strides, T* y);
template <class T>
void affine(Cuda, int64_t n, const T* a, double scale, double shift, T* y);

}  // namespace kernel
}  // namespace mixrec

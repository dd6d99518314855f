// Moving numbers between strided tensors: the kernels that core itself needs.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// dst = src, element by element, converting the dtype and crossing devices.  Shapes must agree; strides are
// free.  Bumps dst's version.
void copy_into(const Tensor& dst, const Tensor& src);

// dst += src.  Shapes and dtypes must agree; strides are free.  Bumps dst's version.
void add_into(const Tensor& dst, const Tensor& src);

namespace kernel {

// Two views of one shape, their dimensions merged where both strides allow it: at least one dimension, the
// innermost last.
struct Walk {
  Shape shape, dst, src;
};

template <class D, class S>
void copy_elements(Cpu, const Walk& walk, D* dst, const S* src);
template <class D, class S>
void copy_elements(Cuda, const Walk& walk, D* dst, const S* src);
template <class T>
void add_elements(Cpu, const Walk& walk, T* dst, const T* src);
template <class T>
void add_elements(Cuda, const Walk& walk, T* dst, const T* src);

// n equal elements.
template <class T>
void fill(Cpu, int64_t n, T value, T* to);
template <class T>
void fill(Cuda, int64_t n, T value, T* to);

// 0, 1, … n - 1.
void count_up(Cpu, int64_t n, int64_t* to);
void count_up(Cuda, int64_t n, int64_t* to);

}  // namespace kernel
}  // namespace mixrec

// Moving numbers between strided tensors: the kernels that core itself needs.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// dst = src, element by element, converting the dtype.  Shapes must agree; strides are free.  Bumps dst's
// version.
void copy_into(const Tensor& dst, const Tensor& src);

// dst += src.  Shapes and dtypes must agree; strides are free.  Bumps dst's version.
void add_into(const Tensor& dst, const Tensor& src);

}  // namespace mixrec

// Conversion between floating dtypes; the gradient is converted back.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// Itself when the dtype is already right.  Integer tensors convert too, without a gradient.
Tensor cast(const Tensor& x, DType dtype);

}  // namespace mixrec

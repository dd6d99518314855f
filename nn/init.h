// Initial values.  Always drawn on the host, so that they are the same on every device.
#pragma once

#include "mixrec/core/rng.h"
#include "mixrec/core/tensor.h"

namespace mixrec {

// Trainable f32 tensors.
Tensor normal_parameter(const Shape& shape, double deviation, Rng& rng);
Tensor constant_parameter(const Shape& shape, double value);

// Normal with deviation gain / sqrt(fan_in), fan_in = dim(-2): weights [in, out] and per-head weights [N, in,
// out].
Tensor weight_parameter(const Shape& shape, Rng& rng, double gain = 1);

}  // namespace mixrec

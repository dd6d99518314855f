#include "mixrec/nn/init.h"

#include <algorithm>
#include <cmath>

namespace mixrec {

Tensor normal_parameter(const Shape& shape, double deviation, Rng& rng) {
  Tensor x = empty(shape);
  rng.fill_normal(x, 0, deviation);
  return x.requires_grad();
}

Tensor constant_parameter(const Shape& shape, double value) { return full(shape, value).requires_grad(); }

Tensor weight_parameter(const Shape& shape, Rng& rng, double gain) {
  return normal_parameter(shape, gain / std::sqrt(static_cast<double>(std::max<int64_t>(shape[-2], 1))), rng);
}

}  // namespace mixrec

#include "mixrec/nn/mlp.h"

#include "mixrec/core/error.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/pointwise.h"

namespace mixrec {

MLP::MLP(const std::vector<int64_t>& sizes, Rng& rng) {
  MR_CHECK(sizes.size() >= 2, "an MLP needs an input and an output size, got ", sizes.size(), " sizes");
  for (size_t i = 0; i + 1 < sizes.size(); ++i) layers.emplace_back(sizes[i], sizes[i + 1], rng);
}

Tensor MLP::forward(const Tensor& x) const {
  Tensor y = x;
  for (size_t i = 0; i + 1 < layers.size(); ++i) y = silu(layers[i].forward(y));
  return layers.back().forward(y.dtype() == bf16 ? cast(y, f32) : y);
}

Tensor Dropout::forward(const Tensor& x, Pass& pass) const {
  return dropout(x, rate, pass.rng, pass.training);
}

}  // namespace mixrec

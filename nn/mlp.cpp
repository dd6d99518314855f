#include "mixrec/nn/mlp.h"

#include "mixrec/core/error.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/linear_by_request.h"
#include "mixrec/ops/pointwise.h"

namespace mixrec {

MLP::MLP(const std::vector<int64_t>& sizes, Rng& rng) {
  MR_CHECK(sizes.size() >= 2, "an MLP needs an input and an output size, got ", sizes.size(), " sizes");
  for (size_t i = 0; i + 1 < sizes.size(); ++i) layers.emplace_back(sizes[i], sizes[i + 1], rng);
}

namespace {

// As the last layer takes it.
Tensor widened(const Tensor& x) { return x.dtype() == bf16 ? cast(x, f32) : x; }

}  // namespace

Tensor MLP::after_first(Tensor y) const {
  for (size_t i = 1; i < layers.size(); ++i) {
    y = silu(y);
    y = layers[i].forward(i + 1 < layers.size() ? y : widened(y));
  }
  return y;
}

Tensor MLP::forward(const Tensor& x) const {
  return after_first(layers[0].forward(layers.size() > 1 ? x : widened(x)));
}

Tensor MLP::forward_by_request(const Tensor& shared, const Tensor& own, const Tensor& offsets) const {
  const auto first = [&](const Tensor& x) { return layers.size() > 1 ? x : widened(x); };
  return after_first(linear_by_request(first(shared), first(own), offsets, layers[0].weight, layers[0].bias));
}

Tensor Dropout::forward(const Tensor& x, Pass& pass) const {
  return dropout(x, rate, pass.rng, pass.training);
}

}  // namespace mixrec

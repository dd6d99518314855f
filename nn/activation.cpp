#include "mixrec/nn/activation.h"

#include "mixrec/core/error.h"
#include "mixrec/nn/init.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/pointwise.h"

#include <algorithm>

namespace mixrec {
namespace {

enum Kind : size_t { kNone, kRelu, kGelu, kSilu, kTanh, kSigmoid, kSquaredRelu, kPrelu, kDice };

// As the parameters of x's activation are multiplied with it: they are f32 beside a bf16 x.
Tensor widened(const Tensor& x) { return x.dtype() == bf16 ? cast(x, f32) : x; }
Tensor narrowed(const Tensor& y, const Tensor& x) { return x.dtype() == bf16 ? cast(y, bf16) : y; }

Tensor prelu(const Tensor& x, const Tensor& slope) { return relu(x) - slope * relu(affine(x, -1, 0)); }

}  // namespace

const std::vector<std::string>& activation_names() {
  static const std::vector<std::string> names{"none",    "relu",         "gelu",  "silu", "tanh",
                                              "sigmoid", "squared_relu", "prelu", "dice"};
  return names;
}

Activation::Activation(const std::string& name, int64_t width) {
  const auto& names = activation_names();
  const auto found = std::find(names.begin(), names.end(), name);
  const std::string near = nearest_name(name, names);
  MR_CHECK(found != names.end(), "no activation is named '", name, "'",
           near.empty() ? "" : "; did you mean '" + near + "'?");
  kind_ = static_cast<size_t>(found - names.begin());
  if (kind_ == kPrelu) slope = constant_parameter({width}, .25);
  if (kind_ == kDice) slope = constant_parameter({width}, 0), statistics.emplace(width, 1e-9);
}

Tensor Activation::forward(const Tensor& x, Pass& pass, const RowCounts& counts) const {
  switch (kind_) {
    case kRelu:
      return relu(x);
    case kGelu:
      return gelu(x);
    case kSilu:
      return silu(x);
    case kTanh:
      return tanh(x);
    case kSigmoid:
      return sigmoid(x);
    case kSquaredRelu:
      return square(relu(x));
    case kPrelu:
      return narrowed(prelu(widened(x), slope), x);
    case kDice: {
      const Tensor wide = widened(x), p = sigmoid(statistics->normalise(x, pass, counts));
      return narrowed(wide * (p + slope * affine(p, -1, 1)), x);
    }
    default:
      return x;
  }
}

void Activation::visit(Visitor& v) {
  v.parameter("slope", slope);
  if (statistics) v.module("statistics", *statistics);
}

}  // namespace mixrec

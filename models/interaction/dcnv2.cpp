#include "mixrec/models/interaction/dcnv2.h"

#include "mixrec/nn/init.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/softmax.h"

namespace mixrec {

void DcnV2Options::visit(OptionVisitor& v) {
  v.number("layers", layers, between(1, 100), "of crosses");
  v.number("rank", rank, between(0, 65536), "of a layer's matrix; 0 = a full one");
  v.number("experts", experts, between(1, 1000), "of a layer with a rank, mixed by a gate");
  v.choice("compose", compose, {"stacked", "parallel"}, "whether the deep tower is above or beside");
  v.nested("deep", deep, "the deep tower; widths [] = none");
}

DcnV2::DcnV2(const InteractionInput& input, const DcnV2Options& o, Rng& rng)
    : width_(input.shape.flat_width()),
      stacked_(o.compose == "stacked"),
      layers_(static_cast<size_t>(o.layers)),
      deep_(width_, o.deep, rng) {
  for (Layer& layer : layers_) {
    layer.bias = constant_parameter({width_}, 0);
    if (o.rank == 0) {
      layer.weight = weight_parameter({width_, width_}, rng);
      continue;
    }
    layer.down = weight_parameter({width_, o.experts * o.rank}, rng);
    layer.up = weight_parameter({o.experts * o.rank, width_}, rng);
    if (o.experts == 1) continue;
    layer.middle = weight_parameter({o.experts, o.rank, o.rank}, rng);
    layer.gate = weight_parameter({width_, o.experts}, rng);
  }
}

Tensor DcnV2::Layer::product(const Tensor& x) const {
  if (weight) return linear(x, weight, bias);
  Tensor y = linear(x, down);
  if (gate) {
    const int64_t rows = x.dim(0), experts = middle.dim(0), rank = middle.dim(1);
    y = tanh(per_head_matmul(tanh(y).reshape({rows, experts, rank}), middle));
    y = (y * softmax(linear(x, gate)).reshape({rows, experts, 1})).reshape({rows, experts * rank});
  }
  return linear(y, up, bias);
}

Interaction DcnV2::forward(const Inputs& in, Pass& pass) const {
  const Tensor x0 = in.flat();
  Tensor x = x0;
  for (const Layer& layer : layers_) x = x0 * layer.product(x) + x;
  if (stacked_ || deep_.size() == 0) return {.x = deep_.forward(x, pass)};
  return {.x = concat({x, deep_.forward(x0, pass)}, 1)};
}

void DcnV2::Layer::visit(Visitor& v) {
  v.parameter("weight", weight), v.parameter("down", down), v.parameter("middle", middle);
  v.parameter("up", up), v.parameter("gate", gate), v.parameter("bias", bias);
}

void DcnV2::visit(Visitor& v) {
  for (size_t l = 0; l < layers_.size(); ++l) v.module("cross." + std::to_string(l), layers_[l]);
  v.module("deep", deep_);
}

InteractionEntry dcnv2_entry() {
  return interaction_entry<DcnV2, DcnV2Options>("dcnv2",
                                                "cross layers, full or of experts, and a deep tower");
}

}  // namespace mixrec

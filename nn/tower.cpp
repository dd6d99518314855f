#include "mixrec/nn/tower.h"

#include "mixrec/core/error.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/linear_by_request.h"
#include "mixrec/ops/request.h"

namespace mixrec {

void TowerOptions::visit(OptionVisitor& v) {
  v.list("widths", widths, between(1, 1 << 20), "of the layers; [] = none");
  v.choice("activation", activation, activation_names(), "of every layer");
  v.choice("norm", norm, {"none", "layer", "rms", "batch"}, "of every layer, before the activation");
  v.number("dropout", dropout, below(0, 1), "behind every activation, in training");
}

Tower::Layer::Layer(int64_t in, int64_t out, const TowerOptions& o, Rng& rng)
    : linear(in, out, rng), activation(o.activation, out) {
  if (o.norm == "rms") rms.emplace(out);
  if (o.norm == "layer") layer.emplace(out);
  if (o.norm == "batch") batch.emplace(out);
}

Tensor Tower::Layer::behind_product(Tensor y, double rate, Pass& pass, const RowCounts& counts) const {
  if (rms) y = rms->forward(y);
  if (layer) y = layer->forward(y);
  if (batch) y = batch->forward(y, pass, counts);
  y = activation.forward(y, pass, counts);
  return rate > 0 ? dropout(y, rate, pass.rng, pass.training) : y;
}

void Tower::Layer::visit(Visitor& v) {
  linear.visit(v);
  if (rms) v.module("norm", *rms);
  if (layer) v.module("norm", *layer);
  if (batch) v.module("norm", *batch);
  v.module("activation", activation);
}

Tower::Tower(int64_t in, const TowerOptions& options, Rng& rng) : out_(in), dropout_(options.dropout) {
  for (const int64_t width : options.widths) {
    MR_CHECK(width > 0, "a layer of a tower is ", width, " wide");
    layers_.emplace_back(out_, width, options, rng);
    out_ = width;
  }
}

Tensor Tower::forward(const Tensor& x, Pass& pass, const RowCounts& counts) const {
  Tensor y = x;
  for (const Layer& layer : layers_)
    y = layer.behind_product(layer.linear.forward(y), dropout_, pass, counts);
  return y;
}

Tensor Tower::forward_by_request(const Tensor& shared, const Tensor& own, const Tensor& offsets,
                                 Pass& pass) const {
  if (layers_.empty()) return concat({expand_by_request(shared, offsets, own.dim(0)), own}, 1);
  const Linear& first = layers_[0].linear;
  Tensor y = linear_by_request(shared, own, offsets, first.weight, first.bias);
  y = layers_[0].behind_product(y, dropout_, pass, {});
  for (size_t i = 1; i < layers_.size(); ++i)
    y = layers_[i].behind_product(layers_[i].linear.forward(y), dropout_, pass, {});
  return y;
}

void Tower::visit(Visitor& v) {
  for (size_t i = 0; i < layers_.size(); ++i) v.module(std::to_string(i), layers_[i]);
}

}  // namespace mixrec

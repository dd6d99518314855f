// Multi-layer perceptron and dropout.
#pragma once

#include "mixrec/nn/linear.h"
#include "mixrec/nn/pass.h"

namespace mixrec {

// Linear, SiLU, ..., Linear: the last layer has no activation.  sizes {in, hidden..., out}.  The last layer of
// a bf16 input is computed in f32, and so is what comes out: logits are not rounded to eight bits.
struct MLP : Module {
  std::vector<Linear> layers;

  MLP(const std::vector<int64_t>& sizes, Rng& rng);
  Tensor forward(const Tensor& x) const;
  // The same of x = [shared, own], the first columns of which are those of a candidate's request: shared [R, A],
  // own [C, B], offsets i64 [R + 1] -> [C, out].
  Tensor forward_by_request(const Tensor& shared, const Tensor& own, const Tensor& offsets) const;
  void visit(Visitor& v) {
    for (size_t i = 0; i < layers.size(); ++i) v.module(std::to_string(i), layers[i]);
  }

 private:
  Tensor after_first(Tensor y) const;
};

// Zeroes each element with probability `rate` while training and scales the others by 1 / (1 - rate).
struct Dropout : Module {
  double rate;

  explicit Dropout(double rate) : rate(rate) {}
  Tensor forward(const Tensor& x, Pass& pass) const;
  void visit(Visitor&) {}
};

}  // namespace mixrec

// Activations by name, those with parameters of their own among them.
//
//   none relu gelu silu tanh sigmoid     ops/pointwise.h
//   squared_relu   max(x, 0)²                                       Primer, https://arxiv.org/abs/2109.08668
//   prelu          max(x, 0) + a min(0, x),  a per column, .25 at first
//   dice           p x + (1 - p) a x,  p = sigmoid(x̂),  a per column, 0 at first;  x̂ normalised over the batch
//                  (nn/batch_norm.h, eps 1e-9)                      DIN eq 3, https://arxiv.org/abs/1706.06978
#pragma once

#include "mixrec/nn/batch_norm.h"

#include <optional>
#include <string>
#include <vector>

namespace mixrec {

const std::vector<std::string>& activation_names();

struct Activation : Module {
  Tensor slope;                                // prelu, dice: a [width]
  std::optional<ColumnStatistics> statistics;  // dice

  Activation(const std::string& name, int64_t width);
  // x [rows, width] -> the same, in x's dtype.
  Tensor forward(const Tensor& x, Pass& pass, const RowCounts& counts = {}) const;
  void visit(Visitor& v);

 private:
  size_t kind_;
};

}  // namespace mixrec

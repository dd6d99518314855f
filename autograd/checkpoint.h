// Recomputation: trade a second forward for the memory of the saved tensors.
#pragma once

#include "mixrec/core/rng.h"
#include "mixrec/core/tensor.h"

#include <functional>
#include <vector>

namespace mixrec {

// fn(inputs), saving only `inputs`: the backward runs fn again, with the random stream of `rng` (if any) set
// back to where it was, and differentiates that.  fn may use parameters; their gradients accumulate as usual.
//
//   Tensor y = checkpoint([&](const std::vector<Tensor>& in) { return ffn.forward(in[0]); }, {x});
Tensor checkpoint(std::function<Tensor(const std::vector<Tensor>&)> fn, const std::vector<Tensor>& inputs,
                  Rng* rng = nullptr);

// The same for a function that treats the rows of x, along its first dimension, one by one: fn runs on `rows` of
// them at a time, forward and backward, so that its intermediates never exist for all rows at once.  Gradients of
// parameters inside fn are summed over the blocks in order.
Tensor checkpoint_rows(std::function<Tensor(const Tensor&)> fn, const Tensor& x, int64_t rows);

}  // namespace mixrec

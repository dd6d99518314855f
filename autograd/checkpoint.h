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

}  // namespace mixrec

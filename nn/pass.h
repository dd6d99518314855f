// What one forward pass carries besides the batch.
#pragma once

#include "mixrec/core/dtype.h"
#include "mixrec/core/rng.h"
#include "mixrec/core/tensor.h"

#include <functional>
#include <string>
#include <vector>

namespace mixrec {

struct Pass {
  bool training = false;
  Rng rng = Rng(0);  // of dropout; its position is part of a checkpoint

  // What activations are computed in: f32 or bf16.  Parameters stay f32, and so do logits and losses.  A model
  // in f64 computes in f64 whatever this says.
  DType compute = f32;

  // Auxiliary losses (scalars), added to the task losses by the trainer.
  std::vector<Tensor> losses = {};
  void add_loss(Tensor loss) { losses.push_back(std::move(loss)); }

  // Shows named intermediate tensors to whoever listens: pass.tap("blocks.0.query", q).
  std::function<void(const std::string& name, const Tensor& value)> listener = {};
  void tap(const std::string& name, const Tensor& value) const {
    if (listener) listener(name, value);
  }
};

}  // namespace mixrec

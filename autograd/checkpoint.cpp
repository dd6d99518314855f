#include "mixrec/autograd/checkpoint.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"

namespace mixrec {
namespace {

// Leaves of a graph of their own, over the numbers of the saved inputs.
std::vector<Tensor> fresh_leaves(const std::vector<Saved>& saved, const std::vector<bool>& wants_grad) {
  std::vector<Tensor> leaves;
  for (size_t i = 0; i < saved.size(); ++i) {
    const Tensor& x = saved[i].get();
    leaves.push_back(x.defined() ? x.detach() : x);
    if (wants_grad[i]) leaves.back().requires_grad();
  }
  return leaves;
}

}  // namespace

Tensor checkpoint(std::function<Tensor(const std::vector<Tensor>&)> fn, const std::vector<Tensor>& inputs,
                  Rng* rng) {
  MR_OP("checkpoint");
  if (!grad_enabled()) return fn(inputs);
  const Rng before = rng ? *rng : Rng();
  std::vector<Saved> saved;
  std::vector<bool> wants_grad;
  for (const Tensor& x : inputs) {
    saved.emplace_back(x);
    wants_grad.push_back(x.defined() && x.needs_grad());
  }
  std::vector<Tensor> outputs;
  {
    const NoGrad off;
    outputs.push_back(fn(inputs).detach());
  }
  const auto backward = [=](const std::vector<Tensor>& dys, const Needs&) -> Grads {
    const Rng after = rng ? *rng : Rng();
    if (rng) *rng = before;
    const std::vector<Tensor> leaves = fresh_leaves(saved, wants_grad);
    {
      const GradMode on(true);
      const Tensor y = fn(leaves);
      if (y.needs_grad()) y.backward(dys[0]);
    }
    if (rng) *rng = after;
    Grads grads;
    for (const Tensor& leaf : leaves) grads.push_back(leaf.defined() ? leaf.grad() : Tensor());
    return grads;
  };
  // Recorded even when no input needs a gradient: the parameters inside fn may.
  autograd::make_node(outputs, inputs, backward);
  return outputs[0];
}

}  // namespace mixrec

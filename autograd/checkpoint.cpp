#include "mixrec/autograd/checkpoint.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"

#include <algorithm>

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
  autograd::make_node(outputs, inputs, backward, true);
  return outputs[0];
}

Tensor checkpoint_rows(std::function<Tensor(const Tensor&)> fn, const Tensor& x, int64_t rows) {
  MR_OP("checkpoint_rows");
  MR_CHECK(x.ndim() > 0 && rows > 0, "needs rows to cut into blocks of ", rows, ", got ", x.shape());
  const int64_t count = x.dim(0);
  if (!grad_enabled() && count <= rows) return fn(x);
  const auto block_of = [rows, count](const Tensor& whole, int64_t begin) {
    return whole.narrow(0, begin, std::min(rows, count - begin));
  };
  std::vector<Tensor> outputs(1);
  {
    const NoGrad off;
    for (int64_t begin = 0; begin == 0 || begin < count; begin += rows) {
      const Tensor y = fn(block_of(x, begin));
      if (!outputs[0].defined()) {
        Shape shape = y.shape();
        shape.set(0, count);
        outputs[0] = empty(shape, y.dtype(), y.device());
      }
      copy_into(block_of(outputs[0], begin), y);
    }
  }
  if (!grad_enabled()) return outputs[0];
  const auto backward = [fn = std::move(fn), x = Saved(x), block_of, rows, count](
                            const std::vector<Tensor>& dys, const Needs& needs) -> Grads {
    const Tensor dx = needs[0] ? empty(x.get().shape(), x.get().dtype(), x.get().device()) : Tensor();
    for (int64_t begin = 0; begin < count; begin += rows) {
      Tensor leaf = block_of(x.get(), begin).detach();
      if (needs[0]) leaf.requires_grad();
      const GradMode on(true);
      const Tensor y = fn(leaf);
      if (y.needs_grad()) y.backward(block_of(dys[0], begin));
      if (!needs[0]) continue;
      if (leaf.grad().defined()) {
        copy_into(block_of(dx, begin), leaf.grad());
      } else {
        block_of(dx, begin).fill(0);
      }
    }
    return {dx};
  };
  autograd::make_node(outputs, {x}, backward, true);
  return outputs[0];
}

}  // namespace mixrec

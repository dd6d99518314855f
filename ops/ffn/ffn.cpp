#include "mixrec/ops/ffn/ffn.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/reference.h"

#include <algorithm>
#include <array>

namespace mixrec {
namespace {

// Fewer rows do not pay for packing the weights; more weights than this leave the cache.
constexpr int64_t kFewestRows = 64, kMostWeights = 1 << 20;

bool fused(const Tensor& x, int64_t rows, const Tensor& gate_up, const Tensor& down) {
  const int64_t networks = gate_up.ndim() == 3 ? gate_up.dim(0) : 1;
  return x.device().is_cpu() && x.dtype() == f32 && rows >= kFewestRows && networks > 0 &&
         gate_up.numel() > 0 && down.numel() > 0 && gate_up.numel() + down.numel() <= networks * kMostWeights;
}

// As [networks, rows, width].
Tensor batch_of_rows(const Tensor& x, bool per_head) {
  const Tensor source = x.dim(-1) == 1 || x.strides()[-1] == 1 ? x.detach() : x.detach().contiguous();
  return per_head ? source.transpose(0, 1) : source.reshape({1, -1, source.dim(-1)});
}

Tensor batch_of_weights(const Tensor& w) {
  return w.detach().contiguous().reshape({w.ndim() == 3 ? w.dim(0) : 1, w.dim(-2), w.dim(-1)});
}

}  // namespace

void check_ffn(const Tensor& x, const Tensor& gate_up, const Tensor& down) {
  // Products in bf16 read f32 parameters too.
  if (x.dtype() != bf16 || gate_up.dtype() != f32) check_same(x, gate_up, "the input", "gate_up");
  check_same(gate_up, down, "gate_up", "down");
  const bool per_head = gate_up.ndim() == 3;
  MR_CHECK((gate_up.ndim() == 2 || per_head) && down.ndim() == gate_up.ndim() &&
               (!per_head || down.dim(0) == gate_up.dim(0)),
           "needs weights [D, 2F] and [F, E], or one of each a head, got ", gate_up.shape(), " and ",
           down.shape());
  if (per_head) {
    MR_CHECK(x.ndim() == 3 && x.dim(1) == gate_up.dim(0), "the input ", x.shape(), " does not have the ",
             gate_up.dim(0), " heads of gate_up ", gate_up.shape());
  }
  MR_CHECK(x.ndim() > 0, "the input has no dimensions");
  MR_CHECK(x.dim(-1) == gate_up.dim(-2), "the input ", x.shape(), " does not fit gate_up ", gate_up.shape());
  MR_CHECK(gate_up.dim(-1) == 2 * down.dim(-2), "gate_up ", gate_up.shape(),
           " must be twice as wide as down ", down.shape(), " is high");
}

Tensor ffn(const Tensor& x, const Tensor& gate_up, const Tensor& down, const Tensor& residual) {
  MR_OP("ffn");
  check_ffn(x, gate_up, down);
  Shape shape = x.shape();
  shape.set(-1, down.dim(-1));
  if (residual.defined()) {
    check_same(x, residual, "the input", "the residual");
    MR_CHECK(residual.shape() == shape, "the residual is ", residual.shape(), " and the result ", shape);
  }
  const bool per_head = gate_up.ndim() == 3;
  const int64_t rows = x.numel() / std::max<int64_t>(1, x.dim(-1) * (per_head ? x.dim(1) : 1));
  if (!fused(x, rows, gate_up, down)) return reference::ffn(x, gate_up, down, residual);

  const Tensor in = batch_of_rows(x, per_head), first = batch_of_weights(gate_up),
               second = batch_of_weights(down);
  const Tensor added = residual.defined() ? batch_of_rows(residual, per_head) : Tensor();
  const Tensor y = empty(shape, x.dtype(), x.device());
  const bool saves = grad_enabled() && autograd::any_needs_grad({x, gate_up, down});
  const Tensor hidden = saves ? empty({in.dim(0), rows, first.dim(2)}) : Tensor();
  kernel::ffn(Cpu{}, in.matrices<const float>(), first.matrices<const float>(),
              second.matrices<const float>(), added ? added.matrices<const float>() : Mat<const float>(),
              hidden ? hidden.matrices<float>() : Mat<float>(), batch_of_rows(y, per_head).matrices<float>());
  return record(y, {x, gate_up, down, residual}, [&] {
    return [in = Saved(in), first = Saved(first), second = Saved(second),
            hidden = hidden ? Saved(hidden) : Saved(), per_head,
            shapes = std::array{x.shape(), gate_up.shape(), down.shape()}](const Tensor& dy,
                                                                           const Needs& needs) -> Grads {
      Grads grads{{}, {}, {}, dy};
      Mat<float> d[3];
      for (size_t i = 0; i < 3; ++i)
        if (needs[i]) grads[i] = needs.gradient(i, shapes[i], f32, kCpu);
      if (needs[0]) d[0] = batch_of_rows(grads[0], per_head).matrices<float>();
      for (size_t i : {1, 2})
        if (needs[i]) d[i] = batch_of_weights(grads[i]).matrices<float>();
      if (d[0].data || d[1].data || d[2].data)
        kernel::ffn_backward(Cpu{}, in.get().matrices<const float>(), first.get().matrices<const float>(),
                             second.get().matrices<const float>(), hidden.get().matrices<const float>(),
                             batch_of_rows(dy, per_head).matrices<const float>(), d[0], d[1], d[2]);
      return grads;
    };
  });
}

}  // namespace mixrec

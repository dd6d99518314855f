#include "mixrec/ops/attention/attend.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/jagged.h"

namespace mixrec {
namespace {

// The inputs that are no numbers to differentiate.
struct Offsets {
  Saved history, candidates;

  kernel::RequestOffsets get() const {
    return {history.get().dim(0) - 1, history.get().data<const int64_t>(),
            candidates.get().data<const int64_t>()};
  }
};

void check_inputs(const Tensor& u, const Tensor& h, const Tensor& history, const Tensor& candidates) {
  MR_CHECK(u.ndim() == 3, "needs queries [candidates, heads, width], got ", u.shape());
  MR_CHECK(h.ndim() == 2, "needs events [events, heads * width], got ", h.shape());
  check_same(u, h, "u", "h");
  MR_CHECK(h.dim(1) == u.dim(1) * u.dim(2), "events are ", h.dim(1), " wide, ", u.dim(1), " heads of ",
           u.dim(2), " need ", u.dim(1) * u.dim(2));
  check_offsets(history, h.dim(0), "history offsets");
  check_offsets(candidates, u.dim(0), "candidate offsets");
  MR_CHECK(history.dim(0) == candidates.dim(0), "history offsets are for ", history.dim(0) - 1,
           " requests, candidate offsets for ", candidates.dim(0) - 1);
}

Grads attend_backward(const Tensor& u, const Tensor& h, const kernel::RequestOffsets& offsets,
                      const Tensor& m, const Tensor& lse, const Tensor& dm, const Needs& needs) {
  const Tensor du = needs[0] ? empty_like(u) : Tensor(), dh = needs[1] ? empty_like(h) : Tensor();
  run(u, [&]<class T>(auto backend) {
    kernel::attend_backward<T>(backend, u.matrices<const T>(), h.mat<const T>(), offsets,
                               m.matrices<const acc_t<T>>(), lse.data<const acc_t<T>>(),
                               dm.matrices<const T>(), needs[0] ? du.matrices<T>() : Mat<T>{},
                               needs[1] ? dh.mat<T>() : Mat<T>{});
  });
  return {du, dh};
}

}  // namespace

Tensor attend(const Tensor& u, const Tensor& h, const Tensor& history_offsets,
              const Tensor& candidate_offsets) {
  MR_OP("attend");
  check_inputs(u, h, history_offsets, candidate_offsets);
  const Offsets offsets{Saved(history_offsets.contiguous()), Saved(candidate_offsets.contiguous())};
  const bool saves = needs_grad(u) || needs_grad(h), rounds = u.dtype() == bf16;
  const DType sums = u.dtype() == f64 ? f64 : f32;
  const Tensor y = empty(u.shape(), u.dtype(), u.device());
  const Tensor m = saves && rounds ? empty(u.shape(), sums, u.device()) : Tensor();
  const Tensor lse = saves ? empty({u.dim(0), u.dim(1)}, sums, u.device()) : Tensor();
  run(u, [&]<class T>(auto backend) {
    kernel::attend<T>(backend, u.matrices<const T>(), h.mat<const T>(), offsets.get(), y.matrices<T>(),
                      m.defined() ? m.matrices<acc_t<T>>() : Mat<acc_t<T>>{},
                      saves ? lse.data<acc_t<T>>() : nullptr);
  });
  return record(y, {u, h}, [&] {
    return [u = Saved(u), h = Saved(h), m = Saved(rounds ? m : y), lse, offsets](const Tensor& dm,
                                                                                 const Needs& needs) {
      return attend_backward(u.get(), h.get(), offsets.get(), m.get(), lse, dm.contiguous(), needs);
    };
  });
}

}  // namespace mixrec

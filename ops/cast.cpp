#include "mixrec/ops/cast.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"

namespace mixrec {

Tensor cast(const Tensor& x, DType dtype) {
  MR_OP("cast");
  if (x.dtype() == dtype) return x;
  MR_CHECK(is_floating(dtype) || !x.needs_grad(), "a tensor that needs a gradient cannot become ", dtype);
  Tensor y = empty(x.shape(), dtype, x.device());
  copy_into(y, x);
  return record(y, {x},
                [&] { return [from = x.dtype()](const Tensor& dy) -> Grads { return {cast(dy, from)}; }; });
}

}  // namespace mixrec

#include "mixrec/ops/head_mixing.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/simd.h"

#include <algorithm>

namespace mixrec {
namespace {

Tensor mixed(const Tensor& x, int64_t user_heads, bool transposed, const Tensor& residual) {
  Tensor y = empty_like(x);
  run(x, [&]<class T>(auto backend) {
    kernel::head_mixing<T>(backend, x.matrices<const T>(), user_heads, transposed,
                           residual.defined() ? residual.matrices<const T>() : Mat<const T>(),
                           y.matrices<T>());
  });
  return y;
}

}  // namespace

Tensor head_mixing(const Tensor& x, int64_t user_heads, const Tensor& residual) {
  MR_OP("head_mixing");
  MR_CHECK(x.ndim() == 3, "needs [batch, heads, width], got ", x.shape());
  const int64_t heads = x.dim(1), width = x.dim(2);
  MR_CHECK(heads > 0 && width % heads == 0, "the number of heads N = ", heads,
           " must divide the width D = ", width);
  MR_CHECK(user_heads >= 0 && user_heads < heads, "user_heads must be in [0, ", heads, "), got ", user_heads);
  if (residual.defined()) {
    check_same(x, residual, "x", "the residual");
    MR_CHECK(residual.shape() == x.shape(), "the residual is ", residual.shape(), ", x is ", x.shape());
  }
  return record(mixed(x, user_heads, false, residual), {x, residual}, [&] {
    return [user_heads](const Tensor& dy, const Needs& needs) -> Grads {
      return {needs[0] ? mixed(dy.contiguous(), user_heads, true, {}) : Tensor(), dy};
    };
  });
}

namespace kernel {

template <class T>
void head_mixing(Cpu, Mat<const T> x, int64_t user_heads, bool transposed, Mat<const T> residual, Mat<T> y) {
  const int64_t heads = x.rows, chunk = x.cols / heads;
  const auto masked = [&](int64_t c, int64_t r) {
    return transposed ? r < user_heads && user_heads <= c : c < user_heads && user_heads <= r;
  };
  parallel_for(x.batch, 2 * heads * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t c = 0; c < heads; ++c) {
        for (int64_t r = 0; r < heads; ++r) {
          T* out = y.row(b, c) + r * chunk;
          const T* const in = masked(c, r) ? nullptr : x.row(b, r) + c * chunk;
          const T* const added = residual.data ? residual.row(b, c) + r * chunk : nullptr;
          if (in && added) {
            simd::transform(
                chunk, out, [](auto v, auto a) { return v + a; }, in, added);
          } else if (in || added) {
            std::copy_n(in ? in : added, chunk, out);
          } else {
            std::fill_n(out, chunk, T(0));
          }
        }
      }
    }
  });
}

#define MR_INSTANTIATE(T) template void head_mixing(Cpu, Mat<const T>, int64_t, bool, Mat<const T>, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

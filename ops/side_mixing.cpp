#include "mixrec/ops/side_mixing.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/jagged.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/simd.h"
#include "mixrec/ops/request.h"

#include <algorithm>

namespace mixrec {
namespace {

void check_shapes(const Tensor& own, const Tensor& residual, const Tensor& shared, const Tensor& offsets) {
  MR_CHECK(own.ndim() == 3 && own.dim(1) > 0 && own.dim(2) > 0 && own.dim(2) % own.dim(1) == 0,
           "needs [batch, heads n, n chunks of a column or more], got ", own.shape());
  check_same(own, residual, "own", "the residual");
  MR_CHECK(residual.ndim() == 3 && residual.dim(0) == own.dim(0) && residual.dim(1) == own.dim(1),
           "the residual is ", residual.shape(), ", own is ", own.shape());
  int64_t columns = own.dim(2);
  if (shared.defined()) {
    check_same(own, shared, "own", "shared");
    MR_CHECK(shared.ndim() == 3 && shared.dim(2) == own.dim(2), "shared is ", shared.shape(), ", own is ",
             own.shape());
    MR_CHECK(offsets.defined() && offsets.dtype() == i64 && offsets.shape() == Shape{shared.dim(0) + 1},
             "offsets must be i64 [", shared.dim(0) + 1, "] for as many requests as shared has");
    MR_CHECK(offsets.device() == own.device(), "rows are on ", own.device(), ", offsets on ",
             offsets.device());
    check_offsets(offsets, own.dim(0), "offsets");
    columns += shared.dim(1) * (own.dim(2) / own.dim(1));
  }
  MR_CHECK(columns <= residual.dim(2), "chunks take ", columns, " columns, the residual has ",
           residual.dim(2));
}

Tensor back(const Tensor& dy, int64_t first, int64_t heads, int64_t width) {
  Tensor dx = empty({dy.dim(0), heads, width}, dy.dtype(), dy.device());
  run(dy, [&]<class T>(auto backend) {
    kernel::side_mixing_backward<T>(backend, dy.matrices<const T>(), first, dx.matrices<T>());
  });
  return dx;
}

Tensor summed(const Tensor& x, const Tensor& offsets) {
  Tensor y = empty({offsets.dim(0) - 1, x.dim(1), x.dim(2)}, x.dtype(), x.device());
  const int64_t width = x.dim(1) * x.dim(2);
  run(x, [&]<class T>(auto backend) {
    kernel::sum_segments<T, T>(backend, x.reshape({x.dim(0), width}).mat<const T>(), nullptr,
                               offsets.data<const int64_t>(), false, y.reshape({y.dim(0), width}).mat<T>());
  });
  return y;
}

}  // namespace

Tensor side_mixing(const Tensor& own, const Tensor& residual, const Tensor& shared,
                   const Tensor& given_offsets) {
  MR_OP("side_mixing");
  check_shapes(own, residual, shared, given_offsets);
  const Tensor offsets = shared.defined() ? given_offsets.contiguous() : Tensor();
  Tensor y = empty(residual.shape(), residual.dtype(), residual.device());
  run(own, [&]<class T>(auto backend) {
    kernel::side_mixing<T>(backend, own.matrices<const T>(), residual.matrices<const T>(),
                           shared.defined() ? shared.matrices<const T>() : Mat<const T>(),
                           shared.defined() ? offsets.data<const int64_t>() : nullptr, y.matrices<T>());
  });
  return record(y, {own, residual, shared}, [&] {
    return
        [offsets = shared.defined() ? Saved(offsets) : Saved(), heads = own.dim(1), width = own.dim(2),
         others = shared.defined() ? shared.dim(1) : 0](const Tensor& upstream, const Needs& needs) -> Grads {
          const Tensor dy = upstream.contiguous();
          return {needs[0] ? back(dy, others, heads, width) : Tensor(), upstream,
                  needs[2] ? summed(back(dy, 0, others, width), offsets.get()) : Tensor()};
        };
  });
}

namespace kernel {

template <class T>
void side_mixing(Cpu, Mat<const T> own, Mat<const T> residual, Mat<const T> shared, const int64_t* offsets,
                 Mat<T> y) {
  const int64_t heads = own.rows, chunk = own.cols / heads, others = shared.data ? shared.rows : 0;
  parallel_for(own.batch, 2 * heads * y.cols, [&](int64_t begin, int64_t end) {
    int64_t r = others ? std::upper_bound(offsets, offsets + shared.batch + 1, begin) - offsets - 1 : 0;
    for (int64_t c = begin; c < end; ++c) {
      while (others && offsets[r + 1] <= c) ++r;
      for (int64_t h = 0; h < heads; ++h) {
        T* const out = y.row(c, h);
        const T* const added = residual.row(c, h);
        for (int64_t i = 0; i < others + heads; ++i) {
          const T* const in = (i < others ? shared.row(r, i) : own.row(c, i - others)) + h * chunk;
          simd::transform(
              chunk, out + i * chunk, [](auto v, auto a) { return v + a; }, in, added + i * chunk);
        }
        const int64_t filled = (others + heads) * chunk;
        std::copy_n(added + filled, y.cols - filled, out + filled);
      }
    }
  });
}

template <class T>
void side_mixing_backward(Cpu, Mat<const T> dy, int64_t first, Mat<T> dx) {
  const int64_t chunk = dx.cols / dy.rows;
  parallel_for(dx.batch, dx.rows * dx.cols, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t i = 0; i < dx.rows; ++i) {
        for (int64_t h = 0; h < dy.rows; ++h)
          std::copy_n(dy.row(c, h) + (first + i) * chunk, chunk, dx.row(c, i) + h * chunk);
      }
    }
  });
}

#define MR_INSTANTIATE(T)                                                                           \
  template void side_mixing(Cpu, Mat<const T>, Mat<const T>, Mat<const T>, const int64_t*, Mat<T>); \
  template void side_mixing_backward(Cpu, Mat<const T>, int64_t, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

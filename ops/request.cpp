#include "mixrec/ops/request.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/jagged.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/simd.h"

#include <vector>

namespace mixrec {
namespace {

// [rows, everything else], outside the graph.
Tensor as_rows(const Tensor& x) {
  Shape rest = x.shape();
  rest.remove(0);
  return x.detach().reshape({x.dim(0), rest.numel()});
}

Tensor with_rows(const Tensor& like, int64_t rows) {
  Shape shape = like.shape();
  shape.set(0, rows);
  return empty(shape, like.dtype(), like.device());
}

void check_rows(const Tensor& x, const Tensor& offsets) {
  MR_CHECK(x.ndim() > 0, "needs rows, got a scalar");
  MR_CHECK(offsets.defined() && offsets.dtype() == i64 && offsets.ndim() == 1 && offsets.dim(0) >= 1,
           "offsets must be i64 [rows + 1]");
  MR_CHECK(x.device() == offsets.device(), "rows are on ", x.device(), ", offsets on ", offsets.device());
}

// To `total` rows.
Tensor expand(const Tensor& x, const Tensor& offsets, int64_t total, bool mean) {
  Tensor y = with_rows(x, total);
  const Tensor in = as_rows(x), out = as_rows(y);
  run(x, [&]<class T>(auto backend) {
    kernel::expand_segments<T>(backend, in.mat<const T>(), offsets.data<const int64_t>(), mean, out.mat<T>());
  });
  return y;
}

Tensor reduce(const Tensor& x, const Tensor& offsets, bool mean) {
  Tensor y = with_rows(x, offsets.dim(0) - 1);
  const Tensor in = as_rows(x), out = as_rows(y);
  run(x, [&]<class T>(auto backend) {
    kernel::sum_segments<T, T>(backend, in.mat<const T>(), nullptr, offsets.data<const int64_t>(), mean,
                               out.mat<T>());
  });
  return y;
}

Tensor reduce_recorded(const Tensor& x, const Tensor& given, bool mean) {
  check_rows(x, given);
  check_offsets(given, x.dim(0), "offsets");
  const Tensor offsets = given.contiguous();
  return record(reduce(x, offsets, mean), {x}, [&] {
    return [offsets = Saved(offsets), total = x.dim(0), mean](const Tensor& dy) -> Grads {
      return {expand(dy.contiguous(), offsets.get(), total, mean)};
    };
  });
}

}  // namespace

Tensor expand_by_request(const Tensor& x, const Tensor& given, int64_t total) {
  MR_OP("expand_by_request");
  check_rows(x, given);
  MR_CHECK(given.dim(0) - 1 == x.dim(0), "offsets are for ", given.dim(0) - 1, " requests, there are ",
           x.dim(0));
  const Tensor offsets = given.contiguous();
  if (total < 0) total = offsets.narrow(0, x.dim(0), 1).to_vector<int64_t>()[0];
  check_offsets(offsets, total, "offsets");
  return record(expand(x, offsets, total, false), {x}, [&] {
    return [offsets = Saved(offsets)](const Tensor& dy) -> Grads {
      return {reduce(dy.contiguous(), offsets.get(), false)};
    };
  });
}

Tensor segment_sum(const Tensor& x, const Tensor& offsets) {
  MR_OP("segment_sum");
  return reduce_recorded(x, offsets, false);
}

Tensor segment_mean(const Tensor& x, const Tensor& offsets) {
  MR_OP("segment_mean");
  return reduce_recorded(x, offsets, true);
}

namespace kernel {
namespace {

// Elementary operations of one segment, on average.
int64_t segment_work(int64_t rows, int64_t segments, int64_t cols) { return (rows / segments + 1) * cols; }

}  // namespace

template <class T>
void expand_segments(Cpu, Mat<const T> x, const int64_t* offsets, bool mean, Mat<T> y) {
  const int64_t segments = x.count();
  if (segments == 0) return;
  parallel_for(segments, segment_work(y.count(), segments, y.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t length = offsets[r + 1] - offsets[r];
      const acc_t<T> scale = mean && length > 0 ? acc_t<T>(1) / static_cast<acc_t<T>>(length) : 1;
      for (int64_t c = offsets[r]; c < offsets[r + 1]; ++c)
        simd::transform(
            y.cols, y.row(c), [scale](auto v) { return v * scale; }, x.row(r));
    }
  });
}

template <class X, class Y>
void sum_segments(Cpu, Mat<const X> x, const int64_t* ids, const int64_t* offsets, bool mean, Mat<Y> y) {
  using Sum = acc_t<X>;
  const int64_t segments = y.count();
  if (segments == 0) return;
  parallel_for(segments, segment_work(offsets[segments], segments, y.cols), [&](int64_t begin, int64_t end) {
    std::vector<Sum> sum(static_cast<size_t>(y.cols));
    for (int64_t r = begin; r < end; ++r) {
      std::fill(sum.begin(), sum.end(), Sum(0));
      for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i)
        simd::transform(
            y.cols, sum.data(), [](auto a, auto b) { return a + b; }, sum.data(), x.row(ids ? ids[i] : i));
      const int64_t length = offsets[r + 1] - offsets[r];
      const Sum scale = mean && length > 0 ? Sum(1) / static_cast<Sum>(length) : 1;
      simd::transform(
          y.cols, y.row(r), [scale](auto v) { return v * scale; }, sum.data());
    }
  });
}

#define MR_INSTANTIATE(T)                                                         \
  template void expand_segments(Cpu, Mat<const T>, const int64_t*, bool, Mat<T>); \
  template void sum_segments(Cpu, Mat<const T>, const int64_t*, const int64_t*, bool, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE
template void sum_segments(Cpu, Mat<const float>, const int64_t*, const int64_t*, bool, Mat<bfloat16>);

}  // namespace kernel
}  // namespace mixrec

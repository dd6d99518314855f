#include "mixrec/ops/layout.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/loops.h"

#include <algorithm>
#include <vector>

namespace mixrec {
namespace {

// [R, ...] as a matrix [R, product of the others].
Tensor as_rows(const Tensor& x) {
  int64_t width = 1;
  for (int i = 1; i < x.ndim(); ++i) width *= x.dim(i);
  return x.detach().reshape({x.dim(0), width});
}

void check_ids(const Tensor& x, const Tensor& ids) {
  MR_CHECK(x.ndim() > 0, "needs rows, got ", x.shape());
  MR_CHECK(ids.ndim() == 1 && ids.dtype() == i64, "ids must be i64 of one dimension, got ", ids.dtype(),
           ids.shape());
  MR_CHECK(ids.device() == x.device(), "x is on ", x.device(), " and the ids on ", ids.device());
  if (!ids.device().is_cpu()) return;
  const int64_t *id = ids.data<const int64_t>(), rows = x.dim(0);
  for (int64_t j = 0; j < ids.numel(); ++j) {
    MR_CHECK(id[j] >= 0 && id[j] < rows, "id ", id[j], " at position ", j, " is outside the ", rows,
             " rows of ", x.shape());
  }
}

}  // namespace

Tensor concat(const std::vector<Tensor>& parts, int dim) {
  MR_OP("concat");
  MR_CHECK(!parts.empty(), "needs at least one tensor");
  const Tensor& first = parts[0];
  dim = first.shape().index(dim);
  Shape shape = first.shape();
  shape.set(dim, 0);
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < parts.size(); ++i) {
    check_same(first, parts[i], "part 0", ("part " + std::to_string(i)).c_str());
    Shape expected = shape;
    if (parts[i].ndim() == shape.ndim()) expected.set(dim, parts[i].dim(dim));
    MR_CHECK(parts[i].shape() == expected, "part ", i, " is ", parts[i].shape(), " and part 0 is ",
             first.shape(), "; they may differ in dimension ", dim, " only");
    sizes.push_back(parts[i].dim(dim));
  }
  for (const int64_t size : sizes)
    shape.set(dim, checked_sum(shape[dim], size, "the size of a concatenation"));
  Tensor y = empty(shape, first.dtype(), first.device());
  int64_t at = 0;
  for (size_t i = 0; i < parts.size(); at += sizes[i++]) copy_into(y.narrow(dim, at, sizes[i]), parts[i]);
  return record(y, parts, [&] {
    return [sizes, dim](const Tensor& dy, const Needs& needs) -> Grads {
      Grads grads(sizes.size());
      int64_t start = 0;
      for (size_t i = 0; i < sizes.size(); start += sizes[i++]) {
        if (needs[i]) grads[i] = dy.narrow(dim, start, sizes[i]);
      }
      return grads;
    };
  });
}

std::vector<Tensor> split(const Tensor& x, int dim, const std::vector<int64_t>& sizes) {
  MR_OP("split");
  dim = x.shape().index(dim);
  int64_t total = 0;
  for (const int64_t size : sizes) {
    MR_CHECK(size >= 0, "size ", size, " is negative");
    total = checked_sum(total, size, "the sizes of a split");
  }
  MR_CHECK(total == x.dim(dim), "the sizes add up to ", total, ", dimension ", dim, " of ", x.shape(), " is ",
           x.dim(dim));
  std::vector<Tensor> parts;
  const Tensor whole = x.detach();
  int64_t at = 0;
  for (const int64_t size : sizes) parts.push_back(whole.narrow(dim, at, size)), at += size;
  return record(parts, {x}, [&] {
    return [shape = x.shape(), sizes, dim](const std::vector<Tensor>& dys, const Needs&) -> Grads {
      const Tensor dx = empty(shape, dys[0].dtype(), dys[0].device());
      int64_t start = 0;
      for (size_t i = 0; i < sizes.size(); start += sizes[i++]) {
        copy_into(dx.narrow(dim, start, sizes[i]), dys[i]);
      }
      return {dx};
    };
  });
}

Tensor gather_rows(const Tensor& x, const Tensor& indices) {
  MR_OP("gather_rows");
  const Tensor ids = indices.contiguous();
  check_ids(x, ids);
  Shape shape = x.shape();
  shape.set(0, ids.dim(0));
  Tensor y = empty(shape, x.dtype(), x.device());
  const Tensor from = as_rows(x), to = as_rows(y);
  dispatch_any(x.dtype(), [&]<class T>() {
    on_backend(x.device(), [&](auto backend) {
      kernel::gather_rows<T, T>(backend, from.mat<const T>(), ids.data<const int64_t>(), to.mat<T>());
    });
  });
  return record(y, {x}, [&] {
    return [shape = x.shape(), ids = Saved(ids)](const Tensor& dy) -> Grads {
      Tensor dx = empty(shape, dy.dtype(), dy.device());
      const Tensor source = as_rows(dy), target = as_rows(dx);
      run(dy, [&]<class T>(auto backend) {
        kernel::gather_rows_backward<T>(backend, ids.get().data<const int64_t>(), source.mat<const T>(),
                                        target.mat<T>());
      });
      return {dx};
    };
  });
}

Tensor pad_last(const Tensor& x, int64_t count) {
  MR_OP("pad_last");
  MR_CHECK(x.ndim() > 0, "needs a last dimension, got ", x.shape());
  MR_CHECK(count >= 0, "cannot append ", count, " zeros");
  const int64_t width = x.dim(-1);
  Shape shape = x.shape();
  shape.set(-1, width + count);
  Tensor y = empty(shape, x.dtype(), x.device());
  copy_into(y.narrow(-1, 0, width), x);
  y.narrow(-1, width, count).fill(0);
  return record(y, {x},
                [&] { return [width](const Tensor& dy) -> Grads { return {dy.narrow(-1, 0, width)}; }; });
}

namespace kernel {

template <class X, class Y>
void gather_rows(Cpu, Mat<const X> x, const int64_t* ids, Mat<Y> y) {
  // Rows of a large table are far apart: each is asked for while the ones before it are copied.
  constexpr int64_t kAhead = 8;
  const int64_t count = y.count();
  for_rows(count, y.cols, [&](int64_t j) {
    if (j + kAhead < count) __builtin_prefetch(x.row(ids[j + kAhead]));
    if constexpr (std::is_same_v<X, Y>) {
      std::copy_n(x.row(ids[j]), y.cols, y.row(j));
    } else {
      simd::transform(
          y.cols, y.row(j), [](auto v) { return v; }, x.row(ids[j]));
    }
  });
}

template <class T>
void gather_rows_backward(Cpu, const int64_t* ids, Mat<const T> dy, Mat<T> dx) {
  // A counting sort: positions[starts[r] .. starts[r + 1]) are those that read row r, in order.
  const int64_t count = dy.count(), rows = dx.count();
  std::vector<int64_t> starts(static_cast<size_t>(rows) + 1), positions(static_cast<size_t>(count));
  for (int64_t j = 0; j < count; ++j) ++starts[static_cast<size_t>(ids[j])];
  int64_t total = 0;
  for (int64_t& start : starts) total += std::exchange(start, total);
  std::vector<int64_t> next = starts;
  for (int64_t j = 0; j < count; ++j) positions[static_cast<size_t>(next[static_cast<size_t>(ids[j])]++)] = j;
  for_rows(rows, dx.cols * (1 + count / std::max<int64_t>(rows, 1)), [&](int64_t r) {
    const auto begin = static_cast<size_t>(starts[static_cast<size_t>(r)]);
    const auto end = static_cast<size_t>(starts[static_cast<size_t>(r) + 1]);
    T* out = dx.row(r);
    simd::for_packs<T>(dx.cols, [&](auto at) {
      simd::Value<T> sum(0.0f);
      for (size_t k = begin; k < end; ++k) sum += at.load(dy.row(positions[k]));
      at.store(out, sum);
    });
  });
}

#define MR_INSTANTIATE(T) template void gather_rows(Cpu, Mat<const T>, const int64_t*, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
MR_INSTANTIATE(int32_t);
MR_INSTANTIATE(int64_t);
MR_INSTANTIATE(uint8_t);
#undef MR_INSTANTIATE
template void gather_rows(Cpu, Mat<const float>, const int64_t*, Mat<bfloat16>);
template void gather_rows_backward(Cpu, const int64_t*, Mat<const float>, Mat<float>);
template void gather_rows_backward(Cpu, const int64_t*, Mat<const bfloat16>, Mat<bfloat16>);
template void gather_rows_backward(Cpu, const int64_t*, Mat<const double>, Mat<double>);

}  // namespace kernel
}  // namespace mixrec

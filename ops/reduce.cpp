#include "mixrec/ops/reduce.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"

#include <vector>

namespace mixrec {
namespace {

// Sum over dimensions [first, last) of a dense x, giving `shape`.
Tensor sum_range(const Tensor& x, int first, int last, const Shape& shape) {
  int64_t outer = 1, middle = 1, inner = 1;
  for (int i = 0; i < x.ndim(); ++i) (i < first ? outer : i < last ? middle : inner) *= x.dim(i);
  Tensor y = empty(shape, x.dtype(), x.device());
  const Tensor dense = x.contiguous();
  run(x, [&]<class T>(auto backend) {
    kernel::sum_middle<T>(backend, outer, middle, inner, dense.data<const T>(), y.data<T>());
  });
  return y;
}

}  // namespace

Tensor sum(const Tensor& x) {
  MR_OP("sum");
  return record(sum_range(x.detach(), 0, x.ndim(), {}), {x}, [&] {
    return [shape = x.shape()](const Tensor& dy) -> Grads { return {broadcast_to(dy, shape)}; };
  });
}

Tensor sum(const Tensor& x, int dim) {
  MR_OP("sum");
  dim = x.shape().index(dim);
  Shape shape = x.shape();
  shape.remove(dim);
  return record(sum_range(x.detach(), dim, dim + 1, shape), {x}, [&] {
    return [shape = x.shape(), dim](const Tensor& dy) -> Grads {
      Shape kept = shape;
      kept.set(dim, 1);
      return {broadcast_to(dy.reshape(kept), shape)};
    };
  });
}

Tensor mean(const Tensor& x) {
  MR_CHECK(x.numel() > 0, "mean of no elements, of a tensor ", x.shape());
  return sum(x) * (1.0 / static_cast<double>(x.numel()));
}

Tensor mean(const Tensor& x, int dim) {
  MR_CHECK(x.dim(dim) > 0, "mean over the empty dimension ", dim, " of ", x.shape());
  return sum(x, dim) * (1.0 / static_cast<double>(x.dim(dim)));
}

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  MR_OP("broadcast_to");
  MR_CHECK(broadcast_shapes(x.shape(), shape) == shape, x.shape(), " does not broadcast to ", shape);
  Shape strides = shape;
  for (int i = 1; i <= shape.ndim(); ++i) {
    const bool stretched = i > x.ndim() || (x.dim(-i) == 1 && shape[-i] != 1);
    strides.set(-i, stretched ? 0 : x.strides()[-i]);
  }
  return record(Tensor::view(x.storage(), x.offset(), shape, strides, x.dtype()), {x}, [&] {
    return [shape = x.shape()](const Tensor& dy) -> Grads { return {sum_to(dy, shape)}; };
  });
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  MR_OP("sum_to");
  if (x.shape() == shape) return x;
  MR_CHECK(broadcast_shapes(shape, x.shape()) == x.shape(), x.shape(), " cannot be summed to ", shape);
  // Runs of stretched dimensions are summed one run at a time, the last first.
  Tensor y = x.detach();
  const auto stretched = [&](int i) {  // of y's dimension i
    const int at = i - (y.ndim() - shape.ndim());
    return at < 0 || (shape[at] == 1 && y.dim(i) != 1);
  };
  for (int last = y.ndim(); last > 0; --last) {
    if (!stretched(last - 1)) continue;
    int first = last - 1;
    while (first > 0 && stretched(first - 1)) --first;
    Shape kept = y.shape();
    for (int i = first; i < last; ++i) kept.set(i, 1);
    y = sum_range(y, first, last, kept);
    last = first + 1;
  }
  y = y.reshape(shape);
  return record(y, {x}, [&] {
    return [shape = x.shape()](const Tensor& dy) -> Grads { return {broadcast_to(dy, shape)}; };
  });
}

namespace kernel {

template <class T>
void sum_middle(Cpu, int64_t outer, int64_t middle, int64_t inner, const T* x, T* y) {
  using Sum = acc_t<T>;
  std::vector<Sum> sums(static_cast<size_t>(inner));
  for (int64_t o = 0; o < outer; ++o) {
    const T* block = x + o * middle * inner;
    std::fill(sums.begin(), sums.end(), Sum{0});
    if (inner == 1) {
      chunked_reduce(middle, 1, 1, sums.data(), [&](int64_t begin, int64_t end, Sum* partial) {
        Sum lanes[8] = {};  // independent chains, so that the loop vectorises
        int64_t m = begin;
        for (; m + 8 <= end; m += 8) {
          for (int k = 0; k < 8; ++k) lanes[k] += static_cast<Sum>(block[m + k]);
        }
        for (int k = 0; m < end; ++m, ++k) lanes[k] += static_cast<Sum>(block[m]);
        for (const Sum lane : lanes) *partial += lane;
      });
    } else {
      chunked_reduce(middle, inner, inner, sums.data(), [&](int64_t begin, int64_t end, Sum* partial) {
        for (int64_t m = begin; m < end; ++m) {
          for (int64_t i = 0; i < inner; ++i) partial[i] += static_cast<Sum>(block[m * inner + i]);
        }
      });
    }
    for (int64_t i = 0; i < inner; ++i) y[o * inner + i] = static_cast<T>(sums[static_cast<size_t>(i)]);
  }
}

template void sum_middle(Cpu, int64_t, int64_t, int64_t, const float*, float*);
template void sum_middle(Cpu, int64_t, int64_t, int64_t, const bfloat16*, bfloat16*);
template void sum_middle(Cpu, int64_t, int64_t, int64_t, const double*, double*);

}  // namespace kernel
}  // namespace mixrec

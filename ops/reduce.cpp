#include "mixrec/ops/reduce.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/loops.h"

#include <algorithm>
#include <vector>

namespace mixrec {
namespace {

// A dense x as [outer, middle, inner], middle being its dimensions [first, last).
struct Blocks {
  int64_t outer = 1, middle = 1, inner = 1;

  Blocks(const Shape& shape, int first, int last) {
    for (int i = 0; i < shape.ndim(); ++i) (i < first ? outer : i < last ? middle : inner) *= shape[i];
  }
};

// Sum over dimensions [first, last) of x, giving `shape`.
Tensor sum_range(const Tensor& x, int first, int last, const Shape& shape) {
  const auto [outer, middle, inner] = Blocks(x.shape(), first, last);
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

Tensor max(const Tensor& x, int dim) {
  MR_OP("max");
  dim = x.shape().index(dim);
  MR_CHECK(x.dim(dim) > 0, "the dimension ", dim, " of ", x.shape(), " is empty");
  const Blocks blocks(x.shape(), dim, dim + 1);
  Shape shape = x.shape();
  shape.remove(dim);
  const Tensor dense = x.detach().contiguous(), index = empty(shape, i64, x.device());
  Tensor y = empty(shape, x.dtype(), x.device());
  run(x, [&]<class T>(auto backend) {
    kernel::max_middle<T>(backend, blocks.outer, blocks.middle, blocks.inner, dense.data<const T>(),
                          y.data<T>(), index.data<int64_t>());
  });
  return record(y, {x}, [&] {
    return [index = Saved(index), shape = x.shape(), blocks](const Tensor& dy) -> Grads {
      const Tensor upstream = dy.contiguous(), dx = empty(shape, dy.dtype(), dy.device());
      run(dx, [&]<class T>(auto backend) {
        kernel::max_middle_backward<T>(backend, blocks.outer, blocks.middle, blocks.inner,
                                       index.get().data<const int64_t>(), upstream.data<const T>(),
                                       dx.data<T>());
      });
      return {dx};
    };
  });
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
  // Adds the rows [begin, end) of one block to sums[0 .. inner); elements, where the rows are that short.
  const auto add = [inner](const T* block, int64_t begin, int64_t end, Sum* sums) {
    const T* first = block + begin * inner;
    if (inner == 1) {
      *sums += simd::sum_packs<T>(end - begin, [=](auto at) { return at.load(first); });
      return;
    }
    simd::for_packs<T>(inner, [=](auto at) {
      auto sum = at.load(sums);
      for (int64_t m = 0; m < end - begin; ++m) sum += at.load(first + m * inner);
      at.store(sums, sum);
    });
  };
  const auto write = [&](const std::vector<Sum>& sums, int64_t o) {
    for (int64_t i = 0; i < inner; ++i) y[o * inner + i] = static_cast<T>(sums[static_cast<size_t>(i)]);
  };
  // Many blocks are shared out whole; few are cut into chunks.
  constexpr int64_t kManyBlocks = 32;
  if (outer >= kManyBlocks) {
    parallel_for(outer, middle * inner, [&](int64_t begin, int64_t end) {
      std::vector<Sum> sums(static_cast<size_t>(inner));
      for (int64_t o = begin; o < end; ++o) {
        std::fill(sums.begin(), sums.end(), Sum{0});
        add(x + o * middle * inner, 0, middle, sums.data());
        write(sums, o);
      }
    });
    return;
  }
  for (int64_t o = 0; o < outer; ++o) {
    std::vector<Sum> sums(static_cast<size_t>(inner));
    const T* block = x + o * middle * inner;
    chunked_reduce(middle, inner, inner, sums.data(),
                   [&](int64_t begin, int64_t end, Sum* partial) { add(block, begin, end, partial); });
    write(sums, o);
  }
}

template <class T>
void max_middle(Cpu, int64_t outer, int64_t middle, int64_t inner, const T* x, T* y, int64_t* index) {
  for_rows(outer, middle * inner, [&](int64_t o) {
    const T* block = x + o * middle * inner;
    T* best = y + o * inner;
    int64_t* at = index + o * inner;
    std::copy_n(block, inner, best);
    std::fill_n(at, inner, int64_t{0});
    for (int64_t m = 1; m < middle; ++m) {
      for (int64_t i = 0; i < inner; ++i) {
        const T value = block[m * inner + i];
        // Written so that a NaN wins and stays.
        if (!(value <= best[i]) && best[i] == best[i]) best[i] = value, at[i] = m;
      }
    }
  });
}

template <class T>
void max_middle_backward(Cpu, int64_t outer, int64_t middle, int64_t inner, const int64_t* index, const T* dy,
                         T* dx) {
  for_rows(outer, middle * inner, [&](int64_t o) {
    T* block = dx + o * middle * inner;
    std::fill_n(block, middle * inner, T(0.0f));
    for (int64_t i = 0; i < inner; ++i) block[index[o * inner + i] * inner + i] = dy[o * inner + i];
  });
}

#define MR_INSTANTIATE(T)                                                           \
  template void sum_middle(Cpu, int64_t, int64_t, int64_t, const T*, T*);           \
  template void max_middle(Cpu, int64_t, int64_t, int64_t, const T*, T*, int64_t*); \
  template void max_middle_backward(Cpu, int64_t, int64_t, int64_t, const int64_t*, const T*, T*)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

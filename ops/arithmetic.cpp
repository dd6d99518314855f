#include "mixrec/ops/arithmetic.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/loops.h"
#include "mixrec/ops/reduce.h"

namespace mixrec {
namespace {

// Dimensions of a shape and two operands' strides, merged where both operands walk them evenly: rows get long
// and few.
struct Walk {
  Shape shape, a, b;

  Walk(const Shape& full, const Shape& a_strides, const Shape& b_strides) {
    for (int i = full.ndim() - 1; i >= 0; --i) {
      if (full[i] == 1) continue;
      if (shape.ndim() && a_strides[i] == a[0] * shape[0] && b_strides[i] == b[0] * shape[0]) {
        shape.set(0, shape[0] * full[i]);
      } else {
        shape.insert(0, full[i]);
        a.insert(0, a_strides[i]);
        b.insert(0, b_strides[i]);
      }
    }
    if (!shape.ndim()) shape = {1}, a = {0}, b = {0};
  }
};

Tensor apply(Arithmetic op, const Tensor& a, const Tensor& b) {
  check_same(a, b, "the left operand", "the right one");
  const Shape shape = broadcast_shapes(a.shape(), b.shape());
  const Tensor left = broadcast_to(a.detach(), shape), right = broadcast_to(b.detach(), shape);
  Tensor y = empty(shape, a.dtype(), a.device());
  if (y.numel() == 0) return y;
  const Walk walk(shape, left.strides(), right.strides());
  run(a, [&]<class T>(auto backend) {
    kernel::arithmetic<T>(backend, op, walk.shape, left.data<const T>(), walk.a, right.data<const T>(),
                          walk.b, y.data<T>());
  });
  return y;
}

// Products that broadcasting sums are kept in f32 until they are summed.
Tensor widened(const Tensor& x) { return x.dtype() == bf16 ? cast(x, f32) : x; }

Tensor product_summed_to(const Tensor& a, const Tensor& b, const Shape& shape) {
  if (a.shape() == shape) return a * b;
  return cast(sum_to(widened(a) * widened(b), shape), a.dtype());
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  MR_OP("add");
  return record(apply(Arithmetic::add, a, b), {a, b}, [&] {
    return [a = a.shape(), b = b.shape()](const Tensor& dy, const Needs& needs) -> Grads {
      return {needs[0] ? sum_to(dy, a) : Tensor(), needs[1] ? sum_to(dy, b) : Tensor()};
    };
  });
}

Tensor sub(const Tensor& a, const Tensor& b) {
  MR_OP("sub");
  return record(apply(Arithmetic::sub, a, b), {a, b}, [&] {
    return [a = a.shape(), b = b.shape()](const Tensor& dy, const Needs& needs) -> Grads {
      return {needs[0] ? sum_to(dy, a) : Tensor(), needs[1] ? sum_to(-dy, b) : Tensor()};
    };
  });
}

Tensor mul(const Tensor& a, const Tensor& b) {
  MR_OP("mul");
  return record(apply(Arithmetic::mul, a, b), {a, b}, [&] {
    return [a = Saved(a), b = Saved(b)](const Tensor& dy, const Needs& needs) -> Grads {
      return {needs[0] ? product_summed_to(dy, b.get(), a.get().shape()) : Tensor(),
              needs[1] ? product_summed_to(dy, a.get(), b.get().shape()) : Tensor()};
    };
  });
}

Tensor div(const Tensor& a, const Tensor& b) {
  MR_OP("div");
  Tensor y = apply(Arithmetic::div, a, b);
  return record(y, {a, b}, [&] {
    return [a = Saved(a), b = Saved(b)](const Tensor& dy, const Needs& needs) -> Grads {
      const Tensor wide = widened(b.get()), da = widened(dy) / wide;
      return {needs[0] ? cast(sum_to(da, a.get().shape()), dy.dtype()) : Tensor(),
              needs[1] ? cast(-sum_to(da * (widened(a.get()) / wide), wide.shape()), dy.dtype()) : Tensor()};
    };
  });
}

Tensor affine(const Tensor& a, double scale, double shift) {
  MR_OP("affine");
  const Tensor dense = a.detach().contiguous();
  Tensor y = empty_like(a);
  run(a, [&]<class T>(auto backend) {
    kernel::affine<T>(backend, a.numel(), dense.data<const T>(), scale, shift, y.data<T>());
  });
  return record(y, {a}, [&] {
    return [scale](const Tensor& dy) -> Grads { return {scale == 1 ? dy : affine(dy, scale, 0)}; };
  });
}

Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
Tensor operator+(const Tensor& a, double b) { return affine(a, 1, b); }
Tensor operator-(const Tensor& a, double b) { return affine(a, 1, -b); }
Tensor operator*(const Tensor& a, double b) { return affine(a, b, 0); }
Tensor operator/(const Tensor& a, double b) { return affine(a, 1 / b, 0); }
Tensor operator+(double a, const Tensor& b) { return affine(b, 1, a); }
Tensor operator-(double a, const Tensor& b) { return affine(b, -1, a); }
Tensor operator*(double a, const Tensor& b) { return affine(b, a, 0); }
Tensor operator/(double a, const Tensor& b) { return full(b.shape(), a, b.dtype(), b.device()) / b; }
Tensor operator-(const Tensor& a) { return affine(a, -1, 0); }

namespace kernel {
namespace {

template <class F>
void with_operation(Arithmetic op, F f) {
  switch (op) {
    case Arithmetic::add:
      return f([](auto a, auto b) { return a + b; });
    case Arithmetic::sub:
      return f([](auto a, auto b) { return a - b; });
    case Arithmetic::mul:
      return f([](auto a, auto b) { return a * b; });
    case Arithmetic::div:
      return f([](auto a, auto b) { return a / b; });
  }
}

// One row; steps are 0 or 1 (or any stride, slowly).
template <class T, class Op>
void row(Op op, int64_t n, const T* a, int64_t a_step, const T* b, int64_t b_step, T* y) {
  using Number = acc_t<T>;
  if (a_step == 1 && b_step == 1) {
    simd::for_packs<T>(n, [=](auto at) { at.store(y, op(at.load(a), at.load(b))); });
  } else if (a_step == 1 && b_step == 0) {
    const simd::Value<T> right = static_cast<Number>(*b);
    simd::for_packs<T>(n, [=](auto at) { at.store(y, op(at.load(a), right)); });
  } else if (a_step == 0 && b_step == 1) {
    const simd::Value<T> left = static_cast<Number>(*a);
    simd::for_packs<T>(n, [=](auto at) { at.store(y, op(left, at.load(b))); });
  } else {
    for (int64_t j = 0; j < n; ++j)
      y[j] = static_cast<T>(op(static_cast<Number>(a[j * a_step]), static_cast<Number>(b[j * b_step])));
  }
}

}  // namespace

template <class T>
void arithmetic(Cpu, Arithmetic op, const Shape& shape, const T* a, const Shape& a_strides, const T* b,
                const Shape& b_strides, T* y) {
  const int last = shape.ndim() - 1;
  const int64_t n = shape[last], a_step = a_strides[last], b_step = b_strides[last];
  with_operation(op, [&](auto operation) {
    if (last == 0) {
      return parallel_for(n, 2, [&](int64_t begin, int64_t end) {
        row(operation, end - begin, a + begin * a_step, a_step, b + begin * b_step, b_step, y + begin);
      });
    }
    parallel_for(shape.numel() / n, 2 * n, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        int64_t at_a = 0, at_b = 0, rest = i;
        for (int k = last - 1; k >= 0; --k) {
          const int64_t index = rest % shape[k];
          rest /= shape[k];
          at_a += index * a_strides[k];
          at_b += index * b_strides[k];
        }
        row(operation, n, a + at_a, a_step, b + at_b, b_step, y + i * n);
      }
    });
  });
}

template <class T>
void affine(Cpu, int64_t n, const T* a, double scale, double shift, T* y) {
  const simd::Value<T> factor = static_cast<acc_t<T>>(scale), offset = static_cast<acc_t<T>>(shift);
  parallel_for(n, 2, [&](int64_t begin, int64_t end) {
    const T* in = a + begin;
    T* out = y + begin;
    simd::for_packs<T>(end - begin, [=](auto at) { at.store(out, simd::fma(at.load(in), factor, offset)); });
  });
}

#define MR_INSTANTIATE(T)                                                                                 \
  template void arithmetic(Cpu, Arithmetic, const Shape&, const T*, const Shape&, const T*, const Shape&, \
                           T*);                                                                           \
  template void affine(Cpu, int64_t, const T*, double, double, T*)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

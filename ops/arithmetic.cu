// a + b, a - b, a * b, a / b with broadcasting, and a * scale + shift.
//
// Both operands are walked as rows of the (merged) last dimension; a row's place in an operand comes from the
// digits of its number.  One thread takes 16 bytes of y (8 bf16, 4 f32; 1 f64), and of an operand the same or,
// where it is stretched, one number.  Floor: the bytes of a, b and y once, which for large dense tensors is
// all there is; a stretched operand comes from the caches.
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/loops.cuh"

namespace mixrec::kernel {
namespace {

// An operand over the rows of y; the last dimension has its own step.
template <class T>
struct Operand {
  const T* data;
  int64_t strides[Shape::kMaxDims], step;

  template <class At>
  __device__ auto load(At at, int outer_dims, const int64_t* sizes) const {
    const T* from = data;
    int64_t rest = at.row;
    for (int k = outer_dims - 1; k > 0; --k) {
      from += rest % sizes[k] * strides[k];
      rest /= sizes[k];
    }
    if (outer_dims > 0) from += rest * strides[0];
    if (step == 1) return cuda::load_values<At::kWidth>(from + at.col, at.count);
    // Stretched, or one element at a time.
    cuda::Values<acc_t<T>, At::kWidth> values;
    values[0] = from[at.col * step];
#pragma unroll
    for (int k = 1; k < At::kWidth; ++k) values[k] = values[0];
    return values;
  }
};

template <Arithmetic kOp, class T>
struct Combine {
  Operand<T> a, b;
  int64_t sizes[Shape::kMaxDims];
  int outer_dims;

  template <class At>
  __device__ void operator()(At at, Mat<T> y) const {
    auto left = a.load(at, outer_dims, sizes);
    const auto right = b.load(at, outer_dims, sizes);
#pragma unroll
    for (int k = 0; k < At::kWidth; ++k) {
      if constexpr (kOp == Arithmetic::add) left[k] += right[k];
      if constexpr (kOp == Arithmetic::sub) left[k] -= right[k];
      if constexpr (kOp == Arithmetic::mul) left[k] *= right[k];
      if constexpr (kOp == Arithmetic::div) left[k] /= right[k];
    }
    at.store(y, left);
  }
};

template <class T>
Operand<T> operand(const T* data, const Shape& strides) {
  Operand<T> out{data, {}, strides[-1]};
  for (int i = 0; i + 1 < strides.ndim(); ++i) out.strides[i] = strides[i];
  return out;
}

// Whether whole stretches can be loaded from it: every row is dense and aligned, or one number.
template <class T>
bool allows_stretches(const T* data, const Shape& strides) {
  if (strides[-1] == 0) return true;
  bool even = strides[-1] == 1 && cuda::aligned(data);
  for (int i = 0; i + 1 < strides.ndim(); ++i) even = even && strides[i] % cuda::kVectorWidth<T> == 0;
  return even;
}

template <Arithmetic kOp, class T>
void combine(Cuda device, const Shape& shape, const T* a, const Shape& a_strides, const T* b,
             const Shape& b_strides, T* y) {
  constexpr int kWidth = cuda::kVectorWidth<T>;
  const int last = shape.ndim() - 1;
  Combine<kOp, T> body{operand(a, a_strides), operand(b, b_strides), {}, last};
  int64_t rows = 1;
  for (int i = 0; i < last; ++i) rows *= body.sizes[i] = shape[i];
  const int64_t cols = shape[last];
  const Mat<T> out{y, 1, rows, cols, 0, cols};
  if constexpr (kWidth > 1) {
    if (allows_stretches(a, a_strides) && allows_stretches(b, b_strides) && cuda::aligned(out))
      return cuda::for_tiles<kWidth>(device, rows, cols, body, out);
  }
  cuda::for_tiles<1>(device, rows, cols, body, out);
}

template <class T>
struct Scaled {
  T scale, shift;

  template <class At, class Element>
  __device__ void operator()(At at, Mat<const Element> a, Mat<Element> y) const {
    auto v = at.load(a);
#pragma unroll
    for (int k = 0; k < At::kWidth; ++k) v[k] = simd::fma(v[k], scale, shift);
    at.store(y, v);
  }
};

}  // namespace

template <class T>
void arithmetic(Cuda device, Arithmetic op, const Shape& shape, const T* a, const Shape& a_strides,
                const T* b, const Shape& b_strides, T* y) {
  switch (op) {
    case Arithmetic::add:
      return combine<Arithmetic::add>(device, shape, a, a_strides, b, b_strides, y);
    case Arithmetic::sub:
      return combine<Arithmetic::sub>(device, shape, a, a_strides, b, b_strides, y);
    case Arithmetic::mul:
      return combine<Arithmetic::mul>(device, shape, a, a_strides, b, b_strides, y);
    case Arithmetic::div:
      return combine<Arithmetic::div>(device, shape, a, a_strides, b, b_strides, y);
  }
}

template <class T>
void affine(Cuda device, int64_t n, const T* a, double scale, double shift, T* y) {
  const Scaled<acc_t<T>> body{static_cast<acc_t<T>>(scale), static_cast<acc_t<T>>(shift)};
  cuda::for_stretches(device, body, Mat<const T>{a, 1, 1, n, 0, n}, Mat<T>{y, 1, 1, n, 0, n});
}

#define MR_INSTANTIATE(T)                                                                                  \
  template void arithmetic(Cuda, Arithmetic, const Shape&, const T*, const Shape&, const T*, const Shape&, \
                           T*);                                                                            \
  template void affine(Cuda, int64_t, const T*, double, double, T*)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

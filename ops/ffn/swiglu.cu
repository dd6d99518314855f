// y = silu(gate) ⊙ up, forward and backward.
//
// One thread takes 16 bytes of every operand (8 bf16, 4 f32; 1 f64), also where gate and up are the two halves
// of wider rows.  Floor: 3 elements of traffic forward (gate, up, y), 5 backward (and dgate, dup).  Precise arithmetic
// takes some 25 and 35 instructions an element, which hides behind it in f32 but not in bf16.
#include "mixrec/ops/ffn/swiglu.h"
#include "mixrec/ops/loops.cuh"

namespace mixrec::kernel {
namespace {

// 1 / (1 + e^-x).  For results that are rounded to eight bits, by the card's own exponential and reciprocal: 2^-18 off
// where it matters.
template <class T>
__device__ inline acc_t<T> sigmoid_for(acc_t<T> x) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return __fdividef(1.0f, 1.0f + __expf(-x));
  } else {
    return simd::sigmoid(x);
  }
}

struct Forward {
  template <class At, class T>
  __device__ void operator()(At at, Mat<const T> gate, Mat<const T> up, Mat<T> y) const {
    auto g = at.load(gate);
    const auto u = at.load(up);
#pragma unroll
    for (int k = 0; k < At::kWidth; ++k) g[k] = g[k] * sigmoid_for<T>(g[k]) * u[k];
    at.store(y, g);
  }
};

struct Backward {
  template <class At, class T>
  __device__ void operator()(At at, Mat<const T> gate, Mat<const T> up, Mat<const T> dy, Mat<T> dgate,
                             Mat<T> dup, Mat<T> y) const {
    auto g = at.load(gate), u = at.load(up);
    auto d = at.load(dy);
#pragma unroll
    for (int k = 0; k < At::kWidth; ++k) {
      const acc_t<T> s = sigmoid_for<T>(g[k]), silu = g[k] * s, forward = silu * u[k];
      g[k] = d[k] * u[k] * (s + silu * (1 - s));
      u[k] = d[k] * silu;
      d[k] = forward;
    }
    at.store(dgate, g);
    at.store(dup, u);
    at.store(y, d);
  }
};

}  // namespace

template <class T>
void swiglu(Cuda device, Mat<const T> gate, Mat<const T> up, Mat<T> y) {
  cuda::for_stretches(device, Forward{}, gate, up, y);
}

template <class T>
void swiglu_backward(Cuda device, Mat<const T> gate, Mat<const T> up, Mat<const T> dy, Mat<T> dgate,
                     Mat<T> dup, Mat<T> y) {
  cuda::for_stretches(device, Backward{}, gate, up, dy, dgate, dup, y);
}

#define MR_INSTANTIATE(T)                                         \
  template void swiglu(Cuda, Mat<const T>, Mat<const T>, Mat<T>); \
  template void swiglu_backward(Cuda, Mat<const T>, Mat<const T>, Mat<const T>, Mat<T>, Mat<T>, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

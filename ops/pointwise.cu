// y = f(x) and dx = f'(x) dy for every function of ops/pointwise_functions.h.
//
// One thread takes 16 bytes of x (8 bf16, 4 f32; 1 f64).  Floor: 2 elements of traffic forward (x, y), 3
// backward (x, dy, dx); at most some 40 instructions an element, which hide behind it.
#include "mixrec/ops/loops.cuh"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/pointwise_functions.h"

namespace mixrec::kernel {
namespace {

template <class F>
struct Value {
  F function;

  template <class At, class T>
  __device__ void operator()(At at, Mat<const T> x, Mat<T> y) const {
    auto v = at.load(x);
#pragma unroll
    for (int k = 0; k < At::kWidth; ++k) v[k] = function.value(v[k]);
    at.store(y, v);
  }
};

template <class F>
struct Slope {
  F function;

  template <class At, class T>
  __device__ void operator()(At at, Mat<const T> x, Mat<const T> dy, Mat<T> dx) const {
    const auto v = at.load(x);
    auto d = at.load(dy);
#pragma unroll
    for (int k = 0; k < At::kWidth; ++k) d[k] *= function.slope(v[k]);
    at.store(dx, d);
  }
};

}  // namespace

template <class T, class F>
void pointwise(Cuda device, const F& function, Mat<const T> x, Mat<T> y) {
  cuda::for_stretches(device, Value<F>{function}, x, y);
}

template <class T, class F>
void pointwise_backward(Cuda device, const F& function, Mat<const T> x, Mat<const T> dy, Mat<T> dx) {
  cuda::for_stretches(device, Slope<F>{function}, x, dy, dx);
}

#define MR_INSTANTIATE(T, F)                                                \
  template void pointwise(Cuda, const pointwise::F&, Mat<const T>, Mat<T>); \
  template void pointwise_backward(Cuda, const pointwise::F&, Mat<const T>, Mat<const T>, Mat<T>)
#define MR_INSTANTIATE_ALL(F)  \
  MR_INSTANTIATE(float, F);    \
  MR_INSTANTIATE(bfloat16, F); \
  MR_INSTANTIATE(double, F);
MR_INSTANTIATE_POINTWISE(MR_INSTANTIATE_ALL)

}  // namespace mixrec::kernel

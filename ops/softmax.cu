// softmax, log_softmax, logsumexp over rows, and their gradients.
//
// Up to 32 threads share a short row, a block a long one; each takes 16 bytes at a time (8 bf16, 4 f32;
// 1 f64).  A row is read from memory once and two or three times from the caches: for the maximum, the sum of
// exponentials and the result.  Floor: x and y once (backward: y, dy and dx); some 30 instructions an element.
#include "mixrec/ops/softmax.h"
#include "mixrec/ops/softmax_rows.cuh"

namespace mixrec::kernel {
namespace {

struct Softmax {
  template <class Row, class T>
  __device__ void operator()(Row row, Mat<const T> x, Mat<T> y) const {
    const auto shift = cuda::row_max(row, x);
    const auto scale = 1 / cuda::row_sum_exp(row, x, shift);
    row.for_each([&](auto at) {
      auto v = at.load(x);
#pragma unroll
      for (int k = 0; k < at.kWidth; ++k) v[k] = simd::exp(v[k] - shift) * scale;
      at.store(y, v);
    });
  }
};

struct SoftmaxBackward {
  template <class Row, class T>
  __device__ void operator()(Row row, Mat<const T> y, Mat<const T> dy, Mat<T> dx) const {
    acc_t<T> dot = 0;
    row.for_each([&](auto at) {
      const auto out = at.load(y), upstream = at.load(dy);
#pragma unroll
      for (int k = 0; k < at.kWidth; ++k) dot += out[k] * upstream[k];
    });
    dot = row.sum(dot);
    row.for_each([&](auto at) {
      auto v = at.load(y);
      const auto upstream = at.load(dy);
#pragma unroll
      for (int k = 0; k < at.kWidth; ++k) v[k] *= upstream[k] - dot;
      at.store(dx, v);
    });
  }
};

struct LogSoftmax {
  template <class Row, class T>
  __device__ void operator()(Row row, Mat<const T> x, Mat<T> y) const {
    const auto log_sum = cuda::row_logsumexp(row, x);
    row.for_each([&](auto at) {
      auto v = at.load(x);
#pragma unroll
      for (int k = 0; k < at.kWidth; ++k) v[k] -= log_sum;
      at.store(y, v);
    });
  }
};

struct LogSoftmaxBackward {
  template <class Row, class T>
  __device__ void operator()(Row row, Mat<const T> y, Mat<const T> dy, Mat<T> dx) const {
    acc_t<T> sum = 0;
    row.for_each([&](auto at) {
      const auto upstream = at.load(dy);
#pragma unroll
      for (int k = 0; k < at.kWidth; ++k) sum += upstream[k];
    });
    sum = row.sum(sum);
    row.for_each([&](auto at) {
      const auto out = at.load(y);
      auto d = at.load(dy);
#pragma unroll
      for (int k = 0; k < at.kWidth; ++k) d[k] -= simd::exp(out[k]) * sum;
      at.store(dx, d);
    });
  }
};

template <class T>
struct LogSumExp {
  T* y;

  template <class Row>
  __device__ void operator()(Row row, Mat<const T> x) const {
    const auto log_sum = cuda::row_logsumexp(row, x);
    if (row.writes()) y[row.row] = static_cast<T>(log_sum);
  }
};

template <class T>
struct LogSumExpBackward {
  const T *y, *dy;

  template <class At>
  __device__ void operator()(At at, Mat<const T> x, Mat<T> dx) const {
    const acc_t<T> log_sum = y[at.row], scale = dy[at.row];
    auto v = at.load(x);
#pragma unroll
    for (int k = 0; k < At::kWidth; ++k) v[k] = simd::exp(v[k] - log_sum) * scale;
    at.store(dx, v);
  }
};

}  // namespace

template <class T>
void softmax(Cuda device, Mat<const T> x, Mat<T> y) {
  cuda::for_wide_rows(device, Softmax{}, x, y);
}
template <class T>
void softmax_backward(Cuda device, Mat<const T> y, Mat<const T> dy, Mat<T> dx) {
  cuda::for_wide_rows(device, SoftmaxBackward{}, y, dy, dx);
}
template <class T>
void log_softmax(Cuda device, Mat<const T> x, Mat<T> y) {
  cuda::for_wide_rows(device, LogSoftmax{}, x, y);
}
template <class T>
void log_softmax_backward(Cuda device, Mat<const T> y, Mat<const T> dy, Mat<T> dx) {
  cuda::for_wide_rows(device, LogSoftmaxBackward{}, y, dy, dx);
}
template <class T>
void logsumexp(Cuda device, Mat<const T> x, T* y) {
  cuda::for_wide_rows(device, LogSumExp<T>{y}, x);
}
template <class T>
void logsumexp_backward(Cuda device, Mat<const T> x, const T* y, const T* dy, Mat<T> dx) {
  cuda::for_row_stretches(device, LogSumExpBackward<T>{y, dy}, x, dx);
}

#define MR_INSTANTIATE(T)                                                       \
  template void softmax(Cuda, Mat<const T>, Mat<T>);                            \
  template void softmax_backward(Cuda, Mat<const T>, Mat<const T>, Mat<T>);     \
  template void log_softmax(Cuda, Mat<const T>, Mat<T>);                        \
  template void log_softmax_backward(Cuda, Mat<const T>, Mat<const T>, Mat<T>); \
  template void logsumexp(Cuda, Mat<const T>, T*);                              \
  template void logsumexp_backward(Cuda, Mat<const T>, const T*, const T*, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

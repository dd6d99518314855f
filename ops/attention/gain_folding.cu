// Gains of a norm folded into the weights behind it, and taken out of their gradient, on a device.
//
// A block takes a row.  Floor: reading w and writing y, 24 MB for a layer of MixFormer-small, .006 ms at the copy rate of
// an H200; back w and dy are read and dy is written, .012 ms.
#include "mixrec/core/cuda_launch.cuh"
#include "mixrec/ops/attention/sequence_attention.h"

namespace mixrec::kernel {
namespace {

constexpr int kThreads = 256;

template <class T, class W>
__global__ void __launch_bounds__(kThreads) fold_rows(Mat<const W> w, const acc_t<T>* gain, T* y) {
  const int64_t i = blockIdx.x;
  const W* from = w.row(i);
  T* to = y + i * w.cols;
  const acc_t<T> g = gain[i];
#pragma unroll 4
  for (int64_t j = threadIdx.x; j < w.cols; j += kThreads)
    to[j] = static_cast<T>(g * static_cast<acc_t<T>>(from[j]));
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    unfold_rows(Mat<const W> w, const acc_t<W>* gain, acc_t<W>* dy, acc_t<W>* dgain) {
  const int64_t i = blockIdx.x;
  const W* from = w.row(i);
  acc_t<W>* row = dy + i * w.cols;
  const acc_t<W> g = gain[i];
  acc_t<W> sum = 0;
#pragma unroll 4
  for (int64_t j = threadIdx.x; j < w.cols; j += kThreads) {
    const acc_t<W> d = row[j];
    sum += d * static_cast<acc_t<W>>(from[j]);
    row[j] = d * g;
  }
  sum = cuda::block_sum<kThreads>(sum);
  if (threadIdx.x == 0) dgain[i] = sum;
}

}  // namespace

template <class T, class W>
void fold_gain(Cuda device, Mat<const W> w, const acc_t<T>* gain, T* y) {
  cuda::launch(device, fold_rows<T, W>, w.count(), kThreads, 0, w, gain, y);
}

template <class W>
void unfold_gain(Cuda device, Mat<const W> w, const acc_t<W>* gain, acc_t<W>* dy, acc_t<W>* dgain) {
  cuda::launch(device, unfold_rows<W>, w.count(), kThreads, 0, w, gain, dy, dgain);
}

template void fold_gain(Cuda, Mat<const float>, const float*, float*);
template void fold_gain(Cuda, Mat<const bfloat16>, const float*, bfloat16*);
template void fold_gain(Cuda, Mat<const float>, const float*, bfloat16*);
template void fold_gain(Cuda, Mat<const double>, const double*, double*);
template void unfold_gain(Cuda, Mat<const float>, const float*, float*, float*);
template void unfold_gain(Cuda, Mat<const bfloat16>, const float*, float*, float*);
template void unfold_gain(Cuda, Mat<const double>, const double*, double*, double*);

}  // namespace mixrec::kernel

// Dropout from Philox words: the decisions of the CPU, bit for bit.
//
// One thread computes one block of Philox, four words, for four consecutive elements, which may span rows of
// a strided view.  Floor: x and y once; about 100 integer instructions for four elements.
#include "mixrec/core/dtype.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/loops.cuh"

namespace mixrec::kernel {
namespace {

constexpr int kThreads = 256;

template <class T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
  T at[4];
};

template <class T>
__device__ T kept(T x, uint32_t word, uint32_t threshold, acc_t<T> scale) {
  const acc_t<T> value = static_cast<acc_t<T>>(x) * scale;
  return static_cast<T>(word >= threshold ? value : acc_t<T>(0));
}

// kDense: all elements in a row, x and y at multiples of Four.
template <bool kDense, class T>
__global__ void __launch_bounds__(kThreads)
    drop(Mat<const T> x, uint64_t seed, uint64_t counter, uint32_t threshold, acc_t<T> scale, Mat<T> y) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t count = x.count() * x.cols, first = 4 * block;
  if (first >= count) return;
  const Philox::Block words = Philox(seed)(counter + static_cast<uint64_t>(block));
  if (kDense && first + 4 <= count) {
    auto v = *reinterpret_cast<const Four<T>*>(x.data + first);
#pragma unroll
    for (int k = 0; k < 4; ++k) v.at[k] = kept(v.at[k], words.word[k], threshold, scale);
    *reinterpret_cast<Four<T>*>(y.data + first) = v;
    return;
  }
  int64_t row = first / x.cols, col = first % x.cols;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (first + k < count) y.row(row)[col] = kept(x.row(row)[col], words.word[k], threshold, scale);
    if (++col == x.cols) col = 0, ++row;
  }
}

}  // namespace

template <class T>
void dropout(Cuda device, Mat<const T> x, uint64_t seed, uint64_t counter, uint32_t threshold, double scale,
             Mat<T> y) {
  const int64_t grid = cuda::blocks(x.count() * x.cols, 4 * kThreads);
  const bool dense = x.dense() && y.dense() && cuda::aligned(x) && cuda::aligned(y);
  cuda::launch(device, dense ? drop<true, T> : drop<false, T>, grid, kThreads, 0, x, seed, counter, threshold,
               static_cast<acc_t<T>>(scale), y);
}

template void dropout(Cuda, Mat<const float>, uint64_t, uint64_t, uint32_t, double, Mat<float>);
template void dropout(Cuda, Mat<const bfloat16>, uint64_t, uint64_t, uint32_t, double, Mat<bfloat16>);
template void dropout(Cuda, Mat<const double>, uint64_t, uint64_t, uint32_t, double, Mat<double>);

}  // namespace mixrec::kernel

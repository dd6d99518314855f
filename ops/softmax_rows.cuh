// The maximum and the sum of exponentials of a row that several CUDA threads share (ops/loops.cuh).
#pragma once

#include "mixrec/ops/loops.cuh"

namespace mixrec::cuda {

template <class Row, class T>
__device__ acc_t<T> row_max(Row row, Mat<const T> x) {
  acc_t<T> largest = -INFINITY;
  row.for_each([&](auto at) {
    const auto v = at.load(x);
#pragma unroll
    for (int k = 0; k < at.kWidth; ++k) {
      if (k < at.count) largest = simd::max(largest, v[k]);
    }
  });
  return row.max(largest);
}

// Σ exp(x - shift)
template <class Row, class T>
__device__ acc_t<T> row_sum_exp(Row row, Mat<const T> x, acc_t<T> shift) {
  acc_t<T> sum = 0;
  row.for_each([&](auto at) {
    const auto v = at.load(x);
#pragma unroll
    for (int k = 0; k < at.kWidth; ++k) {
      if (k < at.count) sum += simd::exp(v[k] - shift);
    }
  });
  return row.sum(sum);
}

template <class Row, class T>
__device__ acc_t<T> row_logsumexp(Row row, Mat<const T> x) {
  const acc_t<T> shift = row_max(row, x);
  return shift + simd::log(row_sum_exp(row, x, shift));
}

}  // namespace mixrec::cuda

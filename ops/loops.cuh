// The loops that CUDA kernels over elements and rows are made of: what ops/loops.h is to the CPU.
//
//   struct Square {
//     template <class At, class T>
//     __device__ void operator()(At at, Mat<const T> x, Mat<T> y) const {
//       auto v = at.load(x);
//       for (int k = 0; k < At::kWidth; ++k) v[k] *= v[k];
//       at.store(y, v);
//     }
//   };
//   cuda::for_stretches(device, Square{}, x, y);
//
// A thread sees `kWidth` consecutive elements of a row, widened to f32 (f64 for f64): what 16 bytes hold where
// all views are aligned, else one.  f64 is there for gradient checks and always takes one.
#pragma once

#include "mixrec/core/cuda_launch.cuh"
#include "mixrec/core/simd.h"

namespace mixrec::cuda {

template <class Number, int kCount>
struct Values {
  Number at[kCount];

  __device__ Number& operator[](int k) { return at[k]; }
  __device__ const Number& operator[](int k) const { return at[k]; }
};

template <class T>
using widened_t = acc_t<std::remove_const_t<T>>;

// Elements [0, count) from `from`, the others zero; a full load is made of 16-byte accesses.
template <int kWidth, class T>
__device__ inline Values<widened_t<T>, kWidth> load_values(const T* from, int count = kWidth) {
  Values<widened_t<T>, kWidth> values;
  if constexpr (kWidth == 1) {
    values[0] = from[0];
  } else {
    constexpr int kPiece = Vec<T>::kSize;
    static_assert(kWidth % kPiece == 0);
    if (count == kWidth) {
#pragma unroll
      for (int piece = 0; piece < kWidth; piece += kPiece) {
        const Vec<T> vec = load_vec(from + piece);
#pragma unroll
        for (int k = 0; k < kPiece; ++k) values[piece + k] = vec.at[k];
      }
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        values[k] = 0;
        if (k < count) values[k] = from[k];
      }
    }
  }
  return values;
}

template <int kWidth, class T>
__device__ inline void store_values(T* to, const Values<acc_t<T>, kWidth>& values, int count = kWidth) {
  if constexpr (kWidth == 1) {
    to[0] = static_cast<T>(values[0]);
  } else {
    constexpr int kPiece = Vec<T>::kSize;
    static_assert(kWidth % kPiece == 0);
    if (count == kWidth) {
#pragma unroll
      for (int piece = 0; piece < kWidth; piece += kPiece) {
        Vec<T> vec;
#pragma unroll
        for (int k = 0; k < kPiece; ++k) vec.at[k] = static_cast<T>(values[piece + k]);
        store_vec(to + piece, vec);
      }
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        if (k < count) to[k] = static_cast<T>(values[k]);
      }
    }
  }
}

// Where a thread is: elements [col, col + count) of a row, count at most kWidth.
template <int kElements>
struct At {
  static constexpr int kWidth = kElements;
  int64_t row, col;
  int count;

  template <class T>
  __device__ auto load(const Mat<T>& m) const {
    return load_values<kWidth>(const_cast<const std::remove_const_t<T>*>(m.row(row)) + col, count);
  }
  // A view without data takes nothing.
  template <class T>
  __device__ void store(const Mat<T>& m, const Values<acc_t<T>, kWidth>& values) const {
    if (m.data) store_values<kWidth>(m.row(row) + col, values, count);
  }
};

// Elements that one thread takes of aligned rows of T.
template <class T>
inline constexpr int kVectorWidth = std::is_same_v<T, double> ? 1 : Vec<T>::kSize;

// Whether every row starts at a multiple of 16 bytes.  The end of a row may be anywhere.
template <class T>
bool aligned(const Mat<T>& m) {
  constexpr int64_t kSize = 16 / static_cast<int64_t>(sizeof(T));
  if (reinterpret_cast<uintptr_t>(m.data) % 16 != 0) return false;
  return m.count() <= 1 || (m.row_stride % kSize == 0 && (m.batch == 1 || m.batch_stride % kSize == 0));
}
template <class T>
bool aligned(const T* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

// ---- Elements: every thread takes one stretch of one row. ----

constexpr int kTileThreads = 256;

// A block covers 2^lanes_log2 stretches of each of kTileThreads / 2^lanes_log2 rows.
struct Tiles {
  int64_t rows, cols;
  unsigned blocks_per_row;
  int lanes_log2;
};

template <int kWidth, class Body, class... Views>
__global__ void __launch_bounds__(kTileThreads) over_tiles(Tiles tiles, Body body, Views... views) {
  const unsigned across = blockIdx.x % tiles.blocks_per_row, down = blockIdx.x / tiles.blocks_per_row;
  const unsigned lane = threadIdx.x & ((1u << tiles.lanes_log2) - 1);
  const int64_t row =
      static_cast<int64_t>(down) * (kTileThreads >> tiles.lanes_log2) + (threadIdx.x >> tiles.lanes_log2);
  const int64_t col = ((static_cast<int64_t>(across) << tiles.lanes_log2) + lane) * kWidth;
  if (row >= tiles.rows || col >= tiles.cols) return;
  const int64_t left = tiles.cols - col;
  body(At<kWidth>{row, col, left < kWidth ? static_cast<int>(left) : kWidth}, views...);
}

// Calls body(at, views…) on the device for every stretch of rows × cols.
template <int kWidth, class Body, class... Views>
void for_tiles(Cuda device, int64_t rows, int64_t cols, const Body& body, Views... views) {
  if (rows == 0 || cols == 0) return;
  const int64_t stretches = blocks(cols, kWidth);
  int lanes_log2 = 0;
  while ((1 << lanes_log2) < kTileThreads && (1 << lanes_log2) < stretches) ++lanes_log2;
  const int64_t across = blocks(stretches, 1 << lanes_log2);
  const int64_t down = blocks(rows, kTileThreads >> lanes_log2);
  launch(device, over_tiles<kWidth, Body, Views...>, across * down, kTileThreads, 0,
         Tiles{rows, cols, static_cast<unsigned>(across), lanes_log2}, body, views...);
}

// The same on views of one shape and one element type, with as wide stretches as they allow.  A view without
// data, after the first, stays without.
template <class Body, class First, class... Rest>
void for_row_stretches(Cuda device, const Body& body, Mat<First> first, Mat<Rest>... rest) {
  constexpr int kWidth = kVectorWidth<std::remove_const_t<First>>;
  if constexpr (kWidth > 1) {
    if (aligned(first) && (aligned(rest) && ...))
      return for_tiles<kWidth>(device, first.count(), first.cols, body, first, rest...);
  }
  for_tiles<1>(device, first.count(), first.cols, body, first, rest...);
}

// The same for bodies that do not care which row they are in: dense views are walked as one long row.
template <class Body, class First, class... Rest>
void for_stretches(Cuda device, const Body& body, Mat<First> first, Mat<Rest>... rest) {
  if (first.dense() && ((!rest.data || rest.dense()) && ...)) {
    const int64_t count = first.count() * first.cols;
    first = {first.data, 1, 1, count, 0, count};
    ((rest = {rest.data, 1, 1, count, 0, count}), ...);
  }
  for_row_stretches(device, body, first, rest...);
}

// ---- Rows: `lanes` threads share one and can reduce over it. ----

template <class V>
__device__ inline V shuffle_xor(V value, int step) {
  return __shfl_xor_sync(0xffffffffu, value, step);
}

// Combines the values of the threads that share a row, in an order that depends on `lanes` alone; each of them
// gets the result.  All threads of the block must call it.  `lanes`: a power of two up to 32, or all
// kTileThreads.
template <class V, class Combine>
__device__ inline V combine_lanes(V value, int lanes, Combine combine) {
  for (int step = (lanes < kWarp ? lanes : kWarp) / 2; step > 0; step /= 2)
    value = combine(value, shuffle_xor(value, step));
  if (lanes <= kWarp) return value;
  __shared__ V of_warp[kTileThreads / kWarp];
  __syncthreads();  // an earlier call's readers are done
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = of_warp[0];
  for (int w = 1; w < kTileThreads / kWarp; ++w) value = combine(value, of_warp[w]);
  return value;
}

// One thread's part in a row.  Threads past the last row go along with empty rows, so that all can reduce.
template <int kWidth>
struct RowLane {
  int64_t row, cols;  // no columns past the last row
  int lane, lanes;

  __device__ bool writes() const { return lane == 0 && cols > 0; }

  // f(at) for this thread's stretches.
  template <class F>
  __device__ void for_each(F f) const {
    for (int64_t col = static_cast<int64_t>(lane) * kWidth; col < cols;
         col += static_cast<int64_t>(lanes) * kWidth) {
      const int64_t left = cols - col;
      f(At<kWidth>{row, col, left < kWidth ? static_cast<int>(left) : kWidth});
    }
  }
  template <class V>
  __device__ V sum(V value) const {
    return combine_lanes(value, lanes, [](V a, V b) { return a + b; });
  }
  template <class V>
  __device__ V max(V value) const {
    return combine_lanes(value, lanes, [](V a, V b) { return a > b ? a : b; });
  }
};

template <int kWidth, class Body, class... Views>
__global__ void __launch_bounds__(kTileThreads)
    over_rows(int64_t rows, int64_t cols, int lanes, Body body, Views... views) {
  const int64_t row =
      static_cast<int64_t>(blockIdx.x) * (kTileThreads / lanes) + static_cast<int>(threadIdx.x) / lanes;
  body(RowLane<kWidth>{row, row < rows ? cols : 0, static_cast<int>(threadIdx.x) % lanes, lanes}, views...);
}

// Threads for a row of so many stretches.
inline int row_lanes(int64_t stretches) {
  if (stretches > 512) return kTileThreads;
  int lanes = 1;
  while (lanes < kWarp && lanes < stretches) lanes *= 2;
  return lanes;
}

// Calls body(row_lane, views…) on the device for every one of rows of cols > 0 elements.
template <int kWidth, class Body, class... Views>
void for_rows(Cuda device, int64_t rows, int64_t cols, const Body& body, Views... views) {
  const int lanes = row_lanes(blocks(cols, kWidth));
  launch(device, over_rows<kWidth, Body, Views...>, blocks(rows, kTileThreads / lanes), kTileThreads, 0, rows,
         cols, lanes, body, views...);
}

// The same on views of one shape and one element type, with as wide stretches as they allow.
template <class Body, class First, class... Rest>
void for_wide_rows(Cuda device, const Body& body, Mat<First> first, Mat<Rest>... rest) {
  constexpr int kWidth = kVectorWidth<std::remove_const_t<First>>;
  if constexpr (kWidth > 1) {
    if (aligned(first) && (aligned(rest) && ...))
      return for_rows<kWidth>(device, first.count(), first.cols, body, first, rest...);
  }
  for_rows<1>(device, first.count(), first.cols, body, first, rest...);
}

}  // namespace mixrec::cuda

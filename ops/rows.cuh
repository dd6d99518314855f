// What kernels that move whole rows share: a few threads side by side take the columns of a row, in pieces of
// 16 bytes where the rows allow it, and rows of segments are found by bisection.
#pragma once

#include "mixrec/core/cuda_launch.cuh"

namespace mixrec::kernel::rows {

inline constexpr int kThreads = 256;

// Consecutive elements of a row.
template <class T, int kCount>
struct Piece {
  T at[kCount];
};

template <int kCount, class T>
__device__ inline Piece<T, kCount> read(const T* from) {
  Piece<T, kCount> piece;
  if constexpr (kCount == 1) {
    piece.at[0] = *from;
  } else {
    constexpr int kWide = cuda::Vec<T>::kSize;
#pragma unroll
    for (int i = 0; i < kCount; i += kWide) {
      const auto vec = cuda::load_vec(from + i);
#pragma unroll
      for (int j = 0; j < kWide; ++j) piece.at[i + j] = vec.at[j];
    }
  }
  return piece;
}
template <int kCount, class T>
__device__ inline void write(T* to, const Piece<T, kCount>& piece) {
  if constexpr (kCount == 1) {
    *to = piece.at[0];
  } else {
    constexpr int kWide = cuda::Vec<T>::kSize;
#pragma unroll
    for (int i = 0; i < kCount; i += kWide) {
      cuda::Vec<T> vec;
#pragma unroll
      for (int j = 0; j < kWide; ++j) vec.at[j] = piece.at[i + j];
      cuda::store_vec(to + i, vec);
    }
  }
}

// Elements of a piece that is read as X and written as Y.
template <class X, class Y>
inline constexpr int kPiece =
    cuda::Vec<X>::kSize > cuda::Vec<Y>::kSize ? cuda::Vec<X>::kSize : cuda::Vec<Y>::kSize;
template <class X, class Y>
bool in_pieces(const Mat<X>& x, const Mat<Y>& y) {
  return y.cols % kPiece<std::remove_const_t<X>, Y> == 0 && cuda::vectorisable(x) && cuda::vectorisable(y);
}

// Threads of one row, a power of two, and the grid that gives every row some: up to a warp, and more where there are
// few rows, so that each has little to do one after the other.
struct Plan {
  static constexpr int64_t kManyThreads = int64_t{1} << 17;  // that fill any card

  int lanes;
  int64_t grid;

  Plan(int64_t count, int64_t pieces) : lanes(1) {
    const auto few = [&] { return lanes < kThreads && count * lanes < kManyThreads; };
    while (lanes < pieces && (lanes < cuda::kWarp || few())) lanes *= 2;
    grid = cuda::blocks(count, kThreads / lanes);
  }
};
__device__ inline int64_t row_of_thread(int lanes) {
  return static_cast<int64_t>(blockIdx.x) * (blockDim.x / lanes) + threadIdx.x / lanes;
}

// The last of the segments that start at or before `position`: the one that holds it, when one does.
__device__ inline int64_t segment_of(const int64_t* offsets, int64_t segments, int64_t position) {
  int64_t low = 0, high = segments;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (offsets[middle] <= position ? low : high) = middle;
  }
  return low;
}

}  // namespace mixrec::kernel::rows

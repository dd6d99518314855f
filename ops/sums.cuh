// Sums over the middle dimension of [outer, middle, inner] on the device, in an order that depends on the
// shape alone: y[o, i] = Σ_m term(o, m, i).
//
// `Terms` gives kWidth neighbours at a time, widened: terms.template load<kWidth>(o, m, col, count) with
// count <= kWidth of them inside.  A long middle is cut into chunks, so that the sums keep the whole card
// busy; their partial sums are added by a second kernel.  Floor: the bytes that the terms read, once.
#pragma once

#include "mixrec/ops/loops.cuh"

namespace mixrec::cuda {

// Blocks that fill a card, and the terms below which a thread is not worth starting.
constexpr int64_t kFullCard = 1056, kTermsPerThread = 8;

// ---- inner == 1: a sum runs along dense memory; `lanes` threads share it. ----

// y[o, c]: chunk c of sum o; blockIdx.x counts groups of kTileThreads / lanes of these.
template <int kWidth, class Terms, class Y>
__global__ void __launch_bounds__(kTileThreads)
    row_sums(Terms terms, int64_t outer, int64_t middle, int64_t chunk, int64_t chunks, int lanes, Y* y) {
  const int64_t sum = static_cast<int64_t>(blockIdx.x) * (kTileThreads / lanes) + threadIdx.x / lanes;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  acc_t<Y> total = 0;
  if (sum < outer * chunks) {
    const int64_t o = sum / chunks, begin = sum % chunks * chunk;
    const int64_t end = begin + chunk < middle ? begin + chunk : middle;
    const int64_t step = static_cast<int64_t>(lanes) * kWidth;
#pragma unroll 4
    for (int64_t m = begin + static_cast<int64_t>(lane) * kWidth; m < end; m += step) {
      const int64_t left = end - m;
      const auto v = terms.template load<kWidth>(o, m, 0, left < kWidth ? static_cast<int>(left) : kWidth);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) total += v[k];
    }
  }
  total = combine_lanes(total, lanes, [](auto a, auto b) { return a + b; });
  if (lane == 0 && sum < outer * chunks) y[sum] = static_cast<Y>(total);
}

template <int kWidth, class Terms, class Y>
void launch_row_sums(Cuda device, const Terms& terms, int64_t outer, int64_t middle, int64_t chunk,
                     int64_t chunks, Y* y) {
  const int lanes = row_lanes(blocks(chunk, kWidth));
  launch(device, row_sums<kWidth, Terms, Y>, blocks(outer * chunks, kTileThreads / lanes), kTileThreads, 0,
         terms, outer, middle, chunk, chunks, lanes, y);
}

// ---- inner > 1: neighbouring threads take neighbouring columns. ----

// Block (tile, chunk, o): `lanes` threads side by side, kThreads / lanes of them below each other, which walk
// the rows of the chunk.  y[o, chunk, i].
template <int kWidth, int kThreads, class Terms, class Y>
__global__ void __launch_bounds__(kThreads)
    column_sums(Terms terms, int64_t middle, int64_t inner, int64_t chunk, unsigned chunks, unsigned tiles,
                int lanes, Y* y) {
  const unsigned tile = blockIdx.x % tiles, c = blockIdx.x / tiles % chunks, o = blockIdx.x / tiles / chunks;
  const int lane = static_cast<int>(threadIdx.x) % lanes, down = static_cast<int>(threadIdx.x) / lanes;
  const int64_t col = (static_cast<int64_t>(tile) * lanes + lane) * kWidth, left = inner - col;
  const int count = left < kWidth ? static_cast<int>(left) : kWidth;
  Values<acc_t<Y>, kWidth> total = {};
  if (col < inner) {
    const int64_t begin = static_cast<int64_t>(c) * chunk;
    const int64_t end = begin + chunk < middle ? begin + chunk : middle;
#pragma unroll 4
    for (int64_t m = begin + down; m < end; m += kThreads / lanes) {
      const auto v = terms.template load<kWidth>(o, m, col, count);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) total[k] += v[k];
    }
  }
  __shared__ acc_t<Y> partial[kWidth][kThreads];
#pragma unroll
  for (int k = 0; k < kWidth; ++k) partial[k][threadIdx.x] = total[k];
  // Halves are added to halves: lanes and the threads below them are powers of two.
  for (int half = kThreads / 2; half >= lanes; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) partial[k][threadIdx.x] += partial[k][threadIdx.x + half];
    }
  }
  if (down > 0 || col >= inner) return;
  Y* to = y + (static_cast<int64_t>(o) * chunks + c) * inner + col;
  for (int k = 0; k < count; ++k) to[k] = static_cast<Y>(partial[k][threadIdx.x]);
}

template <int kWidth, int kThreads, class Terms, class Y>
void launch_column_sums(Cuda device, const Terms& terms, int64_t outer, int64_t middle, int64_t inner,
                        int64_t chunk, int64_t chunks, Y* y) {
  const int64_t stretches = blocks(inner, kWidth);
  int lanes = 1;
  while (lanes < kWarp && lanes < stretches) lanes *= 2;
  const int64_t tiles = blocks(stretches, lanes);
  launch(device, column_sums<kWidth, kThreads, Terms, Y>, outer * chunks * tiles, kThreads, 0, terms, middle,
         inner, chunk, static_cast<unsigned>(chunks), static_cast<unsigned>(tiles), lanes, y);
}

// Many short sums: one thread each, or for kWidth neighbours.
template <class Terms>
struct DirectSums {
  Terms terms;
  int64_t middle;

  template <class At, class Y>
  __device__ void operator()(At at, Mat<Y> y) const {
    Values<acc_t<Y>, At::kWidth> total = {};
#pragma unroll 4
    for (int64_t m = 0; m < middle; ++m) {
      const auto v = terms.template load<At::kWidth>(at.row, m, at.col, at.count);
#pragma unroll
      for (int k = 0; k < At::kWidth; ++k) total[k] += v[k];
    }
    for (int k = 0; k < at.count; ++k) y.row(at.row)[at.col + k] = static_cast<Y>(total[k]);
  }
};

// A dense x as terms.
template <class X>
struct DenseTerms {
  const X* x;
  int64_t middle, inner;

  template <int kWidth>
  __device__ auto load(int64_t o, int64_t m, int64_t col, int count) const {
    return load_values<kWidth>(x + (o * middle + m) * inner + col, count);
  }
};

// Few rows of partial sums: large blocks, so that each thread adds few.
template <class Sum, class Y>
void add_partials(Cuda device, int64_t outer, int64_t chunks, int64_t inner, const Sum* partial, Y* y) {
  launch_column_sums<1, 1024>(device, DenseTerms<Sum>{partial, chunks, inner}, outer, chunks, inner, chunks,
                              1, y);
}

// Terms that give kWidth neighbours must be able to at every (o, m, col) with col (inner > 1) or m (inner ==
// 1) a multiple of kWidth.
template <int kWidth, class Terms, class Y>
void sum_terms(Cuda device, const Terms& terms, int64_t outer, int64_t middle, int64_t inner, Y* y) {
  using Sum = acc_t<Y>;
  if (outer == 0 || inner == 0) return;
  if (inner > 1 && outer * blocks(inner, kWidth) >= kFullCard * kTileThreads / 8 && middle < 1024) {
    return for_tiles<kWidth>(device, outer, inner, DirectSums<Terms>{terms, middle},
                             Mat<Y>{y, 1, outer, inner, 0, inner});
  }
  // Terms that one block adds in a pass, and blocks without chunks.
  const int64_t tiles = inner > 1 ? blocks(inner, kWarp * kWidth) : 1;
  const int64_t pass = inner > 1 ? kTileThreads / kWarp : kTileThreads * kWidth;
  const int64_t least = std::max<int64_t>(pass * kTermsPerThread, 1024);
  const int64_t wanted = std::min(blocks(kFullCard, outer * tiles), blocks(middle, least));
  const int64_t chunk =
      std::max<int64_t>(blocks(blocks(middle, std::max<int64_t>(wanted, 1)), kWidth), 1) * kWidth;
  const int64_t chunks = std::max<int64_t>(blocks(middle, chunk), 1);
  if (inner == 1) {
    if (chunks == 1) return launch_row_sums<kWidth>(device, terms, outer, middle, chunk, 1, y);
    const Scratch<Sum> partial(outer * chunks);
    launch_row_sums<kWidth>(device, terms, outer, middle, chunk, chunks, partial.data());
    launch_row_sums<1>(device, DenseTerms<Sum>{partial.data(), chunks, 1}, outer, chunks, chunks, 1, y);
  } else {
    if (chunks == 1)
      return launch_column_sums<kWidth, kTileThreads>(device, terms, outer, middle, inner, chunk, 1, y);
    const Scratch<Sum> partial(outer * chunks * inner);
    launch_column_sums<kWidth, kTileThreads>(device, terms, outer, middle, inner, chunk, chunks,
                                             partial.data());
    add_partials(device, outer, chunks, inner, partial.data(), y);
  }
}

// y[o, i] = Σ_m x[o, m, i] over a dense x.
template <class X, class Y>
void sum_middle(Cuda device, int64_t outer, int64_t middle, int64_t inner, const X* x, Y* y) {
  constexpr int kWidth = kVectorWidth<X>;
  const DenseTerms<X> terms{x, middle, inner};
  if constexpr (kWidth > 1) {
    const bool rows_aligned = inner > 1 ? inner % kWidth == 0 : outer == 1 || middle % kWidth == 0;
    if (aligned(x) && rows_aligned) return sum_terms<kWidth>(device, terms, outer, middle, inner, y);
  }
  sum_terms<1>(device, terms, outer, middle, inner, y);
}

}  // namespace mixrec::cuda

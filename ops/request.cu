// Rows of segments: a few threads a row, in pieces of 16 bytes.
//
//   expand_segments   a row of y finds its segment by bisection and copies the segment's row of x
//   sum_segments      the threads of a segment sum its rows, eight at a time into eight sums, which are added
//                     up in order: that many reads are under way, and the order is that of the segment alone
//
// Floor: every row of x and y once.  Bisection reads log2(R) offsets, which stay in the cache.  Long segments
// cut over several blocks would fill the device better where there are few; none of the models has them.
#include "mixrec/core/device_errors.cuh"
#include "mixrec/ops/request.h"
#include "mixrec/ops/rows.cuh"

namespace mixrec::kernel {
namespace {

constexpr int kWays = 8;  // sums of a segment

template <class A>
__device__ inline A scale_of(bool mean, int64_t length) {
  return mean && length > 0 ? A(1) / static_cast<A>(length) : A(1);
}

template <class T, int kPiece>
__global__ void __launch_bounds__(rows::kThreads)
    expand_pieces(Mat<const T> x, const int64_t* offsets, bool mean, Mat<T> y, int lanes) {
  using A = acc_t<T>;
  const int64_t c = rows::row_of_thread(lanes);
  if (c >= y.count()) return;
  const int64_t r = rows::segment_of(offsets, x.count(), c), begin = offsets[r], end = offsets[r + 1];
  const bool inside = begin <= c && c < end;
  const A scale = scale_of<A>(mean, end - begin);
  for (int64_t at = static_cast<int64_t>(threadIdx.x % lanes) * kPiece; at < y.cols; at += lanes * kPiece) {
    auto piece = rows::read<kPiece>(x.row(r) + at);
#pragma unroll
    for (int i = 0; i < kPiece; ++i)
      piece.at[i] = static_cast<T>(inside ? static_cast<A>(piece.at[i]) * scale : A(0));
    rows::write(y.row(c) + at, piece);
  }
}

template <class X, class Y, int kPiece>
__global__ void __launch_bounds__(rows::kThreads)
    sum_pieces(Mat<const X> x, const int64_t* ids, const int64_t* offsets, bool mean, Mat<Y> y, int lanes,
               cuda::IdCheck check) {
  using A = acc_t<X>;
  const int64_t r = rows::row_of_thread(lanes);
  if (r >= y.count()) return;
  const int64_t begin = offsets[r], end = offsets[r + 1];
  const A scale = scale_of<A>(mean, end - begin);
  for (int64_t at = static_cast<int64_t>(threadIdx.x % lanes) * kPiece; at < y.cols; at += lanes * kPiece) {
    A sums[kWays][kPiece] = {};
    for (int64_t i = begin; i < end; i += kWays) {
      int64_t from[kWays];
#pragma unroll
      for (int way = 0; way < kWays; ++way) {
        const int64_t position = min(i + way, end - 1);
        from[way] = ids ? ids[position] : position;
      }
      rows::Piece<X, kPiece> parts[kWays];
#pragma unroll
      for (int way = 0; way < kWays; ++way) {
        parts[way] = {};
        if (i + way < end && check.passes(from[way], i + way, x.count()))
          parts[way] = rows::read<kPiece>(x.row(from[way]) + at);
      }
#pragma unroll
      for (int way = 0; way < kWays; ++way) {
#pragma unroll
        for (int k = 0; k < kPiece; ++k) sums[way][k] += static_cast<A>(parts[way].at[k]);
      }
    }
#pragma unroll
    for (int half = kWays / 2; half > 0; half /= 2) {
#pragma unroll
      for (int way = 0; way < half; ++way) {
#pragma unroll
        for (int k = 0; k < kPiece; ++k) sums[way][k] += sums[way + half][k];
      }
    }
    rows::Piece<Y, kPiece> piece;
#pragma unroll
    for (int k = 0; k < kPiece; ++k) piece.at[k] = static_cast<Y>(sums[0][k] * scale);
    rows::write(y.row(r) + at, piece);
  }
}

}  // namespace

template <class T>
void expand_segments(Cuda device, Mat<const T> x, const int64_t* offsets, bool mean, Mat<T> y) {
  if (x.count() == 0 || y.cols == 0) return;
  const auto run = [&](auto piece) {
    constexpr int kPiece = decltype(piece)::value;
    const rows::Plan plan(y.count(), cuda::blocks(y.cols, kPiece));
    cuda::launch(device, expand_pieces<T, kPiece>, plan.grid, rows::kThreads, 0, x, offsets, mean, y,
                 plan.lanes);
  };
  if (rows::in_pieces(x, y)) {
    run(std::integral_constant<int, rows::kPiece<T, T>>{});
  } else {
    run(std::integral_constant<int, 1>{});
  }
}

template <class X, class Y>
void sum_segments(Cuda device, Mat<const X> x, const int64_t* ids, const int64_t* offsets, bool mean,
                  Mat<Y> y) {
  if (y.cols == 0) return;
  const auto run = [&](auto piece) {
    constexpr int kPiece = decltype(piece)::value;
    const rows::Plan plan(y.count(), cuda::blocks(y.cols, kPiece));
    cuda::launch(device, sum_pieces<X, Y, kPiece>, plan.grid, rows::kThreads, 0, x, ids, offsets, mean, y,
                 plan.lanes, cuda::IdCheck());
  };
  if (rows::in_pieces(x, y)) {
    run(std::integral_constant<int, rows::kPiece<X, Y>>{});
  } else {
    run(std::integral_constant<int, 1>{});
  }
}

#define MR_INSTANTIATE(T) template void expand_segments(Cuda, Mat<const T>, const int64_t*, bool, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE
#define MR_INSTANTIATE(X, Y) \
  template void sum_segments(Cuda, Mat<const X>, const int64_t*, const int64_t*, bool, Mat<Y>)
MR_INSTANTIATE(float, float);
MR_INSTANTIATE(float, bfloat16);
MR_INSTANTIATE(bfloat16, bfloat16);
MR_INSTANTIATE(double, double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

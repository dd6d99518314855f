// gather_rows: a few threads a row, one read and one write of 16 bytes each; rows come in the order of their
// ids, so that reads of a large table are whole rows and writes are dense.  Floor: n rows read and written.
//
// Its backward sums rows of dy that went to one row of dx: (id, position) is sorted by id, keeping positions
// in order, and every row of dx finds its stretch by bisection and sums it.  No row is touched by two, so
// nothing depends on timing.  A row that very many read is summed by a few threads alone; tables whose ids
// repeat like that are the optimiser's (optim/row_gradients.h), which cuts them up.
#include "mixrec/core/device_errors.cuh"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/rows.cuh"

#include <cub/device/device_radix_sort.cuh>

namespace mixrec::kernel {
namespace {

template <class X, class Y, int kPiece>
__global__ void __launch_bounds__(rows::kThreads)
    gather_pieces(Mat<const X> x, const int64_t* ids, Mat<Y> y, int lanes, cuda::IdCheck check) {
  const int64_t j = rows::row_of_thread(lanes);
  if (j >= y.count()) return;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t id = ids[j];
  const X* const from = check.passes(id, j, x.count()) ? x.row(id) : nullptr;
  Y* const to = y.row(j);
  for (int64_t at = lane * kPiece; at < y.cols; at += lanes * kPiece) {
    rows::Piece<Y, kPiece> piece{};
    if (from) {
      const auto read = rows::read<kPiece>(from + at);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) piece.at[i] = static_cast<Y>(read.at[i]);
    }
    rows::write(to + at, piece);
  }
}

// Ids outside the rows sort behind all others.
__global__ void __launch_bounds__(rows::kThreads)
    number_ids(const int64_t* ids, int64_t count, int64_t rows, uint64_t* keys, int64_t* positions) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= count) return;
  keys[j] = static_cast<uint64_t>(ids[j] >= 0 && ids[j] < rows ? ids[j] : rows);
  positions[j] = j;
}

// The first of `count` sorted keys that is at least `key`.
__device__ int64_t first_at_least(const uint64_t* keys, int64_t count, uint64_t key) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <class T, int kPiece>
__global__ void __launch_bounds__(rows::kThreads)
    sum_sorted(const uint64_t* keys, const int64_t* positions, Mat<const T> dy, Mat<T> dx, int lanes) {
  using Sum = acc_t<T>;
  const int64_t r = rows::row_of_thread(lanes), count = dy.count();
  if (r >= dx.count()) return;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t begin = first_at_least(keys, count, static_cast<uint64_t>(r));
  const int64_t end = first_at_least(keys, count, static_cast<uint64_t>(r) + 1);
  for (int64_t at = lane * kPiece; at < dx.cols; at += lanes * kPiece) {
    Sum sum[kPiece] = {};
#pragma unroll 4
    for (int64_t k = begin; k < end; ++k) {
      const auto part = rows::read<kPiece>(dy.row(positions[k]) + at);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) sum[i] += static_cast<Sum>(part.at[i]);
    }
    rows::Piece<T, kPiece> piece;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) piece.at[i] = static_cast<T>(sum[i]);
    rows::write(dx.row(r) + at, piece);
  }
}

}  // namespace

template <class X, class Y>
void gather_rows(Cuda device, Mat<const X> x, const int64_t* ids, Mat<Y> y) {
  if (y.cols == 0) return;
  const auto run = [&](auto piece) {
    constexpr int kPiece = decltype(piece)::value;
    const rows::Plan plan(y.count(), cuda::blocks(y.cols, kPiece));
    cuda::launch(device, gather_pieces<X, Y, kPiece>, plan.grid, rows::kThreads, 0, x, ids, y, plan.lanes,
                 cuda::IdCheck());
  };
  if (rows::in_pieces(x, y)) {
    run(std::integral_constant<int, rows::kPiece<X, Y>>{});
  } else {
    run(std::integral_constant<int, 1>{});
  }
}

template <class T>
void gather_rows_backward(Cuda device, const int64_t* ids, Mat<const T> dy, Mat<T> dx) {
  const int64_t count = dy.count();
  if (dx.count() == 0 || dx.cols == 0) return;
  const cuda::Scratch<uint64_t> keys(count), sorted_keys(count);
  const cuda::Scratch<int64_t> positions(count), sorted_positions(count);
  if (count > 0) {
    cuda::launch(device, number_ids, cuda::blocks(count, rows::kThreads), rows::kThreads, 0, ids, count,
                 dx.count(), keys, positions);
    int bits = 1;
    while (bits < 64 && dx.count() >> bits) ++bits;
    size_t bytes = 0;
    const auto sort = [&](void* memory) {
      cuda::check(
          cub::DeviceRadixSort::SortPairs(memory, bytes, keys.data(), sorted_keys.data(), positions.data(),
                                          sorted_positions.data(), count, 0, bits, cuda::stream_of(device)),
          "sorting ids");
    };
    sort(nullptr);
    const cuda::Scratch<std::byte> memory(static_cast<int64_t>(bytes));
    sort(memory);
  }
  const auto run = [&](auto piece) {
    constexpr int kPiece = decltype(piece)::value;
    const rows::Plan plan(dx.count(), cuda::blocks(dx.cols, kPiece));
    cuda::launch(device, sum_sorted<T, kPiece>, plan.grid, rows::kThreads, 0, sorted_keys, sorted_positions,
                 dy, dx, plan.lanes);
  };
  if (rows::in_pieces(dy, dx)) {
    run(std::integral_constant<int, rows::kPiece<T, T>>{});
  } else {
    run(std::integral_constant<int, 1>{});
  }
}

#define MR_INSTANTIATE(X, Y) template void gather_rows(Cuda, Mat<const X>, const int64_t*, Mat<Y>)
MR_INSTANTIATE(float, float);
MR_INSTANTIATE(float, bfloat16);
MR_INSTANTIATE(bfloat16, bfloat16);
MR_INSTANTIATE(double, double);
MR_INSTANTIATE(int32_t, int32_t);
MR_INSTANTIATE(int64_t, int64_t);
MR_INSTANTIATE(uint8_t, uint8_t);
#undef MR_INSTANTIATE
template void gather_rows_backward(Cuda, const int64_t*, Mat<const float>, Mat<float>);
template void gather_rows_backward(Cuda, const int64_t*, Mat<const bfloat16>, Mat<bfloat16>);
template void gather_rows_backward(Cuda, const int64_t*, Mat<const double>, Mat<double>);

}  // namespace mixrec::kernel

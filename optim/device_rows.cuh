// The look-ups of one step by row: made by row_gradients.cu, read by table.cu and device.cu.
//
// A row is worked on by a group of 2^k ≤ 32 lanes of a warp, as many as its columns ask for: kPack neighbouring
// columns a lane at a time.
#pragma once

#include "mixrec/core/cuda_launch.cuh"
#include "mixrec/optim/device.h"

#include <type_traits>

namespace mixrec::optim {

// One look-up: `weight` times the numbers at `row`.
template <class T>
struct alignas(16) Source {
  const void* row;
  T weight;
  int32_t narrow;  // the numbers are bf16
};

// A row that was looked up, by the sources [first, first + count).
struct Row {
  int64_t id;
  int32_t first, count, table;
};

struct RowCounts {
  int64_t runs;  // of equal keys; the last may be that of lost look-ups
  int64_t rows;
  int32_t pieces, long_rows;
};

struct DeviceRows {
  DeviceRows(const DeviceTables& of, int64_t lookups, int64_t source_bytes, int64_t sum_bytes,
             int64_t partials_of_rows)
      : tables(of),
        count(lookups),
        counts(1),
        rows(lookups),
        sources(lookups * source_bytes),
        sums(sum_bytes),
        partials(partials_of_rows),
        partial_count(partials_of_rows) {}

  DeviceTables tables;
  int64_t count;  // of look-ups, and so the most rows there can be
  int lanes = cuda::kWarp;
  bool vectors = false;  // all that is read can be read four floats at a time
  cuda::Scratch<RowCounts> counts;
  cuda::Scratch<Row> rows;  // ordered by table and id
  cuda::Scratch<std::byte> sources;
  cuda::Scratch<std::byte> sums;  // of the pieces of long rows
  cuda::Scratch<double> partials;
  int64_t partial_count;
};

// ---- In kernels. ----

template <class T, int kPack>
struct alignas(sizeof(T) * kPack) Pack {
  T at[kPack];
};
template <int kPack, class T>
__device__ inline Pack<T, kPack> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kPack>*>(from);
}
template <int kPack, class T>
__device__ inline void store_pack(T* to, const Pack<T, kPack>& pack) {
  *reinterpret_cast<Pack<T, kPack>*>(to) = pack;
}

template <int kPack, class T>
__device__ inline Pack<T, kPack> load_source(const Source<T>& source, int64_t col) {
  if constexpr (std::is_same_v<T, float>) {
    if (source.narrow) {
      const auto narrow = load_pack<kPack>(static_cast<const bfloat16*>(source.row) + col);
      Pack<float, kPack> wide;
#pragma unroll
      for (int k = 0; k < kPack; ++k) wide.at[k] = narrow.at[k];
      return wide;
    }
  }
  return load_pack<kPack>(static_cast<const T*>(source.row) + col);
}

// Columns [col, col + kPack) of the sum over `count` look-ups, in their order.
template <int kPack, class T>
__device__ inline Pack<T, kPack> add_sources(const Source<T>* sources, int32_t count, int64_t col) {
  Pack<T, kPack> sum{};
#pragma unroll 4
  for (int32_t i = 0; i < count; ++i) {
    const Source<T> source = sources[i];
    const Pack<T, kPack> x = load_source<kPack>(source, col);
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum.at[k] = simd::fma(source.weight, x.at[k], sum.at[k]);
  }
  return sum;
}

// The place of a thread in its group of `lanes`.
struct Group {
  int lane;
  unsigned mask;  // of the group in its warp
  int64_t index;  // of the group in the grid

  __device__ explicit Group(int lanes)
      : lane(static_cast<int>(threadIdx.x) & (lanes - 1)),
        mask((lanes == cuda::kWarp ? ~0u : (1u << lanes) - 1)
             << (static_cast<int>(threadIdx.x) % cuda::kWarp - lane)),
        index((static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / lanes) {}

  // Sum over the group; every lane gets it.
  __device__ double sum(double value, int lanes) const {
    for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(mask, value, step);
    return value;
  }
};

}  // namespace mixrec::optim

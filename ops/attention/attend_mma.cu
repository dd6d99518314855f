// Forward of attend() by tensor cores: bfloat16, more candidates than requests.
//
//   attend_tiles     a block: up to 64 candidates of one request, one head, one chunk of the history (kSplit) or all
//                    chunks one after the other; a warp has 16 of the candidates.  Events come 64 at a time into
//                    shared memory, the next ones while these are worked on
//   combine_chunks   a warp: one candidate and head; puts the softmaxes of its chunks together, in order.  Launched
//                    with kSplit, where some history may have several
//
// Scores S = U Hᵀ and sums P H are products of 16 × 16 by 16 × 8 (mma.sync) of the same events in shared memory, between
// them is a running softmax.  Weights are rounded to bfloat16 for the second product, and it is the rounded ones whose
// sum is divided by: m is a true average of events.  lse is the logarithm of that sum.
//
// Chunks are cut as a history's own length says, and both forms put them together with the same arithmetic: a
// candidate's bits depend on nothing but its query and its history.  Which form runs depends on the shapes: with few
// tiles, chunks fill the card; with many, there is nothing to write between chunks.
//
// 4·N·Ds·Σ_r T_r C_r operations: 20 GFLOP for 500 candidates over 10,000 events with 16 heads of 64, a few tens of µs
// on an H100, and as many for the 80 million exponentials; with 500 candidates six chunks are one wave of blocks.
// Partial sums there are 12 MB, written and read.
#include "mixrec/core/cuda_mma.cuh"
#include "mixrec/ops/attention/attend_rows.cuh"

namespace mixrec::kernel {
namespace {

using namespace attention;

constexpr int kWarps = 4, kTileThreads = kWarps * cuda::kWarp;
constexpr int kWarpRows = 16;                   // candidates of a warp
constexpr int kTileRows = kWarps * kWarpRows;   // of a block
constexpr int kEvents = 64;                     // in shared memory together
constexpr int64_t kPart = 256, kMostParts = 6;  // chunks: as kChunk and kMostChunks, for this kernel
constexpr int64_t kManyBlocks = 1024;           // that fill any card
constexpr float kLog2e = 1.44269504f;

// Chunks of about equal length, in whole stages.
__device__ inline int64_t chunk_length(int64_t events) {
  const int64_t parts = min(max((events + kPart - 1) / kPart, int64_t{1}), kMostParts);
  const int64_t stages = (events + parts * kEvents - 1) / (parts * kEvents);
  return kEvents * max(stages, int64_t{1});
}

// What the kernels read and write.
struct Tiles {
  Mat<const bfloat16> u, h;
  Bounds bounds;
  Mat<bfloat16> y;
  Mat<float> m;  // or without data
  float* lse;    // or null
  int64_t slots, heads;
  int width;
  float2* softmax;  // of each chunk, candidate and head: largest score, sum of weights
  float* weighted;  // and the weighted sum of events

  __device__ int64_t place(int64_t chunk, int64_t c, int64_t head) const {
    return (chunk * u.batch + c) * heads + head;
  }
  __device__ void write_lse(int64_t c, int64_t head, float largest, float sum) const {
    if (lse) lse[c * heads + head] = holds(sum) ? largest + log(sum) : 0.f;
  }
  // Two columns of the result.
  __device__ void write(int64_t c, int64_t head, int column, float first, float second, float sum) const {
    const float scale = holds(sum) ? 1.f / sum : 0.f;
    first *= scale, second *= scale;
    *reinterpret_cast<uint32_t*>(y.row(c, head) + column) = cuda::round_pair(first, second);
    if (m.data) *reinterpret_cast<float2*>(m.row(c, head) + column) = float2{first, second};
  }

 private:
  __device__ static bool holds(float sum) { return sum > 0 || sum != sum; }  // NaN stays to be seen
};

// A softmax under way, in one lane: kCount of its sums.
template <int kCount>
struct Softmax {
  float largest = -INFINITY, sum = 0;
  float weighted[kCount] = {};
};

template <int kCount>
__device__ inline void merge(Softmax<kCount>& total, const Softmax<kCount>& part) {
  const float largest = max(total.largest, part.largest);
  const float before = exp2f((total.largest - largest) * kLog2e),
              added = exp2f((part.largest - largest) * kLog2e);
  total.largest = largest;
  total.sum = fmaf(part.sum, added, total.sum * before);
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    total.weighted[i] = fmaf(part.weighted[i], added, total.weighted[i] * before);
}

// Over the four lanes of a group, which hold the same rows.
__device__ inline float group_max(float x) {
  x = max(x, __shfl_xor_sync(kAll, x, 1));
  return max(x, __shfl_xor_sync(kAll, x, 2));
}
__device__ inline float group_sum(float x) {
  x += __shfl_xor_sync(kAll, x, 1);
  return x + __shfl_xor_sync(kAll, x, 2);
}

template <int kWidth>
using Stage = bfloat16[kEvents][kWidth + 8];  // 8 more: rows of a matrix lie in different banks

// Starts to copy `count` events of one head; the other rows, and columns past the width, become zeros.
template <int kWidth>
__device__ inline void start_copy(Stage<kWidth>& to, const bfloat16* from, int64_t stride, int width,
                                  int count) {
  constexpr int kPieces = kWidth / 8;
#pragma unroll
  for (int i = 0; i < kEvents * kPieces / kTileThreads; ++i) {
    const int piece = i * kTileThreads + static_cast<int>(threadIdx.x);
    const int row = piece / kPieces, column = piece % kPieces * 8;
    const bool exists = row < count && column < width;
    cuda::copy_async(&to[row][column], exists ? from + row * stride + column : from, exists);
  }
}

// Sixteen candidates of a warp.  This lane holds rows group and group + 8, softmax[0] and [1], and of 8 columns in a row
// 2·place and the next; until finish() each lane has a sum of its own.
template <int kWidth>
struct Rows16 {
  static constexpr int kSums = kWidth / 4;

  int group = static_cast<int>(threadIdx.x) % cuda::kWarp / 4, place = static_cast<int>(threadIdx.x) % 4;
  uint32_t queries[kWidth / 16][4];
  Softmax<kSums> softmax[2];

  // Rows first … first + count of u; the others are zeros.
  __device__ void load(const Tiles& t, int64_t first, int count, int64_t head) {
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = group + i % 2 * 8, column = 16 * k + i / 2 * 8 + 2 * place;
        queries[k][i] = 0;
        if (row < count && column < t.width)
          queries[k][i] = *reinterpret_cast<const uint32_t*>(t.u.row(first + row, head) + column);
      }
    }
  }

  __device__ void start() { softmax[0] = softmax[1] = {}; }

  // Takes `count` events, at least one.
  __device__ void take(const Stage<kWidth>& events, int count) {
    const int lane = static_cast<int>(threadIdx.x) % cuda::kWarp, row = lane % 8, matrix = lane / 8;
    float scores[kEvents / 8][4] = {};
#pragma unroll
    for (int e = 0; e < kEvents / 16; ++e) {
#pragma unroll
      for (int k = 0; k < kWidth / 16; ++k) {
        uint32_t keys[4];
        cuda::load_matrices(keys, &events[16 * e + matrix / 2 * 8 + row][16 * k + matrix % 2 * 8]);
        cuda::multiply_add(scores[2 * e], queries[k], keys[0], keys[1]);
        cuda::multiply_add(scores[2 * e + 1], queries[k], keys[2], keys[3]);
      }
    }
    if (count < kEvents) {
#pragma unroll
      for (int e = 0; e < kEvents / 8; ++e) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (8 * e + 2 * place + i % 2 >= count) scores[e][i] = -INFINITY;
      }
    }
    uint32_t weights[kEvents / 8][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float largest = softmax[i].largest;
#pragma unroll
      for (int e = 0; e < kEvents / 8; ++e)
        largest = max(largest, max(scores[e][2 * i], scores[e][2 * i + 1]));
      largest = group_max(largest);
      const float before = exp2f((softmax[i].largest - largest) * kLog2e), shift = -largest * kLog2e;
      softmax[i].largest = largest;
      float sum = softmax[i].sum * before;
#pragma unroll
      for (int e = 0; e < kEvents / 8; ++e) {
        weights[e][i] = cuda::round_pair(exp2f(fmaf(scores[e][2 * i], kLog2e, shift)),
                                         exp2f(fmaf(scores[e][2 * i + 1], kLog2e, shift)));
        sum += cuda::lower_of(weights[e][i]) + cuda::upper_of(weights[e][i]);
      }
      softmax[i].sum = sum;
#pragma unroll
      for (int k = 0; k < kSums; ++k) softmax[i].weighted[k] *= before;
    }
#pragma unroll
    for (int e = 0; e < kEvents / 16; ++e) {
      const uint32_t p[4] = {weights[2 * e][0], weights[2 * e][1], weights[2 * e + 1][0],
                             weights[2 * e + 1][1]};
#pragma unroll
      for (int k = 0; k < kWidth / 16; ++k) {
        uint32_t values[4];
        cuda::load_transposed(values, &events[16 * e + matrix % 2 * 8 + row][16 * k + matrix / 2 * 8]);
        add(4 * k, p, values[0], values[1]);
        add(4 * k + 2, p, values[2], values[3]);
      }
    }
  }

  __device__ void finish() {
#pragma unroll
    for (int i = 0; i < 2; ++i) softmax[i].sum = group_sum(softmax[i].sum);
  }

  // Calls f(softmax, row) for the rows of this lane that there are.
  template <class F>
  __device__ void for_rows(int count, F f) const {
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (group + 8 * i < count) f(softmax[i], group + 8 * i);
  }
  // Calls f(column, i) for the columns that weighted[i] and the next are of.
  template <class F>
  __device__ void for_columns(int width, F f) const {
#pragma unroll
    for (int i = 0; i < kSums; i += 2)
      if (4 * i + 2 * place < width) f(4 * i + 2 * place, i);
  }

 private:
  // Weighted sums of 8 columns: weighted[at] and the next.
  __device__ void add(int at, const uint32_t (&p)[4], uint32_t b0, uint32_t b1) {
    float c[4] = {softmax[0].weighted[at], softmax[0].weighted[at + 1], softmax[1].weighted[at],
                  softmax[1].weighted[at + 1]};
    cuda::multiply_add(c, p, b0, b1);
    softmax[0].weighted[at] = c[0], softmax[0].weighted[at + 1] = c[1];
    softmax[1].weighted[at] = c[2], softmax[1].weighted[at + 1] = c[3];
  }
};

template <int kWidth, bool kSplit>
__global__ void __launch_bounds__(kTileThreads, kWidth <= 64 ? 3 : 2)
    attend_tiles(const __grid_constant__ Tiles t) {
  alignas(16) __shared__ Stage<kWidth> stages[2];
  const int64_t slot = blockIdx.x % t.slots, head = blockIdx.x / t.slots % t.heads;
  const int64_t chunk = blockIdx.x / t.slots / t.heads;  // 0 without kSplit
  const int64_t r = t.bounds.request_of_tile(slot, kTileRows);
  const Request request = t.bounds.request(r);
  const int64_t in_request = (slot - t.bounds.first_tile(r, kTileRows)) * kTileRows;
  const int64_t length = chunk_length(request.events), begin = chunk * length;
  if (in_request >= request.candidates || (begin > 0 && begin >= request.events)) return;
  const int events = static_cast<int>(kSplit ? min(length, request.events - begin) : request.events);
  const int whole = static_cast<int>(length);

  // This warp's; with none it only helps to copy.
  const int64_t row = in_request + static_cast<int>(threadIdx.x) / cuda::kWarp * kWarpRows;
  const int64_t first = request.candidates_begin + row;
  const int count = static_cast<int>(min(request.candidates - row, int64_t{kWarpRows}));
  Rows16<kWidth> rows;
  rows.load(t, first, count, head);
  Softmax<Rows16<kWidth>::kSums> totals[2];  // of the chunks before this one

  const bfloat16* from = t.h.row(request.events_begin + begin) + head * t.width;
  if (events > 0) start_copy<kWidth>(stages[0], from, t.h.row_stride, t.width, events);
  cuda::commit_copies();
  int now = 0;
  for (int at = 0; at < events; at += kEvents, now ^= 1) {
    if (events - at > kEvents) {
      from += kEvents * t.h.row_stride;
      start_copy<kWidth>(stages[now ^ 1], from, t.h.row_stride, t.width, events - at - kEvents);
    }
    cuda::commit_copies();  // maybe of nothing
    cuda::wait_for_copies<1>();
    __syncthreads();
    if (count > 0) {
      if (!kSplit && at > 0 && at % whole == 0) {
        rows.finish();
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (at == whole) {
            totals[i] = rows.softmax[i];
          } else {
            merge(totals[i], rows.softmax[i]);
          }
        }
        rows.start();
      }
      rows.take(stages[now], events - at);
    }
    __syncthreads();  // before the next copy into this stage
  }
  if (count <= 0) return;
  rows.finish();
  if (!kSplit && request.events > length) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      merge(totals[i], rows.softmax[i]);
      rows.softmax[i] = totals[i];
    }
  }
  if (kSplit && request.events > length) {
    rows.for_rows(count, [&](const auto& softmax, int i) {
      const int64_t place = t.place(chunk, first + i, head);
      if (rows.place == 0) t.softmax[place] = float2{softmax.largest, softmax.sum};
      rows.for_columns(t.width, [&](int column, int k) {
        *reinterpret_cast<float2*>(t.weighted + place * t.width + column) =
            float2{softmax.weighted[k], softmax.weighted[k + 1]};
      });
    });
    return;
  }
  rows.for_rows(count, [&](const auto& softmax, int i) {
    if (rows.place == 0) t.write_lse(first + i, head, softmax.largest, softmax.sum);
    rows.for_columns(t.width, [&](int column, int k) {
      t.write(first + i, head, column, softmax.weighted[k], softmax.weighted[k + 1], softmax.sum);
    });
  });
}

template <int kWidth>
__global__ void __launch_bounds__(kTileThreads) combine_chunks(const __grid_constant__ Tiles t) {
  const int lane = static_cast<int>(threadIdx.x) % cuda::kWarp;
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / cuda::kWarp;
  const int64_t c = at / t.heads, head = at % t.heads;
  if (c >= t.u.batch) return;
  const Request request = t.bounds.request(
      last_at_most(t.bounds.offsets.requests, c, [&](int64_t r) { return t.bounds.candidate(r); }));
  const int64_t length = chunk_length(request.events), chunks = (request.events + length - 1) / length;
  if (chunks < 2 || c < request.candidates_begin || c >= request.candidates_begin + request.candidates)
    return;
  constexpr int kPairs = (kWidth + 63) / 64;  // of a lane, 64 columns apart
  const auto read = [&](int64_t chunk) {
    const int64_t place = t.place(chunk, c, head);
    const float2 numbers = t.softmax[place];
    Softmax<2 * kPairs> part{numbers.x, numbers.y};
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int column = 64 * i + 2 * lane;
      if (column >= t.width) continue;
      const float2 pair = *reinterpret_cast<const float2*>(t.weighted + place * t.width + column);
      part.weighted[2 * i] = pair.x, part.weighted[2 * i + 1] = pair.y;
    }
    return part;
  };
  auto total = read(0);
#pragma unroll 4
  for (int64_t chunk = 1; chunk < chunks; ++chunk) merge(total, read(chunk));
  if (lane == 0) t.write_lse(c, head, total.largest, total.sum);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int column = 64 * i + 2 * lane;
    if (column < t.width)
      t.write(c, head, column, total.weighted[2 * i], total.weighted[2 * i + 1], total.sum);
  }
}

}  // namespace

bool attend_by_tensor_cores(Cuda device, Mat<const bfloat16> u, Mat<const bfloat16> h, RequestOffsets offsets,
                            Mat<bfloat16> y, Mat<float> m, float* lse) {
  const bool fits = u.cols % 16 == 0 && u.cols <= 128 && cuda::vectorisable(u) && cuda::vectorisable(y) &&
                    (!m.data || cuda::vectorisable(m)) && cuda::vectorisable(h.data, u.cols, h.row_stride);
  if (!fits || offsets.requests == 0 || u.batch <= offsets.requests) return false;
  const Bounds bounds(offsets, u, h);
  const int64_t slots = bounds.tile_slots(kTileRows), tiles = slots * u.rows;
  // No history has more.
  const int64_t chunks = std::clamp<int64_t>(cuda::blocks(h.count(), kPart), 1, kMostParts);
  const bool split = chunks == 1 || tiles < kManyBlocks;
  const int64_t places = split && chunks > 1 ? chunks * u.count() : 0;
  const cuda::Scratch<float2> softmax(places);
  const cuda::Scratch<float> weighted(places * u.cols);
  const Tiles t{u, h, bounds, y, m, lse, slots, u.rows, static_cast<int>(u.cols), softmax, weighted};
  const auto go = [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    if (!split) return cuda::launch(device, attend_tiles<kWidth, false>, tiles, kTileThreads, 0, t);
    cuda::launch(device, attend_tiles<kWidth, true>, tiles * chunks, kTileThreads, 0, t);
    if (chunks > 1)
      cuda::launch(device, combine_chunks<kWidth>, cuda::blocks(u.count(), kWarps), kTileThreads, 0, t);
  };
  if (u.cols <= 16) {
    go(std::integral_constant<int, 16>{});
  } else if (u.cols <= 32) {
    go(std::integral_constant<int, 32>{});
  } else if (u.cols <= 64) {
    go(std::integral_constant<int, 64>{});
  } else {
    go(std::integral_constant<int, 128>{});
  }
  return true;
}

}  // namespace mixrec::kernel

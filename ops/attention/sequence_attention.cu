// Forward of sequence_attention()'s absorbed form on a device, bf16.
//
//   score_events     a block: up to 64 events of one request, over all of F in stages of 64 columns of gate, of up and of
//                    q, and over s in stages of 128 columns; a warp: 8 events (the columns of a product) by 16 heads.
//                    For s the left factor of a product is one row: u, at the head whose columns these are
//   weigh_events     a block: a request; softmax over its events: e^(score − largest) as two bf16 per head, summed as
//                    rounded, so that the weights of the sums below add up to one
//   sum_events       a block: a request and 128 columns of z, or 256 of s; walks its events 16 at a time
//
// Floor for one layer of MixFormer-small (512 requests × 512 events, F 2048, 16 heads of 64): each of the first and the
// last reads gate_up, 2.1 GB, and s, .54 GB: .64 ms at the copy rate of an H200.  A probe without s took .55 and .55 ms
// (3.9 TB/s), so .69 each were predicted.  Measured on an H200: .706 and .709 ms, .013 between them.  Tried: u read from
// memory by the lanes that need it, .80 for the first instead of .706; in the probe, all of q in shared memory .66-.80
// instead of .55, and 16-byte loads straight into registers .75-.86.
#include "mixrec/ops/attention/sequence_rows.cuh"

namespace mixrec::kernel {
namespace sequence {
namespace {

// ---- Scores. ----

constexpr int kTile = 64, kStageColumns = 64, kTileRow = 2 * kStageColumns + 8, kQueryRow = kStageColumns + 8;
constexpr int kScoreStages = 3, kScoreStage = kTile * kTileRow + kHeads * kQueryRow;
constexpr float kLog2e = 1.44269504f;

// The events of a block, and of them the ones that it takes at a time.
struct Tile {
  int64_t r, first;
  int count;

  static __device__ int64_t slot(const Events& e, int64_t r) { return event_at(e, r) / kTile + r; }
  static __device__ Tile of_block(const Events& e) {
    const int64_t r =
        attention::last_at_most(e.requests, blockIdx.x, [&](int64_t request) { return slot(e, request); });
    const History history = history_of(e, r);
    const int64_t before = (blockIdx.x - slot(e, r)) * kTile;
    return {r, history.begin + before, static_cast<int>(min(int64_t{kTile}, history.count - before))};
  }
};

__device__ inline void copy_stage(const Events& e, const Tile& tile, const bfloat16* q, int column,
                                  bfloat16* to) {
  const int hidden = static_cast<int>(e.hidden);
  const bfloat16* from = e.gate_up + tile.first * 2 * e.hidden;
#pragma unroll
  for (int i = 0; i < kTile * 2 * kStageColumns / 8 / kThreads; ++i) {
    const int piece = i * kThreads + static_cast<int>(threadIdx.x), row = piece / 16, x = piece % 16 * 8;
    const int at = column + x % kStageColumns;
    const bool exists = row < tile.count && at < hidden;
    cuda::copy_async(to + row * kTileRow + x,
                     exists ? from + row * 2 * e.hidden + (x < kStageColumns ? 0 : hidden) + at : from,
                     exists);
  }
  if (threadIdx.x < kHeads * kStageColumns / 8) {
    const int row = static_cast<int>(threadIdx.x) / 8, x = static_cast<int>(threadIdx.x) % 8 * 8;
    const bool exists = row < static_cast<int>(e.heads) && column + x < hidden;
    const bfloat16* query = q + (tile.r * e.heads + row) * e.hidden + column + x;
    cuda::copy_async(to + kTile * kTileRow + row * kQueryRow + x, exists ? query : q, exists);
  }
}

__device__ inline void copy_stage_of_s(const Events& e, const Tile& tile, const bfloat16* u, int column,
                                       bfloat16* to) {
  const int width = row_width(e);
  const bfloat16* from = e.s + tile.first * width;
#pragma unroll
  for (int i = 0; i < kTile * 2 * kStageColumns / 8 / kThreads; ++i) {
    const int piece = i * kThreads + static_cast<int>(threadIdx.x), row = piece / 16, x = piece % 16 * 8;
    const bool exists = row < tile.count && column + x < width;
    cuda::copy_async(to + row * kTileRow + x, exists ? from + row * width + column + x : from, exists);
  }
  if (threadIdx.x < 2 * kStageColumns / 8) {
    const int x = static_cast<int>(threadIdx.x) * 8;
    const bool exists = column + x < width;
    cuda::copy_async(to + kTile * kTileRow + x, exists ? u + tile.r * width + column + x : u, exists);
  }
}

// This warp's events of a stage into its scores.
__device__ inline void score_z(float (&scores)[4], const bfloat16* events, const bfloat16* queries,
                               int lane) {
#pragma unroll
  for (int k = 0; k < kStageColumns; k += 32) {
    uint32_t gate[4], up[4];
    const bfloat16* from = events + lane % 8 * kTileRow + k + lane / 8 * 8;
    cuda::load_matrices(gate, from);
    cuda::load_matrices(up, from + kStageColumns);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t q[4];
      cuda::load_matrices(q, queries + down_then_right(lane, kQueryRow) + k + 16 * i);
      cuda::multiply_add(scores, q, gated(gate[2 * i], up[2 * i]), gated(gate[2 * i + 1], up[2 * i + 1]));
    }
  }
}

__device__ inline void score_s(float (&scores)[4], const bfloat16* events, const bfloat16* u, int column,
                               int width, int row, const Lane& me) {
#pragma unroll
  for (int k = 0; k < 2 * kStageColumns; k += 32) {
    uint32_t s[4];
    cuda::load_matrices(s, events + me.lane % 8 * kTileRow + k + me.lane / 8 * 8);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = column + k + 16 * i;
      if (at >= row) continue;
      const int head = at / width;
      uint32_t a[4] = {};
      if (head % 8 == me.group) {
        const auto* words = reinterpret_cast<const uint32_t*>(u + k + 16 * i + 2 * me.place);
        const uint32_t first = words[0], second = words[4];
        if (head < 8) {
          a[0] = first, a[2] = second;
        } else {
          a[1] = first, a[3] = second;
        }
      }
      cuda::multiply_add(scores, a, s[2 * i], s[2 * i + 1]);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    score_tiles(const __grid_constant__ Events e, const bfloat16* u, const bfloat16* q, float* out) {
  extern __shared__ __align__(16) bfloat16 memory[];
  const Tile tile = Tile::of_block(e);
  if (tile.count <= 0) return;
  const int row = row_width(e), hidden = static_cast<int>(e.hidden);
  const int of_z = (hidden + kStageColumns - 1) / kStageColumns;
  const int steps = of_z + (row + 2 * kStageColumns - 1) / (2 * kStageColumns);
  const auto copy = [&](int step) {
    bfloat16* to = memory + step % kScoreStages * kScoreStage;
    if (step < of_z) {
      copy_stage(e, tile, q, step * kStageColumns, to);
    } else if (step < steps) {
      copy_stage_of_s(e, tile, u, (step - of_z) * 2 * kStageColumns, to);
    }
    cuda::commit_copies();  // maybe of nothing
  };
  for (int i = 0; i < kScoreStages - 1; ++i) copy(i);
  const Lane me;
  const int warp = static_cast<int>(threadIdx.x) / cuda::kWarp;
  float scores[4] = {};
  for (int step = 0; step < steps; ++step) {
    cuda::wait_for_copies<kScoreStages - 2>();
    __syncthreads();
    copy(step + kScoreStages - 1);
    const bfloat16* stage = memory + step % kScoreStages * kScoreStage;
    const bfloat16* events = stage + warp * 8 * kTileRow;
    if (step < of_z) {
      score_z(scores, events, stage + kTile * kTileRow, me.lane);
    } else {
      score_s(scores, events, stage + kTile * kTileRow, (step - of_z) * 2 * kStageColumns,
              static_cast<int>(e.width), row, me);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int event = warp * 8 + 2 * me.place + i % 2;
    if (event < tile.count) out[(tile.first + event) * kHeads + me.group + i / 2 * 8] = scores[i];
  }
}

// ---- Softmax. ----

// Over the threads that have the same head, for all of them; in the order of their events.
template <class F>
__device__ inline float over_events(float value, F f) {
  __shared__ float parts[kThreads];
  __syncthreads();  // readers of the last call are done
  parts[threadIdx.x] = value;
  __syncthreads();
  float total = parts[threadIdx.x % kHeads];
#pragma unroll
  for (int i = 1; i < kThreads / kHeads; ++i) total = f(total, parts[i * kHeads + threadIdx.x % kHeads]);
  return total;
}

__global__ void __launch_bounds__(kThreads)
    weigh_events(const __grid_constant__ Events e, const float* scores, bfloat16* weights, float* scale) {
  const int64_t r = blockIdx.x;
  const History history = history_of(e, r);
  const int head = static_cast<int>(threadIdx.x) % kHeads, first = static_cast<int>(threadIdx.x) / kHeads;
  scores += history.begin * kHeads + head, weights += history.begin * 2 * kHeads + head;
  float largest = -INFINITY;
#pragma unroll 8
  for (int t = first; t < history.count; t += kThreads / kHeads)
    largest = fmaxf(largest, scores[int64_t{t} * kHeads]);
  largest = over_events(largest, [](float a, float b) { return fmaxf(a, b); });
  float sum = 0;
#pragma unroll 8
  for (int t = first; t < history.count; t += kThreads / kHeads) {
    const Halves weight(exp2f((scores[int64_t{t} * kHeads] - largest) * kLog2e));
    weights[int64_t{t} * 2 * kHeads] = weight.first;
    weights[int64_t{t} * 2 * kHeads + kHeads] = weight.rest;
    sum += static_cast<float>(weight.first) + static_cast<float>(weight.rest);
  }
  sum = over_events(sum, [](float a, float b) { return a + b; });
  if (first == 0) scale[r * kHeads + head] = history.count > 0 ? 1.f / sum : 0.f;
}

// ---- Weighted sums. ----

constexpr int kWeightRow = 2 * kHeads + 8, kSumStages = 4, kSumStage = kStep * (kRow + kWeightRow);

// The walk of a block that has columns of z, or of s.
template <bool kOfZ>
__device__ inline void walk(const Events& e, const State& state, Part part, bfloat16* memory) {
  part.of_z = kOfZ;  // as it is
  const History history = history_of(e, part.r);
  const int steps = (history.count + kStep - 1) / kStep;
  const auto copy = [&](int step) {
    bfloat16* to = memory + step % kSumStages * kSumStage;
    if (step < steps) {
      copy_step(e, part, history, step, to);
      copy_factors<2 * kHeads, kWeightRow>(state.weights, history, step, to + kStep * kRow);
    }
    cuda::commit_copies();  // maybe of nothing
  };
  for (int i = 0; i < kSumStages - 1; ++i) copy(i);
  const Lane me;
  const int in_part = static_cast<int>(threadIdx.x) / cuda::kWarp * (kOfZ ? kWarpColumns / 2 : kWarpColumns);
  ColumnSums sums;
  for (int step = 0; step < steps; ++step) {
    cuda::wait_for_copies<kSumStages - 2>();
    __syncthreads();
    copy(step + kSumStages - 1);
    const bfloat16* stage = memory + step % kSumStages * kSumStage;
    const ColumnSums::Factors weights(stage + kStep * kRow, kWeightRow, kHeads, me.lane);
    if (kOfZ) {
      sums.add_z(weights, stage + in_part, me.lane);
    } else {
      sums.add_s(weights, stage + in_part, me.lane);
    }
  }
  const float* scale = state.scale + part.r * kHeads;
  if (kOfZ) {
    sums.for_z(e, part.column + in_part, [&](int head, int column, float first, float second) {
      const int64_t at = (part.r * e.heads + head) * e.hidden + column;
      first *= scale[head], second *= scale[head];
      if (state.sums) *reinterpret_cast<float2*>(state.sums + at) = float2{first, second};
      *reinterpret_cast<uint32_t*>(state.rounded + at) = cuda::round_pair(first, second);
    });
  } else {
    sums.for_s(e, part.column + in_part, [&](int head, int column, float first, float second) {
      *reinterpret_cast<float2*>(state.direct + part.r * row_width(e) + column) =
          float2{first * scale[head], second * scale[head]};
    });
  }
}

__global__ void __launch_bounds__(kThreads)
    sum_events(const __grid_constant__ Events e, const __grid_constant__ State state) {
  extern __shared__ __align__(16) bfloat16 memory[];
  const Part part = Part::of_block(e);
  if (part.of_z) {
    walk<true>(e, state, part, memory);
  } else {
    walk<false>(e, state, part, memory);
  }
}

}  // namespace

void score_events(Cuda device, const Events& events, const bfloat16* direct, const bfloat16* vectors,
                  float* out) {
  constexpr size_t kShared = sizeof(bfloat16) * kScoreStages * kScoreStage;
  cuda::launch(device, score_tiles, events.events / kTile + events.requests, kThreads, kShared, events,
               direct, vectors, out);
}

}  // namespace sequence

void sequence_forward(Cuda device, const SequenceEvents<bfloat16>& events, const bfloat16* u,
                      const bfloat16* q, const SequenceState<bfloat16, bfloat16>& state) {
  using namespace sequence;
  const cuda::Scratch<float> scores(events.events * kHeads);
  score_events(device, events, u, q, scores);
  cuda::launch(device, weigh_events, events.requests, kThreads, 0, events, scores.data(), state.weights,
               state.scale);
  constexpr size_t kShared = sizeof(bfloat16) * kSumStages * kSumStage;
  cuda::launch(device, sum_events, events.requests * Part::count(events), kThreads, kShared, events, state);
}

}  // namespace mixrec::kernel

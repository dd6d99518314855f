// Backward of sequence_attention()'s absorbed form on a device, bf16.
//
//   score_events          as in the forward, with p for q and dm for u: g of every event and head
//   make_factors          a block: a request; D, then α and δ of its events, each as two bf16: 64 numbers per event
//   take_back             a block: a request and 128 columns of z, or 256 of s; walks its events 16 at a time.  Of z it adds
//                         up B = Σ δ z, makes dz = [α δ] [p; q] (a product of depth 32, twice) and from it the gradients of gate
//                         and up, in shared memory over gate and up, from where they go over gate_up.  Of s it adds up
//                         Σ δ s and writes α dm + δ u
//
// D comes from A in f32 with the p that g was made with, as rounded: otherwise Σ δ would not vanish.
//
// Floor for one layer of MixFormer-small (sizes in sequence_attention.cu): score_events .64 ms; take_back reads and writes
// gate_up and s, 5.4 GB: 1.27 ms at the copy rate of an H200.  The probe without s took .55 and 1.17-1.25 ms (256 columns
// per block: 1.38), so .69 and 1.5 were predicted.  Measured on an H200: .707 and 1.45 ms, .048 for make_factors (floor
// .035); one bf16 per factor instead of two took 1.43, and gradients of s were a quarter less exact.
#include "mixrec/ops/attention/sequence_rows.cuh"

namespace mixrec::kernel {
namespace sequence {
namespace {

// Of an event: α of every head, δ, and what rounding leaves of either.
constexpr int kDelta = kHeads, kRests = 2 * kHeads, kFactors = 4 * kHeads;
constexpr int kFactorRow = kFactors + 8, kQueries = 2 * kHeads, kQueryRow = kColumns + 8;
constexpr int kBlocks = 4;  // of a multiprocessor together
constexpr int kStages = 3, kStage = kStep * (kRow + kFactorRow);

// What the backward reads and writes besides the events.
struct Backward {
  const bfloat16 *u, *q, *dm, *p;
  const float* g;     // [E, 16]
  bfloat16* factors;  // [E, 64]
  bfloat16* sums;     // [R, N, F]
  float* direct;      // [R, N·Ds]
  bfloat16* ds;       // [E, N·Ds]
  bool add;           // to what is in ds
};

// D of one head, by a warp.
__device__ inline float mean_gradient(const Events& e, const State& state, const Backward& b, int64_t row,
                                      int lane) {
  float total = 0;
  const float* sums = state.sums + row * e.hidden;
  const bfloat16* p = b.p + row * e.hidden;
#pragma unroll 4
  for (int64_t f = 4 * lane; f < e.hidden; f += 4 * cuda::kWarp) {
    const float4 a = *reinterpret_cast<const float4*>(sums + f);
    const uint2 w = *reinterpret_cast<const uint2*>(p + f);
    total = fmaf(a.x, cuda::lower_of(w.x), fmaf(a.y, cuda::upper_of(w.x), total));
    total = fmaf(a.z, cuda::lower_of(w.y), fmaf(a.w, cuda::upper_of(w.y), total));
  }
  const float* direct = state.direct + row * e.width;
  const bfloat16* dm = b.dm + row * e.width;
  for (int64_t d = lane; d < e.width; d += cuda::kWarp)
    total = fmaf(direct[d], static_cast<float>(dm[d]), total);
  return cuda::warp_sum(total);
}

__global__ void __launch_bounds__(kThreads)
    make_factors(const __grid_constant__ Events e, const __grid_constant__ State state,
                 const __grid_constant__ Backward b) {
  __shared__ float means[kHeads];
  const int64_t r = blockIdx.x;
  const History history = history_of(e, r);
  const int lane = static_cast<int>(threadIdx.x) % cuda::kWarp;
  for (int n = static_cast<int>(threadIdx.x) / cuda::kWarp; n < kHeads; n += kWarps) {
    const float mean =
        n < static_cast<int>(e.heads) ? mean_gradient(e, state, b, r * e.heads + n, lane) : 0.f;
    if (lane == 0) means[n] = mean;
  }
  __syncthreads();
  const int head = static_cast<int>(threadIdx.x) % kHeads;
  const float scale = state.scale[r * kHeads + head], mean = means[head];
#pragma unroll 4
  for (int t = static_cast<int>(threadIdx.x) / kHeads; t < history.count; t += kThreads / kHeads) {
    const int64_t event = history.begin + t;
    const bfloat16* weight = state.weights + event * 2 * kHeads + head;
    const float alpha = (static_cast<float>(weight[0]) + static_cast<float>(weight[kHeads])) * scale;
    const Halves alphas(alpha), deltas(alpha * (b.g[event * kHeads + head] - mean));
    bfloat16* to = b.factors + event * kFactors + head;
    to[0] = alphas.first, to[kDelta] = deltas.first;
    to[kRests] = alphas.rest, to[kRests + kDelta] = deltas.rest;
  }
}

// Gradients of one gate and one up from that of their z.
__device__ inline void gate_backward(float gate, float up, float dz, float& dgate, float& dup) {
  const float sigmoid = fmaf(.5f, tanh_of(.5f * gate), .5f), silu = gate * sigmoid;
  dgate = dz * up * fmaf(silu, 1 - sigmoid, sigmoid);
  dup = dz * silu;
}

// This warp's 16 columns of z of a step: dz, and the gradients of gate and up over them.
__device__ inline void take_back_z(bfloat16* columns, const bfloat16* factors, const bfloat16* queries,
                                   const Lane& me) {
  const bfloat16* rows = factors + down_then_right(me.lane, kFactorRow);
  const bfloat16* vectors = queries + down_then_right(me.lane, kQueryRow);
  float dz[2][4] = {};
#pragma unroll
  for (int side = 0; side < 2; ++side) {  // α p, then δ q
    uint32_t vector[4];
    cuda::load_transposed(vector, vectors + side * kHeads * kQueryRow);
#pragma unroll
    for (int rest = 0; rest <= kRests; rest += kRests) {
      uint32_t factor[4];
      cuda::load_matrices(factor, rows + rest + side * kDelta);
      cuda::multiply_add(dz[0], factor, vector[0], vector[1]);
      cuda::multiply_add(dz[1], factor, vector[2], vector[3]);
    }
  }
  __syncwarp();  // all lanes have read what is written over below
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      auto* gates =
          reinterpret_cast<uint32_t*>(columns + (me.group + 8 * i) * kRow + 8 * half + 2 * me.place);
      auto* ups = gates + kColumns / 2;
      const uint32_t gate = *gates, up = *ups;
      float dgate[2], dup[2];
      gate_backward(cuda::lower_of(gate), cuda::lower_of(up), dz[half][2 * i], dgate[0], dup[0]);
      gate_backward(cuda::upper_of(gate), cuda::upper_of(up), dz[half][2 * i + 1], dgate[1], dup[1]);
      *gates = cuda::round_pair(dgate[0], dgate[1]);
      *ups = cuda::round_pair(dup[0], dup[1]);
    }
  }
}

// This warp's 32 columns of s of a step become α dm + δ u; a lane has two columns of every other event.
__device__ inline void take_back_s(bfloat16* columns, const bfloat16* factors, int head, float2 dm, float2 u,
                                   const Lane& me) {
  __syncwarp();  // all lanes have read what is written over below
#pragma unroll
  for (int event = me.lane / 16; event < kStep; event += 2) {
    const bfloat16* of_head = factors + event * kFactorRow + head;
    const float alpha = static_cast<float>(of_head[0]) + static_cast<float>(of_head[kRests]),
                delta = static_cast<float>(of_head[kDelta]) + static_cast<float>(of_head[kRests + kDelta]);
    *reinterpret_cast<uint32_t*>(columns + event * kRow + me.lane % 16 * 2) =
        cuda::round_pair(fmaf(alpha, dm.x, delta * u.x), fmaf(alpha, dm.y, delta * u.y));
  }
}

__device__ inline float2 pair_at(const bfloat16* from) {
  const uint32_t word = *reinterpret_cast<const uint32_t*>(from);
  return {cuda::lower_of(word), cuda::upper_of(word)};
}

__device__ inline uint4 sums_of_pairs(uint4 a, uint4 b) {
  const auto sum = [](uint32_t x, uint32_t y) {
    return cuda::round_pair(cuda::lower_of(x) + cuda::lower_of(y), cuda::upper_of(x) + cuda::upper_of(y));
  };
  return {sum(a.x, b.x), sum(a.y, b.y), sum(a.z, b.z), sum(a.w, b.w)};
}

// Writes a step from shared memory to where it came from, or to ds.
__device__ inline void store_step(const Events& e, const Part& part, const History& history, int step,
                                  const bfloat16* stage, const Backward& b) {
  const int64_t stride = part.of_z ? 2 * e.hidden : row_width(e);
  bfloat16* to = (part.of_z ? e.gate_up : b.ds) + history.begin * stride;
#pragma unroll
  for (int i = 0; i < kStep * 2 * kColumns / 8 / kThreads; ++i) {
    const int piece = i * kThreads + static_cast<int>(threadIdx.x);
    const int row = piece / (2 * kColumns / 8), x = piece % (2 * kColumns / 8) * 8;
    const int event = step * kStep + row;
    if (event >= history.count || !part.exists(e, x)) continue;
    auto* place = reinterpret_cast<uint4*>(to + event * stride + part.offset(e, x));
    uint4 values = *reinterpret_cast<const uint4*>(stage + row * kRow + x);
    if (!part.of_z && b.add) values = sums_of_pairs(*place, values);
    *place = values;
  }
}

// p above q, 32 rows of a block's columns; heads and columns that there are not are zeros.
__device__ inline void load_queries(const Events& e, const Part& part, const Backward& b, bfloat16* to) {
  for (int piece = static_cast<int>(threadIdx.x); piece < kQueries * kColumns / 8; piece += kThreads) {
    const int row = piece / (kColumns / 8), x = piece % (kColumns / 8) * 8, head = row % kHeads;
    const bool exists = head < static_cast<int>(e.heads) && part.exists(e, x);
    const bfloat16* from =
        (row < kHeads ? b.p : b.q) + (part.r * e.heads + head) * e.hidden + part.column + x;
    *reinterpret_cast<uint4*>(to + row * kQueryRow + x) =
        exists ? *reinterpret_cast<const uint4*>(from) : uint4{};
  }
}

// The walk of a block that has columns of z, or of s.
template <bool kOfZ>
__device__ inline void walk_back(const Events& e, const Backward& b, Part part, bfloat16* memory) {
  part.of_z = kOfZ;  // as it is
  const History history = history_of(e, part.r);
  const int steps = (history.count + kStep - 1) / kStep;
  const auto copy = [&](int step) {
    bfloat16* to = memory + step % kStages * kStage;
    if (step < steps) {
      copy_step(e, part, history, step, to);
      copy_factors<kFactors, kFactorRow>(b.factors, history, step, to + kStep * kRow);
    }
    cuda::commit_copies();  // maybe of nothing
  };
  for (int i = 0; i < kStages - 1; ++i) copy(i);
  bfloat16* queries = memory + kStages * kStage;
  if (kOfZ) load_queries(e, part, b, queries);

  const Lane me;
  const int in_part = static_cast<int>(threadIdx.x) / cuda::kWarp * (kOfZ ? kWarpColumns / 2 : kWarpColumns);
  // Of s: the two columns of a lane, and the head that they are of.
  const int own = min(part.column + in_part + me.lane % 16 * 2, row_width(e) - 2);
  const int head = own / static_cast<int>(e.width);
  float2 dm{}, u{};
  if (!kOfZ) dm = pair_at(b.dm + part.r * row_width(e) + own), u = pair_at(b.u + part.r * row_width(e) + own);
  ColumnSums sums;
  for (int step = 0; step < steps; ++step) {
    cuda::wait_for_copies<kStages - 2>();
    __syncthreads();
    copy(step + kStages - 1);
    bfloat16* stage = memory + step % kStages * kStage;
    const bfloat16* factors = stage + kStep * kRow;
    const ColumnSums::Factors deltas(factors + kDelta, kFactorRow, kRests, me.lane);
    if (kOfZ) {
      sums.add_z(deltas, stage + in_part, me.lane);
      take_back_z(stage + in_part, factors, queries + in_part, me);
    } else {
      sums.add_s(deltas, stage + in_part, me.lane);
      take_back_s(stage + in_part, factors, head, dm, u, me);
    }
    __syncthreads();
    store_step(e, part, history, step, stage, b);
  }
  if (kOfZ) {
    sums.for_z(e, part.column + in_part, [&](int n, int column, float first, float second) {
      *reinterpret_cast<uint32_t*>(b.sums + (part.r * e.heads + n) * e.hidden + column) =
          cuda::round_pair(first, second);
    });
  } else {
    sums.for_s(e, part.column + in_part, [&](int, int column, float first, float second) {
      *reinterpret_cast<float2*>(b.direct + part.r * row_width(e) + column) = float2{first, second};
    });
  }
}

__global__ void __launch_bounds__(kThreads, kBlocks)
    take_back(const __grid_constant__ Events e, const __grid_constant__ Backward b) {
  extern __shared__ __align__(16) bfloat16 memory[];
  const Part part = Part::of_block(e);
  if (part.of_z) {
    walk_back<true>(e, b, part, memory);
  } else {
    walk_back<false>(e, b, part, memory);
  }
}

}  // namespace
}  // namespace sequence

void sequence_backward(Cuda device, const SequenceEvents<bfloat16>& events, const bfloat16* u,
                       const bfloat16* q, const bfloat16* dm, const bfloat16* p,
                       const SequenceState<bfloat16, bfloat16>& state, bfloat16* sums, float* direct,
                       bfloat16* ds, bool add) {
  using namespace sequence;
  const cuda::Scratch<float> g(events.events * kHeads);
  const cuda::Scratch<bfloat16> factors(events.events * kFactors);
  score_events(device, events, dm, p, g);
  const Backward backward{u, q, dm, p, g, factors, sums, direct, ds, add};
  cuda::launch(device, make_factors, events.requests, kThreads, 0, events, state, backward);
  constexpr size_t kShared = sizeof(bfloat16) * (kStages * kStage + kQueries * kQueryRow);
  cuda::launch(device, take_back, events.requests * Part::count(events), kThreads, kShared, events, backward);
}

}  // namespace mixrec::kernel

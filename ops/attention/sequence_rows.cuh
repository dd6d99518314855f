// What the CUDA kernels of sequence_attention()'s absorbed form share: who works on which events, how z is remade from
// gate and up, and how products of the tensor cores read their operands.
//
// One layer of MixFormer's has 262,144 events of 8 KiB of gate_up and 2 KiB of s, and 16 queries per request: every pass
// is bound by memory, and tensor cores (16 heads are exactly one m16) keep the arithmetic below it.  Two passes over
// gate_up each way, because the softmax of a head needs the scores of all of F, and the weighted sums need the softmax.
#pragma once

#include "mixrec/core/cuda_launch.cuh"
#include "mixrec/core/cuda_mma.cuh"
#include "mixrec/ops/attention/attend_rows.cuh"
#include "mixrec/ops/attention/sequence_attention.h"

namespace mixrec::kernel::sequence {

inline constexpr int kHeads = 16;  // rows of a product; heads that there are not are zeros
inline constexpr int kThreads = 256, kWarps = kThreads / cuda::kWarp;

using Events = SequenceEvents<bfloat16>;
using State = SequenceState<bfloat16, bfloat16>;

// Columns of a row of s, or of all heads' u.
__host__ __device__ inline int row_width(const Events& e) { return static_cast<int>(e.heads * e.width); }

struct History {
  int64_t begin;
  int count;
};
// Of request r; offsets lead nowhere else than into the events, whatever they are.
__device__ inline int64_t event_at(const Events& e, int64_t r) {
  return min(max(e.history[r], int64_t{0}), e.events);
}
__device__ inline History history_of(const Events& e, int64_t r) {
  const int64_t begin = event_at(e, r);
  return {begin, static_cast<int>(max(event_at(e, r + 1) - begin, int64_t{0}))};
}

// Where this lane is in operands and results of a product, see core/cuda_mma.cuh.
struct Lane {
  int lane = static_cast<int>(threadIdx.x) % cuda::kWarp, group = lane / 4, place = lane % 4;
};

// silu(g) = h tanh(h) + h with h = g / 2: one instruction of the special-function unit.
__device__ inline float tanh_of(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float silu(float gate) {
  const float half = .5f * gate;
  return fmaf(half, tanh_of(half), half);
}
// z of two neighbours.
__device__ inline uint32_t gated(uint32_t gate, uint32_t up) {
  return cuda::round_pair(silu(cuda::lower_of(gate)) * cuda::lower_of(up),
                          silu(cuda::upper_of(gate)) * cuda::upper_of(up));
}

// ---- A pass over the events of one request, 16 at a time, by a block that has some columns of them. ----

inline constexpr int kStep = 16;               // events: the depth of a product
inline constexpr int kColumns = 128;           // of z by a block; of s twice as many
inline constexpr int kRow = 2 * kColumns + 8;  // gate beside up, or s; 8 more: rows lie in different banks

// Which columns a block has: of z [of_z] or of s.
struct Part {
  int64_t r;
  bool of_z;
  int column;

  static __host__ __device__ int of_hidden(const Events& e) {
    return static_cast<int>((e.hidden + kColumns - 1) / kColumns);
  }
  static __host__ __device__ int count(const Events& e) {
    return of_hidden(e) + (row_width(e) + 2 * kColumns - 1) / (2 * kColumns);
  }
  static __device__ Part of_block(const Events& e) {
    const int parts = count(e), part = static_cast<int>(blockIdx.x % static_cast<unsigned>(parts));
    const bool of_z = part < of_hidden(e);
    return {blockIdx.x / static_cast<unsigned>(parts), of_z,
            of_z ? part * kColumns : (part - of_hidden(e)) * 2 * kColumns};
  }
  // Calls f(element of a stage's row, where it lies in memory relative to the row of gate_up or s, whether it exists) for
  // the 8 columns that piece `x` of 2·kColumns / 8 starts.
  __device__ bool exists(const Events& e, int x) const {
    return of_z ? column + x % kColumns < static_cast<int>(e.hidden) : column + x < row_width(e);
  }
  __device__ int offset(const Events& e, int x) const {
    return of_z && x >= kColumns ? static_cast<int>(e.hidden) + column + x - kColumns : column + x;
  }
};

// Starts to copy step `step` of a part's columns of the events; what is not there becomes zeros.
__device__ inline void copy_step(const Events& e, const Part& part, const History& history, int step,
                                 bfloat16* to) {
  const int64_t stride = part.of_z ? 2 * e.hidden : row_width(e);
  const bfloat16* from = (part.of_z ? static_cast<const bfloat16*>(e.gate_up) : e.s) + history.begin * stride;
#pragma unroll
  for (int i = 0; i < kStep * 2 * kColumns / 8 / kThreads; ++i) {
    const int piece = i * kThreads + static_cast<int>(threadIdx.x);
    const int row = piece / (2 * kColumns / 8), x = piece % (2 * kColumns / 8) * 8;
    const int event = step * kStep + row;
    const bool exists = event < history.count && part.exists(e, x);
    cuda::copy_async(to + row * kRow + x, exists ? from + event * stride + part.offset(e, x) : from, exists);
  }
}
// The same for kCount numbers per event, in rows kPitch apart.
template <int kCount, int kPitch>
__device__ inline void copy_factors(const bfloat16* from, const History& history, int step, bfloat16* to) {
  constexpr int kPieces = kCount / 8;
  if (threadIdx.x >= kStep * kPieces) return;
  const int row = static_cast<int>(threadIdx.x) / kPieces, x = static_cast<int>(threadIdx.x) % kPieces * 8;
  const int event = step * kStep + row;
  const bool exists = event < history.count;
  cuda::copy_async(to + row * kPitch + x, exists ? from + (history.begin + event) * kCount + x : from,
                   exists);
}

// A lane's place in four 8 × 8 matrices that are side by side (x) and below each other: element offsets of what it gives
// load_matrices() and load_transposed().
__device__ inline int right_then_down(int lane, int pitch) {  // matrix 1 right of 0, 2 below 0
  return (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8;
}
__device__ inline int down_then_right(int lane, int pitch) {  // matrix 1 below 0, 2 right of 0
  return lane % 16 * pitch + lane / 16 * 8;
}

// Numbers in two bf16, the second what the first leaves: 16 bits of fraction at the price of one more product, which
// memory hides.
struct Halves {
  bfloat16 first, rest;

  __device__ explicit Halves(float x) : first(x), rest(x - static_cast<float>(first)) {}
};

// Sums over events of 16 heads' factors times this warp's columns: of z half as many as of s, and of s each head keeps
// its own.
inline constexpr int kWarpColumns = 2 * kColumns / kWarps;  // of s; of z half as many
struct ColumnSums {
  float at[kWarpColumns / 8][4] = {};

  // Factors of a step in shared memory, [event][head] in rows of `pitch`, their rests kRests to the right.
  struct Factors {
    uint32_t first[4], rest[4];

    __device__ Factors(const bfloat16* from, int pitch, int rests, int lane) {
      cuda::load_transposed(first, from + right_then_down(lane, pitch));
      cuda::load_transposed(rest, from + rests + right_then_down(lane, pitch));
    }
  };

  // columns: this warp's.
  __device__ void add_z(const Factors& factors, const bfloat16* columns, int lane) {
    uint32_t gate[4], up[4];
    const bfloat16* from = columns + down_then_right(lane, kRow);
    cuda::load_transposed(gate, from);
    cuda::load_transposed(up, from + kColumns);
#pragma unroll
    for (int n = 0; n < 2; ++n)
      add(n, factors, gated(gate[2 * n], up[2 * n]), gated(gate[2 * n + 1], up[2 * n + 1]));
  }
  __device__ void add_s(const Factors& factors, const bfloat16* columns, int lane) {
#pragma unroll
    for (int n = 0; n < kWarpColumns / 16; ++n) {
      uint32_t s[4];
      cuda::load_transposed(s, columns + down_then_right(lane, kRow) + 16 * n);
      add(2 * n, factors, s[0], s[1]);
      add(2 * n + 1, factors, s[2], s[3]);
    }
  }
  // Calls f(head, column, first, second) for pairs of columns of z that there are.
  template <class F>
  __device__ void for_z(const Events& e, int first_column, F f) const {
    const Lane me;
#pragma unroll
    for (int n = 0; n < kWarpColumns / 16; ++n) {
      const int column = first_column + 8 * n + 2 * me.place;
      if (column >= static_cast<int>(e.hidden)) continue;
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (me.group + 8 * i < static_cast<int>(e.heads))
          f(me.group + 8 * i, column, at[n][2 * i], at[n][2 * i + 1]);
    }
  }
  // Calls f(head, column, first, second) for pairs of columns of s, with the head that they are of.
  template <class F>
  __device__ void for_s(const Events& e, int first_column, F f) const {
    const Lane me;
#pragma unroll
    for (int n = 0; n < kWarpColumns / 8; ++n) {
      const int column = first_column + 8 * n + 2 * me.place;
      if (column >= row_width(e)) continue;
      const int head = column / static_cast<int>(e.width);
      if (head % 8 != me.group) continue;
      const bool lower = head >= 8;
      f(head, column, lower ? at[n][2] : at[n][0], lower ? at[n][3] : at[n][1]);
    }
  }

 private:
  __device__ void add(int n, const Factors& factors, uint32_t b0, uint32_t b1) {
    cuda::multiply_add(at[n], factors.first, b0, b1);
    cuda::multiply_add(at[n], factors.rest, b0, b1);
  }
};

// out[t, n] = z_t · vectors_n + s_t^n · direct^n for all events: [E, 16] (sequence_attention.cu).
void score_events(Cuda device, const Events& events, const bfloat16* direct, const bfloat16* vectors,
                  float* out);

}  // namespace mixrec::kernel::sequence

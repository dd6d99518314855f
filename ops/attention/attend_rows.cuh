// What attend()'s CUDA kernels share: how threads hold rows, how histories are cut up, who finds what.
//
// A lane holds 16 bytes of one head; the lanes of a head are a power of two of one warp, so a score is a
// product in registers and a few shuffles.  Whole warps side by side hold a row: they read it as it lies in
// memory.  A block takes `groups` rows at a time, and every group adds up its own rows; groups are put
// together in order at the end.  Heads that are wider than a warp so holds, or do not start at 16 bytes, have
// lanes with four such pieces, which are read element by element where they must.
//
// A history is cut into chunks of a length that depends on its own length alone, and chunks are put together
// in order: a candidate's bits depend on nothing but its query and its history.  Offsets are on the device,
// so the grid is made for the shapes: chunk j of request r is slot ⌊begin_r / kChunk⌋ + r + j.  Slots of
// different requests are apart, there are ⌊E / kChunk⌋ + R of them, and blocks of unused ones leave at once.
#pragma once

#include "mixrec/core/cuda_launch.cuh"
#include "mixrec/ops/attention/attend.h"

namespace mixrec::kernel::attention {

inline constexpr int kThreads = 256;           // of a block, at most
inline constexpr int64_t kChunk = 128;         // events, times what it takes to have no more chunks than
inline constexpr int64_t kMostChunks = 32;     // of one history
inline constexpr unsigned kAll = 0xffffffffu;  // lanes

// Rows that a thread has under way together.
template <int kPieces>
inline constexpr int kRows = kPieces == 1 ? 4 : 2;
// Candidates that share what is read of a history.
template <int kPieces>
inline constexpr int kTile = kPieces == 1 ? 4 : 1;

// ---- Which threads hold what. ----

struct Plan {
  int lanes;             // of a head
  int heads;             // of a block
  int row_threads;       // of a block's part of a row: whole warps
  int groups;            // rows that a block takes at a time
  unsigned head_groups;  // blocks that share a row
  int64_t total_heads, width;
  bool vectorised;  // all rows can be read in 16 bytes

  int threads() const { return row_threads * groups; }
  int64_t grid(int64_t places) const { return places * head_groups; }
};

template <class T>
Plan make_plan(int64_t heads, int64_t width, int pieces, bool vectorised) {
  Plan plan{};
  plan.lanes = 1;
  while (plan.lanes * pieces * cuda::Vec<T>::kSize < width) plan.lanes *= 2;
  const int64_t fit = std::min<int64_t>(heads, kThreads / plan.lanes);
  plan.head_groups = static_cast<unsigned>(cuda::blocks(heads, fit));
  plan.heads = static_cast<int>(cuda::blocks(heads, plan.head_groups));
  plan.row_threads = (plan.heads * plan.lanes + cuda::kWarp - 1) / cuda::kWarp * cuda::kWarp;
  plan.groups = std::max(kThreads / plan.row_threads, 1);
  plan.total_heads = heads;
  plan.width = width;
  plan.vectorised = vectorised;
  return plan;
}

// Calls f(std::integral_constant<int, kPieces>) for heads of this width.
template <class T, class F>
void with_pieces(int64_t width, bool vectorised, F f) {
  constexpr int64_t kWarpHolds = cuda::kWarp * cuda::Vec<T>::kSize;
  if (width <= kWarpHolds && vectorised) return f(std::integral_constant<int, 1>{});
  MR_CHECK(width <= 4 * kWarpHolds, "on a device a head may be at most ", 4 * kWarpHolds, " wide in ",
           dtype_of<T>, ", got ", width);
  f(std::integral_constant<int, 4>{});
}

template <class From, class A>
__device__ inline void widen(const cuda::Vec<From>& from, A* to) {
#pragma unroll
  for (int i = 0; i < cuda::Vec<From>::kSize; ++i) to[i] = static_cast<A>(from.at[i]);
}
// Two numbers a word: one instruction each, where one by one they take three for two.
__device__ inline void widen(const cuda::Vec<bfloat16>& from, float* to) {
  const auto words = __builtin_bit_cast(cuda::Vec<uint32_t>, from);
#pragma unroll
  for (int i = 0; i < cuda::Vec<uint32_t>::kSize; ++i) {
    to[2 * i] = __builtin_bit_cast(float, words.at[i] << 16);
    to[2 * i + 1] = __builtin_bit_cast(float, words.at[i] & 0xffff0000u);
  }
}

// One thread's share of every row: kHeld elements of `head`, in pieces of 16 bytes.
template <class T, int kPieces>
struct Thread {
  using A = acc_t<T>;
  static constexpr int kVec = cuda::Vec<T>::kSize, kHeld = kPieces * kVec;

  int group, groups, lane, lanes, width;
  int64_t head;
  bool exists;      // else it goes along, and writes nothing
  bool vectorised;  // one piece always is

  __device__ Thread(const Plan& plan, int64_t head_group)
      : group(static_cast<int>(threadIdx.x) / plan.row_threads),
        groups(plan.groups),
        lanes(plan.lanes),
        width(static_cast<int>(plan.width)),
        vectorised(plan.vectorised) {
    const int in_row = static_cast<int>(threadIdx.x) % plan.row_threads, local = in_row / lanes;
    lane = in_row % lanes;
    head = head_group * plan.heads + local;
    exists = local < plan.heads && head < plan.total_heads;
    if (!exists) head = plan.total_heads - 1;
  }

  __device__ bool in_vectors() const { return kPieces == 1 || vectorised; }
  __device__ bool writes() const { return exists && group == 0; }
  __device__ int column(int piece) const { return (piece * lanes + lane) * kVec; }

  // The share of the row of this head that starts at `from`.  Past the width are numbers without meaning.
  template <class From>
  __device__ void load(const From* from, A (&to)[kHeld]) const {
    constexpr int kWide = cuda::Vec<From>::kSize;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const int at = column(p);
      if (in_vectors()) {
        const From* piece = from + (at < width ? at : 0);
#pragma unroll
        for (int i = 0; i < kVec; i += kWide) {
          widen(cuda::load_vec(piece + i), to + p * kVec + i);
        }
      } else {
#pragma unroll
        for (int i = 0; i < kVec; ++i)
          to[p * kVec + i] = at + i < width ? static_cast<A>(from[at + i]) : A(0);
      }
    }
  }

  template <class To>
  __device__ void store(To* to, const A (&values)[kHeld]) const {
    constexpr int kWide = cuda::Vec<To>::kSize;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const int at = column(p);
      if (in_vectors()) {
        if (at >= width) continue;
#pragma unroll
        for (int i = 0; i < kVec; i += kWide) {
          cuda::Vec<To> vec;
#pragma unroll
          for (int j = 0; j < kWide; ++j) vec.at[j] = static_cast<To>(values[p * kVec + i + j]);
          cuda::store_vec(to + at + i, vec);
        }
      } else {
#pragma unroll
        for (int i = 0; i < kVec; ++i)
          if (at + i < width) to[at + i] = static_cast<To>(values[p * kVec + i]);
      }
    }
  }

  // This thread's part of a product over the width.
  __device__ A dot(const A (&a)[kHeld], const A (&b)[kHeld]) const {
    A total = 0;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      A part = a[p * kVec] * b[p * kVec];
#pragma unroll
      for (int i = 1; i < kVec; ++i) part = fma(a[p * kVec + i], b[p * kVec + i], part);
      if (column(p) >= width) part = 0;
      total = p == 0 ? part : total + part;
    }
    return total;
  }

  // Sums each number over the lanes of the head: side by side, as shuffles take long and branches too.
  template <int kCount>
  __device__ void sum_over_head(A (&values)[kCount]) const {
#pragma unroll
    for (int step = cuda::kWarp / 2; step > 0; step /= 2) {
      if (step >= lanes) continue;
#pragma unroll
      for (int i = 0; i < kCount; ++i) values[i] += __shfl_xor_sync(kAll, values[i], step);
    }
  }
};

// ---- What belongs to whom. ----

// The last of `count` places whose key is at most `target`.  Keys never fall, and the first one is.  All
// lanes of a warp search together.
template <class Key>
__device__ inline int64_t last_at_most(int64_t count, int64_t target, Key key) {
  int64_t low = 0, high = count;
  while (high - low > 1) {
    const int64_t step = (high - low + cuda::kWarp - 1) / cuda::kWarp;
    const int64_t probe = low + static_cast<int64_t>(threadIdx.x % cuda::kWarp) * step;
    const unsigned fits = __ballot_sync(kAll, probe < high && key(probe) <= target);
    low += max(31 - __clz(static_cast<int>(fits)), 0) * step;
    high = min(high, low + step);
  }
  return low;
}

struct Request {
  int64_t events_begin, events;
  int64_t candidates_begin, candidates;

  __device__ int64_t chunk() const {  // events of one
    return kChunk * max(int64_t{1}, (events + kChunk * kMostChunks - 1) / (kChunk * kMostChunks));
  }
  __device__ int64_t chunks() const { return (events + chunk() - 1) / chunk(); }
  __device__ bool has_chunk(int64_t number) const { return number * chunk() < events; }
};

// Offsets that lead nowhere else than into u and h, whatever they are.
struct Bounds {
  RequestOffsets offsets;
  int64_t events, candidates;

  template <class T>
  Bounds(RequestOffsets given, const Mat<T>& u, const Mat<T>& h)
      : offsets(given), events(h.count()), candidates(u.batch) {}

  int64_t chunk_slots() const { return events / kChunk + offsets.requests; }
  int64_t tile_slots(int64_t tile) const { return candidates / tile + offsets.requests; }

  __device__ int64_t event(int64_t r) const { return min(max(offsets.history[r], int64_t{0}), events); }
  __device__ int64_t candidate(int64_t r) const {
    return min(max(offsets.candidates[r], int64_t{0}), candidates);
  }
  __device__ Request request(int64_t r) const {
    const int64_t event_at = event(r), candidate_at = candidate(r);
    return {event_at, max(event(r + 1) - event_at, int64_t{0}), candidate_at,
            max(candidate(r + 1) - candidate_at, int64_t{0})};
  }

  __device__ int64_t first_chunk(int64_t r) const { return event(r) / kChunk + r; }  // its slot
  __device__ int64_t request_of_chunk(int64_t slot) const {
    return last_at_most(offsets.requests, slot, [&](int64_t r) { return first_chunk(r); });
  }
  // Tiles of candidates have slots like chunks of events.
  __device__ int64_t first_tile(int64_t r, int64_t tile) const { return candidate(r) / tile + r; }
  __device__ int64_t request_of_tile(int64_t slot, int64_t tile) const {
    return last_at_most(offsets.requests, slot, [&](int64_t r) { return first_tile(r, tile); });
  }
};

// Blocks that share a history report here when they have left their part in memory; the last to come puts the
// parts together, in the order of the chunks.  Which one that is cannot be seen in the numbers.
struct Arrivals {
  unsigned* counts;  // of each request and head group

  static int64_t size(const Plan& plan, const RequestOffsets& offsets) { return plan.grid(offsets.requests); }
  void clear(Cuda device, int64_t size) const {
    cuda::check(
        cudaMemsetAsync(counts, 0, static_cast<size_t>(size) * sizeof(unsigned), cuda::stream_of(device)),
        "clearing counts");
  }

  // Whether this block is the last of `blocks`; then it sees what the others wrote.  All threads call it.
  __device__ bool last(int64_t place, int64_t blocks) const {
    __shared__ bool is_last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) is_last = atomicAdd(counts + place, 1u) + 1 == blocks;
    __syncthreads();
    if (is_last) __threadfence();
    return is_last;
  }
};

// Events of one chunk, as rows of one thread's head.
template <class T>
struct Rows {
  T* data;
  int64_t stride;
  int count;

  __device__ T* operator[](int i) const { return data + i * stride; }
};

template <class T>
__device__ inline Rows<T> chunk_rows(const Mat<T>& h, const Request& request, int64_t chunk, int64_t column) {
  const int64_t begin = chunk * request.chunk();
  const int64_t count = min(request.events - begin, request.chunk());
  return {h.row(request.events_begin + begin) + column, h.row_stride, static_cast<int>(count)};
}

// Calls body(rows, first) until this thread has had its group's events of a chunk: rows first, first + groups,
// and so on.  Where the events end the last is there again.
template <class T, int kPieces, class Body>
__device__ inline void for_rows_together(const Thread<T, kPieces>& me, const Rows<const T>& events,
                                         Body body) {
  constexpr int kTogether = kRows<kPieces>;
  const int64_t step = me.groups * events.stride;
  const T* from = events[me.group];
  for (int first = me.group; first < events.count; first += me.groups * kTogether) {
    acc_t<T> rows[kTogether][Thread<T, kPieces>::kHeld];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      me.load(from, rows[i]);
      if (first + (i + 1) * me.groups < events.count) from += step;
    }
    body(rows, first);
  }
}

}  // namespace mixrec::kernel::attention

namespace mixrec::kernel {

// The forward where some request has several candidates, in bfloat16 with heads and rows of whole 16 bytes
// (attend_mma.cu).  Else it does nothing, and says so.
bool attend_by_tensor_cores(Cuda device, Mat<const bfloat16> u, Mat<const bfloat16> h, RequestOffsets offsets,
                            Mat<bfloat16> y, Mat<float> m, float* lse);

}  // namespace mixrec::kernel

// Forward of attend() on the device.  The history is read once: scores live in registers, and every thread
// keeps a running softmax (largest score, sum of weights, weighted sum of events) of its share of a head.
//
//   attend_chunks   a block: one chunk of the history of a request with one candidate.  Where that is all of
//                   it, the result; else a partial softmax, and the last of a history's blocks puts these
//                   together in the order of the chunks
//   attend_tiles    a block: up to kTile candidates of one request, over its whole history, chunk by chunk;
//                   launched only where some request has several candidates
//
// Both go through the same arithmetic in the same order, so that a candidate has the same bits alone and in
// company.
//
// Floor: E·N·Ds elements read; what is written and read again between chunks is a 64th of that in bf16.
// 4·N·Ds operations an event and candidate, about 70 instructions for 16 bytes: half of what the
// processors of an H100 can issue while these come from memory.  A block of 256 threads has 16 KiB under way.
// A product over tensor cores would not pay with one candidate a request: it is a vector by a matrix.  With
// more candidates than requests bfloat16 goes through attend_mma.cu.
#include "mixrec/ops/attention/attend_rows.cuh"

namespace mixrec::kernel {
namespace {

using namespace attention;

template <class A, int kHeld>
struct Softmax {
  A largest = -INFINITY, sum = 0;
  A weighted[kHeld] = {};
};

template <class A, int kHeld>
__device__ inline void merge(Softmax<A, kHeld>& total, const Softmax<A, kHeld>& part) {
  const A largest = max(total.largest, part.largest);
  const A before = exp(total.largest - largest), added = exp(part.largest - largest);
  total.largest = largest;
  total.sum = fma(part.sum, added, total.sum * before);
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    total.weighted[i] = fma(part.weighted[i], added, total.weighted[i] * before);
}

// Takes the events of a chunk that are this thread's into `softmax` of each query.
template <class T, int kPieces, int kQueries, int kHeld>
__device__ inline void take_chunk(const Thread<T, kPieces>& me, const Rows<const T>& events,
                                  const acc_t<T> (&queries)[kQueries][kHeld],
                                  Softmax<acc_t<T>, kHeld> (&softmax)[kQueries]) {
  using A = acc_t<T>;
  constexpr int kTogether = kRows<kPieces>;
  for_rows_together(me, events, [&](const A(&rows)[kTogether][kHeld], int first) {
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      A scores[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) scores[i] = me.dot(queries[q], rows[i]);
      me.sum_over_head(scores);
      A largest = softmax[q].largest;
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        if (first + i * me.groups >= events.count) scores[i] = -INFINITY;
        largest = max(largest, scores[i]);
      }
      const A before = exp(softmax[q].largest - largest);
      softmax[q].largest = largest;
      softmax[q].sum *= before;
#pragma unroll
      for (int k = 0; k < kHeld; ++k) softmax[q].weighted[k] *= before;
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const A weight = exp(scores[i] - largest);
        softmax[q].sum += weight;
#pragma unroll
        for (int k = 0; k < kHeld; ++k)
          softmax[q].weighted[k] = fma(weight, rows[i][k], softmax[q].weighted[k]);
      }
    }
  });
}

// Puts the groups of a block together, into the first group's.
template <class T, int kPieces, class A, int kHeld>
__device__ inline void merge_groups(const Thread<T, kPieces>& me, Softmax<A, kHeld>& softmax) {
  __shared__ A shared[kHeld + 2][kThreads];
  if (me.groups == 1) return;
  __syncthreads();  // readers of the last call are done
  if (me.group > 0) {
    shared[kHeld][threadIdx.x] = softmax.largest;
    shared[kHeld + 1][threadIdx.x] = softmax.sum;
#pragma unroll
    for (int k = 0; k < kHeld; ++k) shared[k][threadIdx.x] = softmax.weighted[k];
  }
  __syncthreads();
  if (me.group > 0) return;
  const unsigned row_threads = blockDim.x / static_cast<unsigned>(me.groups);
  for (unsigned from = threadIdx.x + row_threads; from < blockDim.x; from += row_threads) {
    Softmax<A, kHeld> part{shared[kHeld][from], shared[kHeld + 1][from]};
#pragma unroll
    for (int k = 0; k < kHeld; ++k) part.weighted[k] = shared[k][from];
    merge(softmax, part);
  }
}

// The softmaxes of chunks of longer histories: one a slot and head.
template <class T, int kPieces>
struct Partials {
  using A = acc_t<T>;
  static constexpr int kHeld = Thread<T, kPieces>::kHeld;

  A* largest;
  A* sum;
  A* weighted;  // kHeld numbers a lane: aligned for any width

  static int64_t size(const Plan& plan, int64_t slots) {
    return slots * plan.total_heads * (plan.lanes * kHeld + 2);
  }
  Partials(A* memory, const Plan& plan, int64_t slots)
      : largest(memory + slots * plan.total_heads * plan.lanes * kHeld),
        sum(largest + slots * plan.total_heads),
        weighted(memory) {}

  __device__ void write(const Thread<T, kPieces>& me, int64_t place, const Softmax<A, kHeld>& from) const {
    if (me.lane == 0) largest[place] = from.largest, sum[place] = from.sum;
    A* to = weighted + (place * me.lanes + me.lane) * kHeld;
    constexpr int kWide = cuda::Vec<A>::kSize;
#pragma unroll
    for (int k = 0; k < kHeld; k += kWide) {
      cuda::Vec<A> vec;
#pragma unroll
      for (int i = 0; i < kWide; ++i) vec.at[i] = from.weighted[k + i];
      cuda::store_vec(to + k, vec);
    }
  }
  __device__ Softmax<A, kHeld> read(const Thread<T, kPieces>& me, int64_t place) const {
    Softmax<A, kHeld> to{largest[place], sum[place]};
    const A* from = weighted + (place * me.lanes + me.lane) * kHeld;
    constexpr int kWide = cuda::Vec<A>::kSize;
#pragma unroll
    for (int k = 0; k < kHeld; k += kWide) {
      const auto vec = cuda::load_vec(from + k);
#pragma unroll
      for (int i = 0; i < kWide; ++i) to.weighted[k + i] = vec.at[i];
    }
    return to;
  }
};

// What the kernels read and write.
template <class T>
struct Forward {
  Mat<const T> u, h;
  Bounds bounds;
  Plan plan;
  Mat<T> y;
  Mat<acc_t<T>> m;  // or without data
  acc_t<T>* lse;    // or null
  bool tiled;       // attend_tiles takes requests with several candidates

  template <int kPieces, int kHeld>
  __device__ void write(const Thread<T, kPieces>& me, int64_t c, const Softmax<acc_t<T>, kHeld>& from) const {
    using A = acc_t<T>;
    const bool any = from.sum > 0 || from.sum != from.sum;  // NaN stays to be seen
    const A scale = any ? A(1) / from.sum : A(0);
    A mean[kHeld];
#pragma unroll
    for (int k = 0; k < kHeld; ++k) mean[k] = from.weighted[k] * scale;
    me.store(y.row(c, me.head), mean);
    if (m.data) me.store(m.row(c, me.head), mean);
    if (lse && me.lane == 0) lse[c * plan.total_heads + me.head] = any ? from.largest + log(from.sum) : A(0);
  }
};

// Candidates first .. first + count of a request, over all of its history.
template <int kPieces, int kQueries, class T>
__device__ inline void whole_history(const Forward<T>& f, const Thread<T, kPieces>& me,
                                     const Request& request, int64_t first, int count) {
  using A = acc_t<T>;
  constexpr int kHeld = Thread<T, kPieces>::kHeld;
  A queries[kQueries][kHeld];
#pragma unroll
  for (int q = 0; q < kQueries; ++q) me.load(f.u.row(first + min(q, count - 1), me.head), queries[q]);
  Softmax<A, kHeld> totals[kQueries];
  for (int64_t chunk = 0; chunk < request.chunks(); ++chunk) {
    Softmax<A, kHeld> parts[kQueries];
    take_chunk(me, chunk_rows(f.h, request, chunk, me.head * me.width), queries, parts);
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      merge_groups(me, parts[q]);
      if (me.group > 0) continue;
      if (chunk == 0) {
        totals[q] = parts[q];
      } else {
        merge(totals[q], parts[q]);
      }
    }
  }
  if (!me.writes()) return;
#pragma unroll
  for (int q = 0; q < kQueries; ++q)
    if (q < count) f.write(me, first + q, totals[q]);
}

// The candidates of a request one by one: where some requests have several, and others none.  Out of line: the
// registers of attend_chunks are for what it mostly does.
template <class T, int kPieces>
__device__ __noinline__ void one_by_one(const Forward<T>& f, const Request& request, int64_t head_group) {
  const Thread<T, kPieces> me(f.plan, head_group);
  for (int64_t c = 0; c < request.candidates; ++c)
    whole_history<kPieces, 1>(f, me, request, request.candidates_begin + c, 1);
}

template <class T, int kPieces>
__global__ void __launch_bounds__(kThreads, kPieces == 1 ? 3 : 1)
    attend_chunks(const __grid_constant__ Forward<T> f, Partials<T, kPieces> partials, Arrivals arrivals) {
  using A = acc_t<T>;
  constexpr int kHeld = Thread<T, kPieces>::kHeld;
  const int64_t slot = blockIdx.x / f.plan.head_groups, head_group = blockIdx.x % f.plan.head_groups;
  const int64_t r = f.bounds.request_of_chunk(slot);
  const Request request = f.bounds.request(r);
  const int64_t chunk = slot - f.bounds.first_chunk(r);
  if (chunk > 0 && !request.has_chunk(chunk)) return;
  if (request.candidates != 1) {
    if (chunk == 0 && !f.tiled) one_by_one<T, kPieces>(f, request, head_group);
    return;
  }
  const Thread<T, kPieces> me(f.plan, head_group);
  Softmax<A, kHeld> softmax[1];
  if (request.events > 0) {
    A query[1][kHeld];
    me.load(f.u.row(request.candidates_begin, me.head), query[0]);
    take_chunk(me, chunk_rows(f.h, request, chunk, me.head * me.width), query, softmax);
    merge_groups(me, softmax[0]);
  }
  if (!request.has_chunk(1)) {
    if (me.writes()) f.write(me, request.candidates_begin, softmax[0]);
    return;
  }
  if (me.writes()) partials.write(me, slot * f.plan.total_heads + me.head, softmax[0]);
  if (!arrivals.last(r * f.plan.head_groups + head_group, request.chunks()) || !me.writes()) return;
  const int64_t place = f.bounds.first_chunk(r) * f.plan.total_heads + me.head;
  Softmax<A, kHeld> total = partials.read(me, place);
#pragma unroll 2
  for (int64_t other = 1; other < request.chunks(); ++other)
    merge(total, partials.read(me, place + other * f.plan.total_heads));
  f.write(me, request.candidates_begin, total);
}

template <class T, int kPieces>
__global__ void __launch_bounds__(kThreads) attend_tiles(const __grid_constant__ Forward<T> f) {
  const int64_t slot = blockIdx.x / f.plan.head_groups;
  const int64_t r = f.bounds.request_of_tile(slot, kTile<kPieces>);
  const Request request = f.bounds.request(r);
  const int64_t first = (slot - f.bounds.first_tile(r, kTile<kPieces>)) * kTile<kPieces>;
  if (request.candidates < 2 || first >= request.candidates) return;
  const Thread<T, kPieces> me(f.plan, blockIdx.x % f.plan.head_groups);
  const int count = static_cast<int>(min(request.candidates - first, int64_t{kTile<kPieces>}));
  whole_history<kPieces, kTile<kPieces>>(f, me, request, request.candidates_begin + first, count);
}

}  // namespace

template <class T>
void attend(Cuda device, Mat<const T> u, Mat<const T> h, RequestOffsets offsets, Mat<T> y, Mat<acc_t<T>> m,
            acc_t<T>* lse) {
  if (u.count() == 0 || u.cols == 0) return;
  if constexpr (std::is_same_v<T, bfloat16>) {
    if (attend_by_tensor_cores(device, u, h, offsets, y, m, lse)) return;
  }
  const bool vectorised = cuda::vectorisable(u) && cuda::vectorisable(y) &&
                          (!m.data || cuda::vectorisable(m)) &&
                          cuda::vectorisable(h.data, u.cols, h.row_stride);
  with_pieces<T>(u.cols, vectorised, [&](auto pieces) {
    constexpr int kPieces = decltype(pieces)::value;
    const Plan plan = make_plan<T>(u.rows, u.cols, kPieces, vectorised);
    // More candidates than requests: some request has several.
    const bool tiled = u.batch > offsets.requests;
    const Forward<T> f{u, h, Bounds(offsets, u, h), plan, y, m, lse, tiled};
    const int64_t slots = f.bounds.chunk_slots();
    const bool cut = h.count() > kChunk;  // else no history has a second chunk
    const int64_t places = cut ? Arrivals::size(plan, offsets) : 0;
    const cuda::Scratch<acc_t<T>> memory(cut ? Partials<T, kPieces>::size(plan, slots) : 0);
    const cuda::Scratch<unsigned> counts(places);
    const Partials<T, kPieces> partials(memory, plan, slots);
    const Arrivals arrivals{counts};
    if (cut) arrivals.clear(device, places);
    cuda::launch(device, attend_chunks<T, kPieces>, plan.grid(slots), plan.threads(), 0, f, partials,
                 arrivals);
    if (tiled)
      cuda::launch(device, attend_tiles<T, kPieces>, plan.grid(f.bounds.tile_slots(kTile<kPieces>)),
                   plan.threads(), 0, f);
  });
}

#define MR_INSTANTIATE(T) \
  template void attend(Cuda, Mat<const T>, Mat<const T>, RequestOffsets, Mat<T>, Mat<acc_t<T>>, acc_t<T>*)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

// Backward of attend() on the device.  Weights are recomputed from the saved log-sum-exp.
//
//   back_through_chunks   a block: one chunk of a history.  With one candidate, everything in one pass: dh is
//                         written, du is summed in registers; the last of a history's blocks adds these up in
//                         the order of the chunks.  Else dh alone, summed over the candidates in order
//   back_to_queries       a block: up to kTile candidates of one request -> du, over its whole history;
//                         launched only where some request has several candidates
//
// As in the forward, du of a candidate has the same bits alone and in company.
//
// Floor: E·N·Ds elements read and as many written.  8·N·Ds operations an event and candidate, about 110
// instructions for 16 bytes in and 16 out: a third of what an H100 can issue in that time.
#include "mixrec/ops/attention/attend_rows.cuh"

namespace mixrec::kernel {
namespace {

using namespace attention;

// A candidate's numbers, in one thread: its share of u and dm, and what its head has one of.
template <class A, int kHeld>
struct Query {
  A u[kHeld], dm[kHeld];
  A lse, mean;  // mean = dm · m
};

template <class A, int kHeld>
struct Sum {
  A of[kHeld] = {};
};

// How much an event counts.
template <class A>
struct Slopes {
  A weight, ds;
};

// What the kernels read and write.
template <class T>
struct Backward {
  Mat<const T> u, h;
  Bounds bounds;
  Plan plan;
  Mat<const acc_t<T>> m;
  const acc_t<T>* lse;
  Mat<const T> dm;
  Mat<T> du, dh;
  bool tiled;  // back_to_queries takes requests with several candidates

  template <int kPieces, int kHeld>
  __device__ void read(const Thread<T, kPieces>& me, int64_t c, Query<acc_t<T>, kHeld>& to) const {
    me.load(u.row(c, me.head), to.u);
    me.load(dm.row(c, me.head), to.dm);
    to.lse = lse[c * plan.total_heads + me.head];
    acc_t<T> average[kHeld];
    me.load(m.row(c, me.head), average);
    acc_t<T> mean[1] = {me.dot(to.dm, average)};
    me.sum_over_head(mean);
    to.mean = mean[0];
  }
};

// Slopes of the rows of for_rows_together(); one that is there again counts nothing.
template <class T, int kPieces, int kTogether, int kHeld>
__device__ inline void find_slopes(const Thread<T, kPieces>& me, const Query<acc_t<T>, kHeld>& query,
                                   const acc_t<T> (&rows)[kTogether][kHeld], int first, int count,
                                   Slopes<acc_t<T>> (&slopes)[kTogether]) {
  using A = acc_t<T>;
  A products[2 * kTogether];  // with u, then with dm
#pragma unroll
  for (int i = 0; i < kTogether; ++i) {
    products[i] = me.dot(query.u, rows[i]);
    products[kTogether + i] = me.dot(query.dm, rows[i]);
  }
  me.sum_over_head(products);
#pragma unroll
  for (int i = 0; i < kTogether; ++i) {
    A weight = exp(products[i] - query.lse);
    if (first + i * me.groups >= count) weight = 0;
    slopes[i] = {weight, weight * (products[kTogether + i] - query.mean)};
  }
}

// du += Σ ds h
template <class A, int kTogether, int kHeld>
__device__ inline void add_to_query(const Slopes<A> (&slopes)[kTogether], const A (&rows)[kTogether][kHeld],
                                    Sum<A, kHeld>& du) {
#pragma unroll
  for (int i = 0; i < kTogether; ++i) {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) du.of[k] = fma(slopes[i].ds, rows[i][k], du.of[k]);
  }
}

// Adds up what the groups of a block have, in the first group.
template <class T, int kPieces, class A, int kHeld>
__device__ inline void merge_groups(const Thread<T, kPieces>& me, Sum<A, kHeld>& sum) {
  __shared__ A shared[kHeld][kThreads];
  if (me.groups == 1) return;
  __syncthreads();  // readers of the last call are done
#pragma unroll
  for (int k = 0; k < kHeld; ++k) shared[k][threadIdx.x] = sum.of[k];
  __syncthreads();
  if (me.group > 0) return;
  const unsigned row_threads = blockDim.x / static_cast<unsigned>(me.groups);
  for (unsigned from = threadIdx.x + row_threads; from < blockDim.x; from += row_threads) {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) sum.of[k] += shared[k][from];
  }
}

// du of chunks of longer histories: kHeld numbers for each slot, head and lane.
template <class T, int kPieces>
struct Partials {
  using A = acc_t<T>;
  static constexpr int kHeld = Thread<T, kPieces>::kHeld, kWide = cuda::Vec<A>::kSize;

  A* sums;

  static int64_t size(const Plan& plan, int64_t slots) {
    return slots * plan.total_heads * plan.lanes * kHeld;
  }

  __device__ void write(const Thread<T, kPieces>& me, int64_t place, const Sum<A, kHeld>& from) const {
    auto* to = reinterpret_cast<cuda::Vec<A>*>(sums + (place * me.lanes + me.lane) * kHeld);
#pragma unroll
    for (int k = 0; k < kHeld; k += kWide) {
      cuda::Vec<A> vec;
#pragma unroll
      for (int i = 0; i < kWide; ++i) vec.at[i] = from.of[k + i];
      to[k / kWide] = vec;
    }
  }
  __device__ void add(const Thread<T, kPieces>& me, int64_t place, Sum<A, kHeld>& to) const {
    const A* from = sums + (place * me.lanes + me.lane) * kHeld;
#pragma unroll
    for (int k = 0; k < kHeld; k += kWide) {
      const auto vec = cuda::load_vec(from + k);
#pragma unroll
      for (int i = 0; i < kWide; ++i) to.of[k + i] += vec.at[i];
    }
  }
};

// The events of a chunk for one candidate: writes dh, adds to du.
template <class T, int kPieces, int kHeld>
__device__ inline void through_one(const Backward<T>& b, const Thread<T, kPieces>& me, Rows<const T> events,
                                   Rows<T> dh, const Query<acc_t<T>, kHeld>& query,
                                   Sum<acc_t<T>, kHeld>& du) {
  using A = acc_t<T>;
  constexpr int kTogether = kRows<kPieces>;
  const int64_t step = me.groups * dh.stride;
  for_rows_together(me, events, [&](const A(&rows)[kTogether][kHeld], int first) {
    Slopes<A> slopes[kTogether];
    find_slopes(me, query, rows, first, events.count, slopes);
    add_to_query(slopes, rows, du);
    if (!b.dh.data || !me.exists) return;
    T* to = dh[first];
#pragma unroll
    for (int i = 0; i < kTogether; ++i, to += step) {
      if (first + i * me.groups >= events.count) break;
      A slope[kHeld];
#pragma unroll
      for (int k = 0; k < kHeld; ++k)
        slope[k] = fma(slopes[i].ds, query.u[k], slopes[i].weight * query.dm[k]);
      me.store(to, slope);
    }
  });
}

// dh of the events of a chunk, for any number of candidates.
template <class T, int kPieces>
__device__ inline void through_many(const Backward<T>& b, const Thread<T, kPieces>& me, Rows<const T> events,
                                    Rows<T> dh, const Request& request) {
  using A = acc_t<T>;
  constexpr int kTogether = kRows<kPieces>, kHeld = Thread<T, kPieces>::kHeld;
  for_rows_together(me, events, [&](const A(&rows)[kTogether][kHeld], int first) {
    A slope[kTogether][kHeld] = {};
    for (int64_t c = 0; c < request.candidates; ++c) {
      Query<A, kHeld> query;
      b.read(me, request.candidates_begin + c, query);
      Slopes<A> slopes[kTogether];
      find_slopes(me, query, rows, first, events.count, slopes);
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
#pragma unroll
        for (int k = 0; k < kHeld; ++k)
          slope[i][k] = fma(slopes[i].ds, query.u[k], fma(slopes[i].weight, query.dm[k], slope[i][k]));
      }
    }
    if (!me.exists) return;
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      if (first + i * me.groups < events.count) me.store(dh[first + i * me.groups], slope[i]);
  });
}

// du of candidates first .. first + count of a request, over all of its history.
template <int kPieces, int kQueries, class T>
__device__ inline void whole_history(const Backward<T>& b, const Thread<T, kPieces>& me,
                                     const Request& request, int64_t first, int count) {
  using A = acc_t<T>;
  constexpr int kTogether = kRows<kPieces>, kHeld = Thread<T, kPieces>::kHeld;
  Query<A, kHeld> queries[kQueries];
#pragma unroll
  for (int q = 0; q < kQueries; ++q) b.read(me, first + min(q, count - 1), queries[q]);
  Sum<A, kHeld> totals[kQueries];
  for (int64_t chunk = 0; chunk < request.chunks(); ++chunk) {
    Sum<A, kHeld> parts[kQueries];
    const auto events = chunk_rows(b.h, request, chunk, me.head * me.width);
    for_rows_together(me, events, [&](const A(&rows)[kTogether][kHeld], int first) {
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        Slopes<A> slopes[kTogether];
        find_slopes(me, queries[q], rows, first, events.count, slopes);
        add_to_query(slopes, rows, parts[q]);
      }
    });
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      merge_groups(me, parts[q]);
#pragma unroll
      for (int k = 0; k < kHeld; ++k) totals[q].of[k] += parts[q].of[k];
    }
  }
  if (!me.writes()) return;
#pragma unroll
  for (int q = 0; q < kQueries; ++q)
    if (q < count) me.store(b.du.row(first + q, me.head), totals[q].of);
}

// du of the candidates of a request one by one: where some requests have several, and others none.
template <class T, int kPieces>
__device__ __noinline__ void one_by_one(const Backward<T>& b, const Request& request, int64_t head_group) {
  const Thread<T, kPieces> me(b.plan, head_group);
  for (int64_t c = 0; c < request.candidates; ++c)
    whole_history<kPieces, 1>(b, me, request, request.candidates_begin + c, 1);
}

template <class T, int kPieces>
__global__ void __launch_bounds__(kThreads, kPieces == 1 ? 2 : 1)
    back_through_chunks(const __grid_constant__ Backward<T> b, Partials<T, kPieces> partials,
                        Arrivals arrivals) {
  const int64_t slot = blockIdx.x / b.plan.head_groups, head_group = blockIdx.x % b.plan.head_groups;
  const int64_t r = b.bounds.request_of_chunk(slot);
  const Request request = b.bounds.request(r);
  const int64_t chunk = slot - b.bounds.first_chunk(r);
  if (chunk > 0 && !request.has_chunk(chunk)) return;
  const Thread<T, kPieces> me(b.plan, head_group);
  const auto events = chunk_rows(b.h, request, chunk, me.head * me.width);
  const auto dh = chunk_rows(b.dh, request, chunk, me.head * me.width);  // of nothing, where not wanted
  if (request.candidates != 1) {
    if (b.dh.data) through_many(b, me, events, dh, request);
    if (b.du.data && chunk == 0 && !b.tiled) one_by_one<T, kPieces>(b, request, head_group);
    return;
  }
  Query<acc_t<T>, Thread<T, kPieces>::kHeld> query;
  b.read(me, request.candidates_begin, query);
  Sum<acc_t<T>, Thread<T, kPieces>::kHeld> du;
  through_one(b, me, events, dh, query, du);
  if (!b.du.data) return;
  merge_groups(me, du);
  if (!request.has_chunk(1)) {
    if (me.writes()) me.store(b.du.row(request.candidates_begin, me.head), du.of);
    return;
  }
  if (me.writes()) partials.write(me, slot * b.plan.total_heads + me.head, du);
  if (!arrivals.last(r * b.plan.head_groups + head_group, request.chunks()) || !me.writes()) return;
  Sum<acc_t<T>, Thread<T, kPieces>::kHeld> total;
  const int64_t place = b.bounds.first_chunk(r) * b.plan.total_heads + me.head;
#pragma unroll 2
  for (int64_t other = 0; other < request.chunks(); ++other)
    partials.add(me, place + other * b.plan.total_heads, total);
  me.store(b.du.row(request.candidates_begin, me.head), total.of);
}

template <class T, int kPieces>
__global__ void __launch_bounds__(kThreads) back_to_queries(const __grid_constant__ Backward<T> b) {
  const int64_t slot = blockIdx.x / b.plan.head_groups;
  const int64_t r = b.bounds.request_of_tile(slot, kTile<kPieces>);
  const Request request = b.bounds.request(r);
  const int64_t first = (slot - b.bounds.first_tile(r, kTile<kPieces>)) * kTile<kPieces>;
  if (request.candidates < 2 || first >= request.candidates) return;
  const Thread<T, kPieces> me(b.plan, blockIdx.x % b.plan.head_groups);
  const int count = static_cast<int>(min(request.candidates - first, int64_t{kTile<kPieces>}));
  whole_history<kPieces, kTile<kPieces>>(b, me, request, request.candidates_begin + first, count);
}

}  // namespace

template <class T>
void attend_backward(Cuda device, Mat<const T> u, Mat<const T> h, RequestOffsets offsets,
                     Mat<const acc_t<T>> m, const acc_t<T>* lse, Mat<const T> dm, Mat<T> du, Mat<T> dh) {
  if (u.rows == 0 || u.cols == 0 || offsets.requests == 0) return;
  const auto fits = [&](const auto& rows) {
    return !rows.data || cuda::vectorisable(rows.data, u.cols, rows.row_stride);
  };
  const bool vectorised = cuda::vectorisable(u) && cuda::vectorisable(m) && cuda::vectorisable(dm) &&
                          fits(h) && fits(dh) && (!du.data || cuda::vectorisable(du));
  with_pieces<T>(u.cols, vectorised, [&](auto pieces) {
    constexpr int kPieces = decltype(pieces)::value;
    const Plan plan = make_plan<T>(u.rows, u.cols, kPieces, vectorised);
    // More candidates than requests: some request has several.
    const bool tiled = u.batch > offsets.requests;
    const Backward<T> b{u, h, Bounds(offsets, u, h), plan, m, lse, dm, du, dh, tiled};
    const int64_t slots = b.bounds.chunk_slots();
    const bool cut = du.data && h.count() > kChunk;  // else no history has a second chunk that matters
    const int64_t places = cut ? Arrivals::size(plan, offsets) : 0;
    const cuda::Scratch<acc_t<T>> memory(cut ? Partials<T, kPieces>::size(plan, slots) : 0);
    const cuda::Scratch<unsigned> counts(places);
    const Arrivals arrivals{counts};
    if (cut) arrivals.clear(device, places);
    cuda::launch(device, back_through_chunks<T, kPieces>, plan.grid(slots), plan.threads(), 0, b,
                 Partials<T, kPieces>{memory}, arrivals);
    if (du.data && tiled)
      cuda::launch(device, back_to_queries<T, kPieces>, plan.grid(b.bounds.tile_slots(kTile<kPieces>)),
                   plan.threads(), 0, b);
  });
}

#define MR_INSTANTIATE(T)                                                                              \
  template void attend_backward(Cuda, Mat<const T>, Mat<const T>, RequestOffsets, Mat<const acc_t<T>>, \
                                const acc_t<T>*, Mat<const T>, Mat<T>, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

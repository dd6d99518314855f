// The CPU kernels of attend().  A task is one head of one request.  Its events are taken in blocks that stay
// in the first cache; a block is transposed once, after which all products, over however many candidates, are
// of one kind: rows of numbers times a scalar each, added up.  The softmax runs along: when a block raises
// the maximum of a candidate, what was summed so far is scaled down.
#include "mixrec/ops/attention/attend.h"
#include "mixrec/ops/attention/row_products.h"

#include <algorithm>
#include <limits>
#include <type_traits>

namespace mixrec::kernel {
namespace {

using namespace rows;
using simd::Floats8;

constexpr int64_t kEvents = 64;      // of a block
constexpr int64_t kCandidates = 16;  // that are taken through a block together

// Some events of one head: count rows of the head's width, and the same transposed with kEvents a row.  Both
// are padded with zeros to whole packs.
template <class A>
struct Block {
  int64_t count = 0, padded_count = 0;
  Rows<const A> rows{};
  A* copy;  // where rows go that cannot be used where they are
  A* transposed;
};

void transpose(Floats8 (&x)[8]) {
  Floats8::Floats y[8], z[8];
  for (int i = 0; i < 8; i += 2) {
    y[i] = __builtin_shufflevector(x[i].lanes, x[i + 1].lanes, 0, 8, 1, 9, 4, 12, 5, 13);
    y[i + 1] = __builtin_shufflevector(x[i].lanes, x[i + 1].lanes, 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      z[i + 2 * j] = __builtin_shufflevector(y[i + j], y[i + 2 + j], 0, 1, 8, 9, 4, 5, 12, 13);
      z[i + 2 * j + 1] = __builtin_shufflevector(y[i + j], y[i + 2 + j], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    x[i] = __builtin_shufflevector(z[i], z[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    x[i + 4] = __builtin_shufflevector(z[i], z[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// Makes the rows h, h + stride, … the block.
template <class T>
void load_block(Block<acc_t<T>>& block, const T* h, int64_t stride, int64_t count, int64_t width) {
  using A = acc_t<T>;
  block.count = count;
  block.padded_count = padded<A>(count);
  if constexpr (std::is_same_v<T, double>) {
    block.rows = {h, stride};
    for (int64_t t = 0; t < count; ++t)
      for (int64_t d = 0; d < width; ++d) block.transposed[d * kEvents + t] = h[t * stride + d];
  } else {
    const bool in_place = std::is_same_v<T, float> && width % 8 == 0;
    const Rows<float> copy{block.copy, padded<float>(width)};
    for (int64_t t = 0; t < count; t += 8) {
      for (int64_t d = 0; d < width; d += 8) {
        const int64_t lanes = std::min<int64_t>(width - d, 8), rows = std::min<int64_t>(count - t, 8);
        Floats8 tile[8];
        for (int64_t i = 0; i < 8; ++i) {
          const T* from = h + (t + i) * stride + d;
          // Rows of all heads lie far apart, which hides from the processor that the next head comes next.
          __builtin_prefetch(from + width);
          tile[i] = i >= rows ? Floats8(0.0f) : lanes == 8 ? simd::load(from) : simd::load(from, lanes);
          if (!in_place) write(copy[t + i] + d, tile[i]);
        }
        transpose(tile);
        for (int64_t i = 0; i < 8; ++i) write(block.transposed + (d + i) * kEvents + t, tile[i]);
      }
    }
    if constexpr (std::is_same_v<T, float>) {
      block.rows = in_place ? Rows<const float>{h, stride} : Rows<const float>{copy.data, copy.stride};
    } else {
      block.rows = {copy.data, copy.stride};
    }
  }
}

// ---- Forward. ----

// The running softmax of one candidate.
template <class A>
struct Running {
  A largest, sum;
};

// Turns the scores of a block into weights e^(s - largest), and returns what earlier sums are to be scaled
// by.
template <class A>
A absorb(A* scores, int64_t count, Running<A>& state) {
  const A raised = std::max(state.largest, simd::max_packs(count, scores));
  const A sum = simd::sum_packs<A>(count, [&](auto at) {
    const Lanes<A> weight = simd::exp(at.load(scores) - Lanes<A>(raised));
    at.store(scores, weight);
    return weight;
  });
  const A scale = simd::exp(state.largest - raised);
  state = {raised, state.sum * scale + sum};
  return scale;
}

// What a thread needs to take tasks forward.
template <class A>
struct Forward {
  Forward(int64_t width, int64_t most) : pitch(padded<A>(width)) {
    block.copy = scratch.take(kEvents * pitch);
    block.transposed = scratch.take(kEvents * pitch);
    scores = {scratch.take(kCandidates * kEvents), kEvents};
    queries = {scratch.take(most * pitch), pitch};
    sums = {scratch.take(most * pitch), pitch};
    states = reinterpret_cast<Running<A>*>(scratch.take(2 * most));
  }

  // All events of a head, whose rows start at h, for the first `candidates` queries: leaves Σ e^(s - largest)
  // h in sums, and the rest of the softmax in states.
  template <class T>
  void run(const T* h, int64_t stride, int64_t events, int64_t candidates, int64_t width) {
    std::fill_n(sums.data, candidates * pitch, A(0));
    std::fill_n(states, candidates, Running<A>{-std::numeric_limits<A>::infinity(), 0});
    for (int64_t t = 0; t < events; t += kEvents) {
      load_block(block, h + t * stride, stride, std::min(kEvents, events - t), width);
      for (int64_t c = 0; c < candidates; c += kCandidates)
        group(c, std::min(kCandidates, candidates - c), width);
    }
  }

  void group(int64_t first, int64_t count, int64_t width) {
    std::fill_n(scores.data, count * kEvents, A(0));
    multiply_add(count, block.padded_count, width, Scalars<A>{queries[first], pitch, 1},
                 {block.transposed, kEvents}, scores);
    for (int64_t c = 0; c < count; ++c) {
      const A scale = absorb(scores[c], block.count, states[first + c]);
      simd::transform(
          pitch, sums[first + c], [scale](auto v) { return v * scale; }, sums[first + c]);
    }
    multiply_add(count, pitch, block.count, Scalars<A>{scores.data, kEvents, 1}, block.rows,
                 Rows<A>{sums[first], pitch});
  }

  int64_t pitch;
  Scratch<A> scratch;
  Block<A> block;
  Rows<A> scores{}, queries{}, sums{};
  Running<A>* states;
};

// ---- Backward. ----

// What a thread needs to take tasks back.  Queries and upstream gradients alternate in `pairs`, so that one
// product gives s = u·h and dm·h, and one other gives dh = [ds, α]ᵀ [u, dm].
template <class A>
struct Backward {
  Backward(int64_t width, int64_t most) : pitch(padded<A>(width)) {
    block.copy = scratch.take(kEvents * pitch);
    block.transposed = scratch.take(kEvents * pitch);
    dh = {scratch.take(kEvents * pitch), pitch};
    weights = {scratch.take(2 * kCandidates * kEvents), kEvents};
    pairs = {scratch.take(2 * most * pitch), pitch};
    du = {scratch.take(most * pitch), pitch};
    lse = scratch.take(most);
    delta = scratch.take(most);
  }

  // Candidate c of the task, and a fresh sum for its gradient.
  template <class T>
  void load(int64_t c, const T* u, const A* m, A log_sum_exp, const T* dm, int64_t width) {
    A* upstream = pairs[2 * c + 1];
    load_row(pairs[2 * c], u, width);
    load_row(upstream, dm, width);
    lse[c] = log_sum_exp;
    delta[c] = simd::sum_packs<A>(width, [&](auto at) { return at.load(m) * at.load(upstream); });
    std::fill_n(du[c], pitch, A(0));
  }

  // Fills this->dh with the block's gradient and adds to this->du.
  void run_block(int64_t candidates, int64_t width) {
    std::fill_n(dh.data, block.count * pitch, A(0));
    for (int64_t c = 0; c < candidates; c += kCandidates)
      group(c, std::min(kCandidates, candidates - c), width);
  }

  void group(int64_t first, int64_t count, int64_t width) {
    std::fill_n(weights.data, 2 * count * kEvents, A(0));
    multiply_add(2 * count, block.padded_count, width, Scalars<A>{pairs[2 * first], pitch, 1},
                 {block.transposed, kEvents}, weights);
    for (int64_t c = 0; c < count; ++c) {
      const Lanes<A> shift = lse[first + c], mean = delta[first + c];
      A *s = weights[2 * c], *product = weights[2 * c + 1];
      simd::for_packs<A>(block.count, [&](auto at) {
        const Lanes<A> alpha = simd::exp(at.load(s) - shift);
        at.store(s, alpha * (at.load(product) - mean));
        at.store(product, alpha);
      });
    }
    multiply_add(count, pitch, block.count, Scalars<A>{weights.data, 2 * kEvents, 1}, block.rows,
                 Rows<A>{du[first], pitch});
    multiply_add(block.count, pitch, 2 * count, Scalars<A>{weights.data, 1, kEvents},
                 {pairs[2 * first], pitch}, dh);
  }

  int64_t pitch;
  Scratch<A> scratch;
  Block<A> block;
  Rows<A> dh{}, weights{}, pairs{}, du{};
  A *lse, *delta;
};

int64_t most_candidates(const RequestOffsets& offsets) {
  int64_t most = 1;
  for (int64_t r = 0; r < offsets.requests; ++r)
    most = std::max(most, offsets.candidates[r + 1] - offsets.candidates[r]);
  return most;
}

// Calls f(work, head, request) for all heads of all requests, in parallel; `work` belongs to the thread.
template <class Work, class F>
void for_tasks(const RequestOffsets& offsets, int64_t heads, int64_t width, int64_t events,
               int64_t candidates, F f) {
  if (offsets.requests == 0) return;
  const int64_t most = most_candidates(offsets);
  const int64_t length = events / offsets.requests + 1, share = candidates / offsets.requests + 1;
  parallel_for(offsets.requests * heads, length * share * width, [&](int64_t begin, int64_t end) {
    Work work(width, most);
    for (int64_t i = begin; i < end; ++i) f(work, i % heads, i / heads);
  });
}

}  // namespace

template <class T>
void attend(Cpu, Mat<const T> u, Mat<const T> h, RequestOffsets offsets, Mat<T> y, Mat<acc_t<T>> m,
            acc_t<T>* lse) {
  using A = acc_t<T>;
  const int64_t heads = u.rows, width = u.cols;
  for_tasks<Forward<A>>(offsets, heads, width, h.rows, u.batch, [&](Forward<A>& work, int64_t n, int64_t r) {
    const int64_t first = offsets.candidates[r], count = offsets.candidates[r + 1] - first;
    if (count == 0) return;
    for (int64_t c = 0; c < count; ++c) load_row(work.queries[c], u.row(first + c, n), width);
    const int64_t begin = offsets.history[r], events = offsets.history[r + 1] - begin;
    work.run(h.row(begin) + n * width, h.row_stride, events, count, width);
    for (int64_t c = 0; c < count; ++c) {
      const auto [largest, sum] = work.states[c];
      const A scale = events > 0 ? 1 / sum : 0;
      const auto scaled = [scale](auto v) { return v * scale; };
      simd::transform(width, y.row(first + c, n), scaled, work.sums[c]);
      if (m.data) simd::transform(width, m.row(first + c, n), scaled, work.sums[c]);
      if (lse) lse[(first + c) * heads + n] = events > 0 ? largest + simd::log(sum) : 0;
    }
  });
}

template <class T>
void attend_backward(Cpu, Mat<const T> u, Mat<const T> h, RequestOffsets offsets, Mat<const acc_t<T>> m,
                     const acc_t<T>* lse, Mat<const T> dm, Mat<T> du, Mat<T> dh) {
  using A = acc_t<T>;
  const int64_t heads = u.rows, width = u.cols;
  for_tasks<Backward<A>>(
      offsets, heads, width, h.rows, 4 * u.batch, [&](Backward<A>& work, int64_t n, int64_t r) {
        const int64_t first = offsets.candidates[r], count = offsets.candidates[r + 1] - first;
        for (int64_t c = 0; c < count; ++c)
          work.load(c, u.row(first + c, n), m.row(first + c, n), lse[(first + c) * heads + n],
                    dm.row(first + c, n), width);
        for (int64_t t = offsets.history[r]; t < offsets.history[r + 1]; t += kEvents) {
          load_block(work.block, h.row(t) + n * width, h.row_stride,
                     std::min(kEvents, offsets.history[r + 1] - t), width);
          work.run_block(count, width);
          for (int64_t i = 0; dh.data && i < work.block.count; ++i)
            copy_row(dh.row(t + i) + n * width, work.dh[i], width);
        }
        for (int64_t c = 0; du.data && c < count; ++c) copy_row(du.row(first + c, n), work.du[c], width);
      });
}

#define MR_INSTANTIATE(T)                                                                                  \
  template void attend(Cpu, Mat<const T>, Mat<const T>, RequestOffsets, Mat<T>, Mat<acc_t<T>>, acc_t<T>*); \
  template void attend_backward(Cpu, Mat<const T>, Mat<const T>, RequestOffsets, Mat<const acc_t<T>>,      \
                                const acc_t<T>*, Mat<const T>, Mat<T>, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

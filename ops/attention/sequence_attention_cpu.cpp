// The absorbed form of sequence_attention() on the CPU.  A task is a request with all its heads: its events are taken in
// blocks, whose z stays in the second cache while every head uses it.  The softmax runs along, as in attend_cpu.cpp.
//
// An event costs 4·N·F operations forward and 8·N·F backward, where the products that make and take back gate_up cost
// 12·N·Ds·F: what is written here need not be as fast as they are.
#include "mixrec/ops/attention/row_products.h"
#include "mixrec/ops/attention/sequence_attention.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace mixrec::kernel {
namespace {

using namespace rows;

constexpr int64_t kBlockBytes = int64_t{128} << 10;  // of z
constexpr int64_t kFewest = 4, kMost = 64;           // events of a block

// Vectors of one request's heads and what a thread computes with.
template <class T>
struct Work {
  using A = acc_t<T>;

  int64_t heads, width, hidden, pitch, row_pitch, most;
  Scratch<A> scratch;
  Rows<A> queries, sums, direct;  // q, A and S, or in the backward p above q, B and its direct part
  Rows<A> vectors;                // u, or dm above u
  Rows<A> z, events;              // of a block: z_t and s_t
  Rows<A> sigmoids{}, dz{};       // the backward's
  A *largest, *total;

  Work(const SequenceEvents<T>& e, bool backward)
      : heads(e.heads),
        width(e.width),
        hidden(e.hidden),
        pitch(padded<A>(e.hidden)),
        row_pitch(e.heads * e.width),
        most(std::clamp(kBlockBytes / (pitch * static_cast<int64_t>(sizeof(A))), kFewest, kMost)) {
    const auto take = [&](int64_t count, int64_t stride) {
      return Rows<A>{scratch.take(count * stride), stride};
    };
    const int64_t sides = backward ? 2 : 1;
    queries = take(sides * heads, pitch), sums = take(heads, pitch);
    vectors = take(sides, row_pitch), direct = take(1, row_pitch);
    z = take(most, pitch), events = take(most, row_pitch);
    if (backward) sigmoids = take(most, pitch), dz = take(most, pitch);
    largest = scratch.take(heads), total = scratch.take(heads);
  }

  // Rows of one request: vectors x [N·Ds] and their absorbed forms [N, F], as number `side`.
  void load(int64_t side, const T* x, const T* absorbed) {
    copy_row(vectors[side], x, row_pitch);
    for (int64_t n = 0; n < heads; ++n) load_row(queries[side * heads + n], absorbed + n * hidden, hidden);
  }

  void load_events(const SequenceEvents<T>& e, int64_t first, int64_t count) {
    for (int64_t t = 0; t < count; ++t) {
      const T* gate = e.gate_up + (first + t) * 2 * hidden;
      const T* up = gate + hidden;
      A *to = z[t], *sigmoid = sigmoids.data ? sigmoids[t] : nullptr;
      simd::for_packs<T>(hidden, [=](auto at) {
        const auto g = at.load(gate), s = simd::sigmoid(g);
        at.store(to, g * s * at.load(up));
        if (sigmoid) at.store(sigmoid, s);
      });
      std::fill(to + hidden, to + pitch, A(0));
      copy_row(events[t], e.s + (first + t) * row_pitch, row_pitch);
    }
  }

  // out[t, n] = z_t · queries_n + s_t^n · vectors^n, of the first side.
  void score(int64_t count, A* out) const {
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t n = 0; n < heads; ++n) {
        const A *x = z[t], *q = queries[n], *s = events[t] + n * width, *u = vectors[0] + n * width;
        out[t * heads + n] = simd::sum_packs<A>(hidden, [&](auto at) { return at.load(x) * at.load(q); }) +
                             simd::sum_packs<A>(width, [&](auto at) { return at.load(s) * at.load(u); });
      }
    }
  }

  // sums_n += Σ_t factor[t, n] z_t, and the same of s_t^n.
  void add(int64_t count, const A* factor) const {
    multiply_add(heads, pitch, count, Scalars<A>{factor, 1, heads}, {z.data, z.stride}, sums);
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t n = 0; n < heads; ++n) {
        const A a = factor[t * heads + n];
        A* to = direct[0] + n * width;
        simd::transform(
            width, to, [a](auto sum, auto s) { return simd::fma(decltype(s)(a), s, sum); }, to,
            static_cast<const A*>(events[t] + n * width));
      }
    }
  }

  void clear_sums() const {
    std::fill_n(sums.data, heads * pitch, A(0));
    std::fill_n(direct.data, row_pitch, A(0));
  }
};

// Takes the scores of a block into the running softmax of every head and makes them weights; earlier sums are scaled to
// the new largest score.
template <class T>
void absorb_scores(const Work<T>& work, int64_t count, acc_t<T>* scores) {
  using A = acc_t<T>;
  for (int64_t n = 0; n < work.heads; ++n) {
    A largest = work.largest[n];
    for (int64_t t = 0; t < count; ++t) largest = std::max(largest, scores[t * work.heads + n]);
    const A before = simd::exp(work.largest[n] - largest);
    work.largest[n] = largest, work.total[n] *= before;
    if (before != 1) {
      const auto scaled = [before](auto v) { return v * before; };
      simd::transform(work.pitch, work.sums[n], scaled, static_cast<const A*>(work.sums[n]));
      A* direct = work.direct[0] + n * work.width;
      simd::transform(work.width, direct, scaled, static_cast<const A*>(direct));
    }
    for (int64_t t = 0; t < count; ++t) {
      const A weight = simd::exp(scores[t * work.heads + n] - largest);
      scores[t * work.heads + n] = weight, work.total[n] += weight;
    }
  }
}

template <class T, class F>
void for_requests(const SequenceEvents<T>& events, bool backward, F f) {
  const int64_t length = events.events / std::max<int64_t>(events.requests, 1) + 1;
  parallel_for(events.requests, length * events.heads * events.hidden, [&](int64_t begin, int64_t end) {
    Work<T> work(events, backward);
    for (int64_t r = begin; r < end; ++r) f(work, r);
  });
}

}  // namespace

template <class T>
void sequence_forward(Cpu, const SequenceEvents<T>& events, const T* u, const T* q,
                      const SequenceState<T, acc_t<T>>& state) {
  using A = acc_t<T>;
  const int64_t heads = events.heads, hidden = events.hidden, row = heads * events.width;
  for_requests(events, false, [&](Work<T>& work, int64_t r) {
    const int64_t begin = events.history[r], end = events.history[r + 1];
    work.load(0, u + r * row, q + r * heads * hidden);
    work.clear_sums();
    std::fill_n(work.largest, heads, -std::numeric_limits<A>::infinity());
    std::fill_n(work.total, heads, A(0));
    std::vector<A> seen;  // the largest score that the weights of a block are relative to
    for (int64_t t = begin; t < end; t += work.most) {
      const int64_t count = std::min(work.most, end - t);
      A* weights = state.weights + t * heads;
      work.load_events(events, t, count);
      work.score(count, weights);
      absorb_scores(work, count, weights);
      work.add(count, weights);
      seen.insert(seen.end(), work.largest, work.largest + heads);
    }
    for (int64_t t = begin, block = 0; t < end; t += work.most, ++block) {
      for (int64_t n = 0; n < heads; ++n) {
        const A before = simd::exp(seen[static_cast<size_t>(block * heads + n)] - work.largest[n]);
        for (int64_t i = t; i < std::min(end, t + work.most); ++i) state.weights[i * heads + n] *= before;
      }
    }
    for (int64_t n = 0; n < heads; ++n) {
      const A scale = begin < end ? 1 / work.total[n] : A(0);
      state.scale[r * heads + n] = scale;
      const auto scaled = [scale](auto v) { return v * scale; };
      const int64_t at = (r * heads + n) * hidden;
      if (state.sums) simd::transform(hidden, state.sums + at, scaled, static_cast<const A*>(work.sums[n]));
      if (state.rounded)
        simd::transform(hidden, state.rounded + at, scaled, static_cast<const A*>(work.sums[n]));
      const int64_t first = n * events.width;
      simd::transform(events.width, state.direct + r * row + first, scaled,
                      static_cast<const A*>(work.direct[0] + first));
    }
  });
}

namespace {

// D_n of request r.
template <class T>
acc_t<T> mean_gradient(const Work<T>& work, const SequenceState<T, acc_t<T>>& state, int64_t r, int64_t n) {
  using A = acc_t<T>;
  const A *sums = state.sums + (r * work.heads + n) * work.hidden, *p = work.queries[n];
  const A *direct = state.direct + r * work.row_pitch + n * work.width,
          *dm = work.vectors[0] + n * work.width;
  return simd::sum_packs<A>(work.hidden, [&](auto at) { return at.load(sums) * at.load(p); }) +
         simd::sum_packs<A>(work.width, [&](auto at) { return at.load(direct) * at.load(dm); });
}

// From dz of a block to the gradients of gate and up, over them.
template <class T>
void gate_backward(const Work<T>& work, const SequenceEvents<T>& events, int64_t first, int64_t count) {
  using A = acc_t<T>;
  for (int64_t i = 0; i < count; ++i) {
    T* gate = events.gate_up + (first + i) * 2 * events.hidden;
    T* up = gate + events.hidden;
    const A *dz = work.dz[i], *sigmoid = work.sigmoids[i];
    simd::for_packs<T>(events.hidden, [=](auto at) {
      const auto g = at.load(gate), s = at.load(sigmoid), d = at.load(dz), silu = g * s;
      const auto dgate = d * at.load(up) * (s + silu * (1.0f - s));
      at.store(gate, dgate), at.store(up, d * silu);
    });
  }
}

}  // namespace

template <class T>
void sequence_backward(Cpu, const SequenceEvents<T>& events, const T* u, const T* q, const T* dm, const T* p,
                       const SequenceState<T, acc_t<T>>& state, T* sums, acc_t<T>* direct, T* ds, bool add) {
  using A = acc_t<T>;
  const int64_t heads = events.heads, hidden = events.hidden, width = events.width, row = heads * width;
  for_requests(events, true, [&](Work<T>& work, int64_t r) {
    const int64_t end = events.history[r + 1];
    work.load(0, dm + r * row, p + r * heads * hidden);
    work.load(1, u + r * row, q + r * heads * hidden);
    work.clear_sums();
    for (int64_t n = 0; n < heads; ++n) work.total[n] = mean_gradient(work, state, r, n);
    std::vector<A> gradients(static_cast<size_t>(work.most * heads)), deltas(gradients.size()),
        pairs(2 * gradients.size());
    for (int64_t t = events.history[r]; t < end; t += work.most) {
      const int64_t count = std::min(work.most, end - t);
      work.load_events(events, t, count);
      work.score(count, gradients.data());
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t n = 0; n < heads; ++n) {
          const A alpha = state.weights[(t + i) * heads + n] * state.scale[r * heads + n];
          const A delta = alpha * (gradients[static_cast<size_t>(i * heads + n)] - work.total[n]);
          deltas[static_cast<size_t>(i * heads + n)] = delta;
          pairs[static_cast<size_t>(2 * i * heads + n)] = alpha;
          pairs[static_cast<size_t>((2 * i + 1) * heads + n)] = delta;
          const A *dm_n = work.vectors[0] + n * width, *u_n = work.vectors[1] + n * width;
          T* to = ds + (t + i) * row + n * width;
          simd::for_packs<T>(width, [=](auto at) {
            const auto part = at.load(dm_n) * alpha + at.load(u_n) * delta;
            at.store(to, add ? at.load(to) + part : part);
          });
        }
      }
      work.add(count, deltas.data());
      std::fill_n(work.dz.data, count * work.pitch, A(0));
      multiply_add(count, work.pitch, 2 * heads, Scalars<A>{pairs.data(), 2 * heads, 1},
                   {work.queries.data, work.pitch}, work.dz);
      gate_backward(work, events, t, count);
    }
    for (int64_t n = 0; n < heads; ++n)
      copy_row(sums + (r * heads + n) * hidden, static_cast<const A*>(work.sums[n]), hidden);
    copy_row(direct + r * row, static_cast<const A*>(work.direct[0]), row);
  });
}

template <class T, class W>
void fold_gain(Cpu, Mat<const W> w, const acc_t<T>* gain, T* y) {
  parallel_for(w.rows, w.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const W* from = w.row(i);
      T* to = y + i * w.cols;
      simd::for_packs<T>(w.cols, [=, g = gain[i]](auto at) { at.store(to, at.load(from) * g); });
    }
  });
}

template <class W>
void unfold_gain(Cpu, Mat<const W> w, const acc_t<W>* gain, acc_t<W>* dy, acc_t<W>* dgain) {
  parallel_for(w.rows, 2 * w.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const W* from = w.row(i);
      acc_t<W>* row = dy + i * w.cols;
      dgain[i] = simd::sum_packs<W>(w.cols, [=](auto at) { return at.load(from) * at.load(row); });
      simd::for_packs<W>(w.cols, [=, g = gain[i]](auto at) { at.store(row, at.load(row) * g); });
    }
  });
}

template void fold_gain(Cpu, Mat<const float>, const float*, float*);
template void fold_gain(Cpu, Mat<const bfloat16>, const float*, bfloat16*);
template void fold_gain(Cpu, Mat<const float>, const float*, bfloat16*);
template void fold_gain(Cpu, Mat<const double>, const double*, double*);
template void unfold_gain(Cpu, Mat<const float>, const float*, float*, float*);
template void unfold_gain(Cpu, Mat<const bfloat16>, const float*, float*, float*);
template void unfold_gain(Cpu, Mat<const double>, const double*, double*, double*);

#define MR_INSTANTIATE(T)                                                                                \
  template void sequence_forward(Cpu, const SequenceEvents<T>&, const T*, const T*,                      \
                                 const SequenceState<T, acc_t<T>>&);                                     \
  template void sequence_backward(Cpu, const SequenceEvents<T>&, const T*, const T*, const T*, const T*, \
                                  const SequenceState<T, acc_t<T>>&, T*, acc_t<T>*, T*, bool)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

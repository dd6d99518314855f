// The loops that CPU kernels are made of: over the elements of a row, and over rows and views on all cores.
//
//   simd::for_packs<T>(n, [&](auto at) { at.store(y, simd::sigmoid(at.load(x)) * at.load(w)); });
//
// The body sees eight floats at once for float and bfloat16 (which it reads and writes as floats), and one
// double for double.  The last few elements of a row go through the same arithmetic, with masked loads and
// stores, so an element's bits do not depend on where in a row it is.
#pragma once

#include "mixrec/core/dtype.h"
#include "mixrec/core/mat.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/simd.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"

namespace mixrec::simd {

// What a formula over elements of type T computes with.
template <class T>
using Value = std::conditional_t<std::is_same_v<T, double>, double, Floats8>;

// Where in its rows a body is: the three kinds of `at`.  load(row, fill) reads lanes past the end as `fill`
// (else they are zero), only(v, fill) replaces them after a computation.
struct PackAt {
  int64_t index;

  template <class T>
  Floats8 load(const T* row, float = 0) const {
    return simd::load(row + index);
  }
  template <class T>
  void store(T* row, Floats8 value) const {
    simd::store(row + index, value);
  }
  Floats8 only(Floats8 value, float) const { return value; }
};

struct TailAt {
  int64_t index, count;

  template <class T>
  Floats8 load(const T* row) const {
    return simd::load(row + index, count);
  }
  template <class T>
  Floats8 load(const T* row, float fill) const {
    return only(load(row), fill);
  }
  template <class T>
  void store(T* row, Floats8 value) const {
    simd::store(row + index, value, count);
  }
  Floats8 only(Floats8 value, float fill) const { return select(first_lanes(count), value, fill); }
};

struct DoubleAt {
  int64_t index;

  double load(const double* row, double = 0) const { return row[index]; }
  void store(double* row, double value) const { row[index] = value; }
  double only(double value, double) const { return value; }
};

// Calls body(at) until the n elements of a row of T are covered.  Inlined, so that what the body captures
// stays in registers.
template <class T, class F>
[[gnu::always_inline]] inline void for_packs(int64_t n, F&& body) {
  if constexpr (std::is_same_v<T, double>) {
    for (int64_t i = 0; i < n; ++i) body(DoubleAt{i});
  } else {
    int64_t i = 0;
    for (; i + Floats8::size <= n; i += Floats8::size) body(PackAt{i});
    if (i < n) body(TailAt{i, n - i});
  }
}

// The sum of body(at) over the n elements of a row, in f32 (f64 for double).
template <class T, class F>
[[gnu::always_inline]] inline acc_t<T> sum_packs(int64_t n, F&& body) {
  if constexpr (std::is_same_v<T, double>) {
    double total = 0;
    for (int64_t i = 0; i < n; ++i) total += body(DoubleAt{i});
    return total;
  } else {
    // One chain of additions would wait for itself; four keep the adder busy.
    constexpr int64_t kChains = 4, kPack = Floats8::size;
    Floats8 chain[kChains] = {0.0f, 0.0f, 0.0f, 0.0f};
    int64_t i = 0;
    for (; i + kChains * kPack <= n; i += kChains * kPack) {
      for (int64_t k = 0; k < kChains; ++k) chain[k] += body(PackAt{i + k * kPack});
    }
    for (; i + kPack <= n; i += kPack) chain[0] += body(PackAt{i});
    if (i < n) {
      const TailAt at{i, n - i};
      chain[1] += at.only(body(at), 0);
    }
    return sum((chain[0] + chain[1]) + (chain[2] + chain[3]));
  }
}

// The largest element of a row of n > 0.
template <class T>
acc_t<T> max_packs(int64_t n, const T* row) {
  Value<T> largest(-__builtin_inff());
  for_packs<T>(n, [&](auto at) { largest = max(largest, at.load(row, -__builtin_inff())); });
  if constexpr (std::is_same_v<T, double>) {
    return largest;
  } else {
    return max(largest);
  }
}

}  // namespace mixrec::simd

#pragma GCC diagnostic pop

namespace mixrec {

// Calls body(i) for each of `count` rows on all cores; `work` counts elementary operations a row.
template <class F>
void for_rows(int64_t count, int64_t work, F&& body) {
  parallel_for(count, work, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

// Calls body(n, pointers…) on stretches that cover views of one shape, on all cores: long stretches where all
// views are dense, else row by row.  A view without data, after the first, stays a null pointer.  `work`
// counts elementary operations an element.
template <class F, class First, class... Rest>
void for_stretches(int64_t work, F&& body, Mat<First> first, Mat<Rest>... rest) {
  if (first.dense() && ((!rest.data || rest.dense()) && ...)) {
    parallel_for(first.count() * first.cols, work, [&](int64_t begin, int64_t end) {
      body(end - begin, first.data + begin, (rest.data ? rest.data + begin : nullptr)...);
    });
  } else {
    for_rows(first.count(), work * first.cols,
             [&](int64_t i) { body(first.cols, first.row(i), (rest.data ? rest.row(i) : nullptr)...); });
  }
}

}  // namespace mixrec

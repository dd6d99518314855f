// Small products on one core of the CPU, for attention's kernels:  c[i, :] += Σ_k a(i, k) b[k, :]  over rows of floats
// eight at a time, or of doubles one at a time.
#pragma once

#include "mixrec/core/device.h"
#include "mixrec/core/storage.h"
#include "mixrec/ops/loops.h"

#include <cstdint>
#include <deque>
#include <type_traits>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"

namespace mixrec::kernel::rows {

template <class A>
using Lanes = simd::Value<A>;
template <class A>
constexpr int64_t kLanes = sizeof(Lanes<A>) / sizeof(A);

inline simd::Floats8 read(const float* from) { return simd::load(from); }
inline double read(const double* from) { return *from; }
inline void write(float* to, simd::Floats8 pack) { simd::store(to, pack); }
inline void write(double* to, double value) { *to = value; }

template <class A>
int64_t padded(int64_t n) {
  return (n + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
}

// a(i, k), in any order in memory.
template <class A>
struct Scalars {
  const A* data;
  int64_t row, col;
  A operator()(int64_t i, int64_t k) const { return data[i * row + k * col]; }
};

template <class A>
struct Rows {
  A* data;
  int64_t stride;
  A* operator[](int64_t i) const { return data + i * stride; }
};

template <int M, int N, class A>
void multiply_add_tile(int64_t k, Scalars<A> a, Rows<const A> b, Rows<A> c) {
  constexpr int64_t kWide = kLanes<A>;
  Lanes<A> sums[M][N];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) sums[i][j] = read(c[i] + j * kWide);
  for (int64_t l = 0; l < k; ++l) {
    Lanes<A> row[N];
    for (int j = 0; j < N; ++j) row[j] = read(b[l] + j * kWide);
    for (int i = 0; i < M; ++i) {
      const Lanes<A> factor = a(i, l);
      for (int j = 0; j < N; ++j) sums[i][j] = simd::fma(factor, row[j], sums[i][j]);
    }
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) write(c[i] + j * kWide, sums[i][j]);
}

template <int M, int N, class A>
void multiply_add_rows(int64_t n, int64_t k, Scalars<A> a, Rows<const A> b, Rows<A> c) {
  int64_t j = 0;
  for (; j + N * kLanes<A> <= n; j += N * kLanes<A>)
    multiply_add_tile<M, N>(k, a, {b.data + j, b.stride}, Rows<A>{c.data + j, c.stride});
  for (; j < n; j += kLanes<A>)
    multiply_add_tile<M, 1>(k, a, {b.data + j, b.stride}, Rows<A>{c.data + j, c.stride});
}

// n: a multiple of the lanes.
template <class A>
void multiply_add(int64_t m, int64_t n, int64_t k, Scalars<A> a, std::type_identity_t<Rows<const A>> b,
                  Rows<A> c) {
  int64_t i = 0;
  for (; i + 4 <= m; i += 4)
    multiply_add_rows<4, 2>(n, k, Scalars<A>{a.data + i * a.row, a.row, a.col}, b, Rows<A>{c[i], c.stride});
  for (; i < m; ++i)
    multiply_add_rows<1, 4>(n, k, Scalars<A>{a.data + i * a.row, a.row, a.col}, b, Rows<A>{c[i], c.stride});
}

// Memory of one thread.
template <class A>
class Scratch {
 public:
  A* take(int64_t count) {
    return reinterpret_cast<A*>(pieces_.emplace_back(static_cast<size_t>(count) * sizeof(A), kCpu).data());
  }

 private:
  std::deque<Storage> pieces_;
};

template <class To, class From>
void copy_row(To* to, const From* from, int64_t width) {
  simd::transform(
      width, to, [](auto v) { return v; }, from);
}

// The same, padded with zeros to whole packs.
template <class T>
void load_row(acc_t<T>* to, const T* from, int64_t width) {
  copy_row(to, from, width);
  std::fill(to + width, to + padded<acc_t<T>>(width), acc_t<T>(0));
}

}  // namespace mixrec::kernel::rows

#pragma GCC diagnostic pop

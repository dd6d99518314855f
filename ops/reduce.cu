// Sums and maxima over the middle dimension of a dense [outer, middle, inner].
//
// Sums: ops/sums.cuh.  Maxima: along dense memory (inner == 1) up to a block shares one, else a thread walks
// each column, next to its neighbours.  Floor: x once (backward: dx once, the indices from the caches); one
// comparison or addition an element.
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/sums.cuh"

namespace mixrec {
namespace {

template <class Number>
struct Largest {
  Number value;
  int64_t at;
};

// NaN above all numbers, the first of equals: an order, so that any way of combining gives the same.
template <class Number>
__device__ Largest<Number> larger(Largest<Number> a, Largest<Number> b) {
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  const bool equal = (a_nan && b_nan) || a.value == b.value;
  if (equal) return a.at < b.at ? a : b;
  return a_nan || (!b_nan && a.value > b.value) ? a : b;
}

template <class Number>
__device__ Largest<Number> shuffle_xor(Largest<Number> of, int step) {
  return {__shfl_xor_sync(0xffffffffu, of.value, step), __shfl_xor_sync(0xffffffffu, of.at, step)};
}

}  // namespace

namespace kernel {
namespace {

// x: [outer, middle]
struct MaxAlongRows {
  template <class Row, class T>
  __device__ void operator()(Row row, Mat<const T> x, T* y, int64_t* index) const {
    Largest<acc_t<T>> best{-INFINITY, x.cols};
    row.for_each([&](auto at) { best = larger(best, Largest<acc_t<T>>{at.load(x)[0], at.col}); });
    best = cuda::combine_lanes(best, row.lanes, [](auto a, auto b) { return larger(a, b); });
    if (row.writes()) y[row.row] = static_cast<T>(best.value), index[row.row] = best.at;
  }
};

// One element of y, which is [outer, inner].
template <class T>
struct MaxDownColumns {
  const T* x;
  int64_t middle, inner;
  int64_t* index;

  template <class At>
  __device__ void operator()(At at, Mat<T> y) const {
    const T* column = x + at.row * middle * inner + at.col;
    Largest<acc_t<T>> best{column[0], 0};
    for (int64_t m = 1; m < middle; ++m) best = larger(best, Largest<acc_t<T>>{column[m * inner], m});
    y.row(at.row)[at.col] = static_cast<T>(best.value);
    index[at.row * inner + at.col] = best.at;
  }
};

// One element of dx, as rows of `inner`: row o * middle + m.
template <class T>
struct SpreadMax {
  const int64_t* index;
  const T* dy;
  int64_t middle, inner;

  template <class At>
  __device__ void operator()(At at, Mat<T> dx) const {
    const int64_t o = at.row / middle, m = at.row % middle, i = o * inner + at.col;
    dx.row(at.row)[at.col] = index[i] == m ? dy[i] : T(0.0f);
  }
};

}  // namespace

template <class T>
void sum_middle(Cuda device, int64_t outer, int64_t middle, int64_t inner, const T* x, T* y) {
  cuda::sum_middle(device, outer, middle, inner, x, y);
}

template <class T>
void max_middle(Cuda device, int64_t outer, int64_t middle, int64_t inner, const T* x, T* y, int64_t* index) {
  if (inner == 1) {
    cuda::for_rows<1>(device, outer, middle, MaxAlongRows{}, Mat<const T>{x, 1, outer, middle, 0, middle}, y,
                      index);
  } else {
    cuda::for_tiles<1>(device, outer, inner, MaxDownColumns<T>{x, middle, inner, index},
                       Mat<T>{y, 1, outer, inner, 0, inner});
  }
}

template <class T>
void max_middle_backward(Cuda device, int64_t outer, int64_t middle, int64_t inner, const int64_t* index,
                         const T* dy, T* dx) {
  cuda::for_tiles<1>(device, outer * middle, inner, SpreadMax<T>{index, dy, middle, inner},
                     Mat<T>{dx, 1, outer * middle, inner, 0, inner});
}

#define MR_INSTANTIATE(T)                                                            \
  template void sum_middle(Cuda, int64_t, int64_t, int64_t, const T*, T*);           \
  template void max_middle(Cuda, int64_t, int64_t, int64_t, const T*, T*, int64_t*); \
  template void max_middle_backward(Cuda, int64_t, int64_t, int64_t, const int64_t*, const T*, T*)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

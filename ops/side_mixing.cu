// side_mixing: a thread takes 16 bytes of a row of the output where chunks of w are made of these, else one element.
// Writes are dense; reads come in chunks.  Floor: own, residual and y once; what is shared stays in the cache.  A
// thread finds its request by bisection.
#include "mixrec/ops/loops.cuh"
#include "mixrec/ops/rows.cuh"
#include "mixrec/ops/side_mixing.h"

namespace mixrec::kernel {
namespace {

template <class T>
struct MixSide {
  const int64_t* offsets;
  int heads, others, chunk;

  template <class At>
  __device__ void operator()(At at, Mat<const T> own, Mat<const T> residual, Mat<const T> shared,
                             Mat<T> y) const {
    const int64_t c = at.row / heads;
    const int h = static_cast<int>(at.row % heads), col = static_cast<int>(at.col);
    const int i = col / chunk, from = h * chunk + col % chunk;
    auto v = cuda::load_values<At::kWidth>(residual.row(c, h) + col);
    const T* in = nullptr;
    if (i < others) {
      in = shared.row(rows::segment_of(offsets, shared.batch, c), i);
    } else if (i < others + heads) {
      in = own.row(c, i - others);
    }
    if (in) {
      const auto added = cuda::load_values<At::kWidth>(in + from);
#pragma unroll
      for (int k = 0; k < At::kWidth; ++k) v[k] += added[k];
    }
    cuda::store_values<At::kWidth>(y.row(c, h) + col, v);
  }
};

template <class T>
struct Unmix {
  int first, chunk;

  template <class At>
  __device__ void operator()(At at, Mat<const T> dy, Mat<T> dx) const {
    const int64_t c = at.row / dx.rows;
    const int i = static_cast<int>(at.row % dx.rows), col = static_cast<int>(at.col);
    const int h = col / chunk, from = (first + i) * chunk + col % chunk;
    cuda::store_values<At::kWidth>(dx.row(c, i) + col, cuda::load_values<At::kWidth>(dy.row(c, h) + from));
  }
};

}  // namespace

template <class T>
void side_mixing(Cuda device, Mat<const T> own, Mat<const T> residual, Mat<const T> shared,
                 const int64_t* offsets, Mat<T> y) {
  constexpr int kWidth = cuda::kVectorWidth<T>;
  const int heads = static_cast<int>(own.rows), others = shared.data ? static_cast<int>(shared.rows) : 0;
  const MixSide<T> body{offsets, heads, others, static_cast<int>(own.cols) / heads};
  if constexpr (kWidth > 1) {
    if (body.chunk % kWidth == 0 && y.cols % kWidth == 0 && cuda::aligned(own) && cuda::aligned(residual) &&
        cuda::aligned(shared) && cuda::aligned(y))
      return cuda::for_tiles<kWidth>(device, y.count(), y.cols, body, own, residual, shared, y);
  }
  cuda::for_tiles<1>(device, y.count(), y.cols, body, own, residual, shared, y);
}

template <class T>
void side_mixing_backward(Cuda device, Mat<const T> dy, int64_t first, Mat<T> dx) {
  constexpr int kWidth = cuda::kVectorWidth<T>;
  if (dx.cols == 0) return;
  const Unmix<T> body{static_cast<int>(first), static_cast<int>(dx.cols / dy.rows)};
  if constexpr (kWidth > 1) {
    if (body.chunk % kWidth == 0 && cuda::aligned(dy) && cuda::aligned(dx))
      return cuda::for_tiles<kWidth>(device, dx.count(), dx.cols, body, dy, dx);
  }
  cuda::for_tiles<1>(device, dx.count(), dx.cols, body, dy, dx);
}

#define MR_INSTANTIATE(T)                                                                            \
  template void side_mixing(Cuda, Mat<const T>, Mat<const T>, Mat<const T>, const int64_t*, Mat<T>); \
  template void side_mixing_backward(Cuda, Mat<const T>, int64_t, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

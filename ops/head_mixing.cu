// HeadMixing: out[b, c, r·w + k] = in[b, r, c·w + k], w = D / N, with the mask and the residual of
// ops/head_mixing.h.
//
// A block walks rows (b, c) of the output; one thread takes 16 bytes of it where chunks of w are made of
// these, else one element.  Writes are dense; reads come in chunks of w, so that w·sizeof(T) of at least a
// sector (32 bytes) runs near the speed of a copy.  Floor: x and y once; no FLOPs.
#include "mixrec/ops/head_mixing.h"
#include "mixrec/ops/loops.cuh"

namespace mixrec::kernel {
namespace {

template <class T>
struct Mix {
  int64_t user_heads;
  bool transposed;

  template <class At>
  __device__ void operator()(At at, Mat<const T> x, Mat<const T> residual, Mat<T> y) const {
    const auto heads = static_cast<int>(x.rows), width = static_cast<int>(x.cols), chunk = width / heads;
    const int64_t b = at.row / heads;
    const int c = static_cast<int>(at.row % heads), col = static_cast<int>(at.col);
    const int r = col / chunk, k = col % chunk;
    const bool masked = transposed ? r < user_heads && user_heads <= c : c < user_heads && user_heads <= r;
    cuda::Values<acc_t<T>, At::kWidth> v = {};
    if (!masked) v = cuda::load_values<At::kWidth>(x.row(b, r) + c * chunk + k);
    if (residual.data) {
      const auto added = cuda::load_values<At::kWidth>(residual.row(b, c) + col);
#pragma unroll
      for (int i = 0; i < At::kWidth; ++i) v[i] += added[i];
    }
    cuda::store_values<At::kWidth>(y.row(b, c) + col, v);
  }
};

}  // namespace

template <class T>
void head_mixing(Cuda device, Mat<const T> x, int64_t user_heads, bool transposed, Mat<const T> residual,
                 Mat<T> y) {
  constexpr int kWidth = cuda::kVectorWidth<T>;
  const Mix<T> body{user_heads, transposed};
  if constexpr (kWidth > 1) {
    if (x.cols / x.rows % kWidth == 0 && cuda::aligned(x) && cuda::aligned(y) &&
        (!residual.data || cuda::aligned(residual)))
      return cuda::for_tiles<kWidth>(device, x.count(), x.cols, body, x, residual, y);
  }
  cuda::for_tiles<1>(device, x.count(), x.cols, body, x, residual, y);
}

#define MR_INSTANTIATE(T) template void head_mixing(Cuda, Mat<const T>, int64_t, bool, Mat<const T>, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

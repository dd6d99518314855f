// RMSNorm and LayerNorm over rows, forward and backward.
//
// Rows of up to 1024 aligned elements are held in the registers of one warp: x is read once (backward: x and
// dy once), all sums are over the warp.  For dgain and dbias each block walks a fixed set of rows and keeps a
// sum per column in registers; a second kernel adds the blocks' sums in order (ops/sums.cuh).  Longer or odd
// rows, and f64, are shared by up to a block and read again from the caches; their dgain and dbias are sums
// over columns.
//
// Floor: 2 elements of traffic forward (x, y), 3 backward (x, dy, dx), and 4 or 8 bytes a row; about 10 and 20
// instructions an element.  The held rows stay packed: 1024 bf16 of x and dy take 32 registers, so that
// 20 warps a multiprocessor keep the memory busy next to 32 sums.
#include "mixrec/ops/norm.h"
#include "mixrec/ops/sums.cuh"

namespace mixrec::kernel {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / cuda::kWarp;

// What either norm multiplies and adds; null for 1 and 0.
template <class Sum>
struct Scaling {
  const Sum *gain, *bias;
};

// kWidth neighbours of a gain or bias.
template <int kWidth, class Sum>
__device__ cuda::Values<Sum, kWidth> load_or(const Sum* vector, int64_t col, int count, Sum otherwise) {
  if (vector) return cuda::load_values<kWidth>(vector + col, count);
  cuda::Values<Sum, kWidth> values;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) values[k] = otherwise;
  return values;
}

// ---- Rows in registers. ----

// A row of at most kWarp * kElements elements, kElements / kSize pieces of 16 bytes a lane.
template <class T, int kElements>
struct HeldRow {
  using Sum = acc_t<T>;
  static constexpr int kSize = cuda::Vec<T>::kSize, kPieces = kElements / kSize;
  cuda::Vec<T> piece[kPieces];

  __device__ static int col(int p) {
    return (p * cuda::kWarp + static_cast<int>(threadIdx.x % cuda::kWarp)) * kSize;
  }
  __device__ void load(const T* row, int cols) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      if (col(p) < cols) piece[p] = cuda::load_vec(row + col(p));
    }
  }
  __device__ cuda::Values<Sum, kSize> widened(int p) const {
    cuda::Values<Sum, kSize> values;
#pragma unroll
    for (int k = 0; k < kSize; ++k) values[k] = piece[p].at[k];
    return values;
  }
  // Sum over the row of f(element).
  template <class F>
  __device__ Sum sum(int cols, F f) const {
    Sum total = 0;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      if (col(p) < cols) {
        const auto v = widened(p);
#pragma unroll
        for (int k = 0; k < kSize; ++k) total += f(v[k]);
      }
    }
    return cuda::warp_sum(total);
  }
};

template <class T, int kElements, bool kCentred>
__global__ void __launch_bounds__(kThreads)
    held_forward(Mat<const T> x, Scaling<acc_t<T>> scaling, acc_t<T> eps, Mat<T> y, acc_t<T>* mean,
                 acc_t<T>* scale) {
  using Sum = acc_t<T>;
  using Row = HeldRow<T, kElements>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / cuda::kWarp;
  if (i >= x.count()) return;
  const int cols = static_cast<int>(x.cols);
  Row row;
  row.load(x.row(i), cols);
  Sum mu = 0;
  if constexpr (kCentred) mu = row.sum(cols, [](Sum v) { return v; }) / static_cast<Sum>(cols);
  const Sum squares = row.sum(cols, [mu](Sum v) { return (v - mu) * (v - mu); });
  const Sum r = 1 / simd::sqrt(squares / static_cast<Sum>(cols) + eps);
  if (threadIdx.x % cuda::kWarp == 0) {
    if constexpr (kCentred) mean[i] = mu;
    scale[i] = r;
  }
  T* out = y.row(i);
#pragma unroll
  for (int p = 0; p < Row::kPieces; ++p) {
    const int col = Row::col(p);
    if (col >= cols) continue;
    auto v = row.widened(p);
    const auto gain = load_or<Row::kSize>(scaling.gain, col, Row::kSize, Sum(1));
    const auto bias = load_or<Row::kSize>(scaling.bias, col, Row::kSize, Sum(0));
#pragma unroll
    for (int k = 0; k < Row::kSize; ++k) v[k] = (v[k] - mu) * r * gain[k] + bias[k];
    cuda::store_values<Row::kSize>(out + col, v);
  }
}

// Blocks that run at once on a multiprocessor, by the registers that a thread needs.
template <class T, bool kCentred>
constexpr int kResident = sizeof(T) == 2 ? (kCentred ? 4 : 5) : 3;

// out[col] = Σ over the block's warps of sums.
template <class Row, class Sum, int kElements>
__device__ void add_warps(const Sum (&sums)[kElements], int cols, Sum* out) {
  __shared__ Sum of_warp[kWarps][kElements * cuda::kWarp];
  const int warp = threadIdx.x / cuda::kWarp, lane = threadIdx.x % cuda::kWarp;
  __syncthreads();  // an earlier call's readers are done
#pragma unroll
  for (int e = 0; e < kElements; ++e) of_warp[warp][e * cuda::kWarp + lane] = sums[e];
  __syncthreads();
  for (int at = threadIdx.x; at < kElements * cuda::kWarp; at += kThreads) {
    Sum total = of_warp[0][at];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) total += of_warp[w][at];
    const int e = at / cuda::kWarp, owner = at % cuda::kWarp;
    const int col = (e / Row::kSize * cuda::kWarp + owner) * Row::kSize + e % Row::kSize;
    if (col < cols) out[col] = total;
  }
}

// Block b takes rows [b chunk, (b + 1) chunk).  dgain, dbias: [blocks, cols] or null.
template <class T, int kElements, bool kCentred>
__global__ void __launch_bounds__(kThreads, kResident<T, kCentred>)
    held_backward(Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* mean, const acc_t<T>* scale,
                  Mat<const T> dy, Mat<const T> added, Mat<T> dx, int64_t chunk, acc_t<T>* dgain,
                  acc_t<T>* dbias) {
  using Sum = acc_t<T>;
  using Row = HeldRow<T, kElements>;
  const int cols = static_cast<int>(x.cols);
  const int64_t begin = blockIdx.x * chunk, end = begin + chunk < x.count() ? begin + chunk : x.count();
  Sum dgain_sums[kElements] = {}, dbias_sums[kCentred ? kElements : 1] = {};
  for (int64_t i = begin + threadIdx.x / cuda::kWarp; i < end; i += kWarps) {
    Row row, upstream;
    row.load(x.row(i), cols);
    upstream.load(dy.row(i), cols);
    const Sum r = scale[i], mu = kCentred ? mean[i] : Sum(0);
    Sum dot = 0, sum_h = 0;
#pragma unroll
    for (int p = 0; p < Row::kPieces; ++p) {
      const int col = Row::col(p);
      if (col >= cols) continue;
      const auto v = row.widened(p), d = upstream.widened(p);
      const auto g = load_or<Row::kSize>(gain, col, Row::kSize, Sum(1));
#pragma unroll
      for (int k = 0; k < Row::kSize; ++k) {
        const Sum centred = v[k] - mu, h = d[k] * g[k];
        dot += h * centred;
        dgain_sums[p * Row::kSize + k] += d[k] * centred * r;
        if constexpr (kCentred) {
          sum_h += h;
          dbias_sums[p * Row::kSize + k] += d[k];
        }
      }
    }
    if (!dx.data) continue;
    const Sum back = cuda::warp_sum(dot) * r * r / static_cast<Sum>(cols);
    Sum mean_h = 0;
    if constexpr (kCentred) mean_h = cuda::warp_sum(sum_h) / static_cast<Sum>(cols);
    T* out = dx.row(i);
#pragma unroll
    for (int p = 0; p < Row::kPieces; ++p) {
      const int col = Row::col(p);
      if (col >= cols) continue;
      const auto v = row.widened(p);
      auto d = upstream.widened(p);
      const auto g = load_or<Row::kSize>(gain, col, Row::kSize, Sum(1));
#pragma unroll
      for (int k = 0; k < Row::kSize; ++k) d[k] = r * (d[k] * g[k] - mean_h - (v[k] - mu) * back);
      if (added.data) {
        const auto more = cuda::load_values<Row::kSize>(added.row(i) + col);
#pragma unroll
        for (int k = 0; k < Row::kSize; ++k) d[k] += more[k];
      }
      cuda::store_values<Row::kSize>(out + col, d);
    }
  }
  if (dgain) add_warps<Row>(dgain_sums, cols, dgain + blockIdx.x * x.cols);
  if constexpr (kCentred) {
    if (dbias) add_warps<Row>(dbias_sums, cols, dbias + blockIdx.x * x.cols);
  }
}

// ---- Any rows. ----

template <class Sum, bool kCentred>
struct AnyForward {
  Scaling<Sum> scaling;
  Sum eps;
  Sum *mean, *scale;

  template <class Row, class T>
  __device__ void operator()(Row row, Mat<const T> x, Mat<T> y) const {
    const auto cols = static_cast<Sum>(x.cols);
    const auto sum = [&](auto f) {
      Sum total = 0;
      row.for_each([&](auto at) { total += f(at.load(x)[0]); });
      return row.sum(total);
    };
    Sum mu = 0;
    if constexpr (kCentred) mu = sum([](Sum v) { return v; }) / cols;
    const Sum squares = sum([mu](Sum v) { return (v - mu) * (v - mu); });
    const Sum r = 1 / simd::sqrt(squares / cols + eps);
    if (row.writes()) {
      if constexpr (kCentred) mean[row.row] = mu;
      scale[row.row] = r;
    }
    row.for_each([&](auto at) {
      auto v = at.load(x);
      const Sum gain = scaling.gain ? scaling.gain[at.col] : Sum(1);
      const Sum bias = scaling.bias ? scaling.bias[at.col] : Sum(0);
      v[0] = (v[0] - mu) * r * gain + bias;
      at.store(y, v);
    });
  }
};

template <class Sum, bool kCentred>
struct AnyBackward {
  const Sum *gain, *mean, *scale;

  template <class Row, class T>
  __device__ void operator()(Row row, Mat<const T> x, Mat<const T> dy, Mat<const T> added, Mat<T> dx) const {
    const bool inside = row.cols > 0;
    const auto cols = static_cast<Sum>(x.cols);
    const Sum r = inside ? scale[row.row] : Sum(0), mu = kCentred && inside ? mean[row.row] : Sum(0);
    const auto h = [&](auto at) { return at.load(dy)[0] * (gain ? gain[at.col] : Sum(1)); };
    Sum dot = 0, sum_h = 0;
    row.for_each([&](auto at) {
      dot += h(at) * (at.load(x)[0] - mu);
      sum_h += h(at);
    });
    const Sum back = row.sum(dot) * r * r / cols, mean_h = kCentred ? row.sum(sum_h) / cols : Sum(0);
    row.for_each([&](auto at) {
      auto v = at.load(x);
      v[0] = r * (h(at) - mean_h - (v[0] - mu) * back);
      if (added.data) v[0] += at.load(added)[0];
      at.store(dx, v);
    });
  }
};

// Terms of dgain (x not null: dy ⊙ x̂) and dbias (dy), for ops/sums.cuh.
template <class T>
struct ColumnTerms {
  Mat<const T> x, dy;
  const acc_t<T>*mean, *scale;

  template <int kWidth>
  __device__ cuda::Values<acc_t<T>, 1> load(int64_t, int64_t row, int64_t col, int) const {
    static_assert(kWidth == 1);
    const acc_t<T> d = dy.row(row)[col];
    if (!x.data) return {d};
    const acc_t<T> v = x.row(row)[col];
    return {d * (v - (mean ? mean[row] : acc_t<T>(0))) * scale[row]};
  }
};

// ---- Which of the two. ----

// Calls held(elements a lane) for a size that fits, or returns false.
template <class T, class F>
bool with_held_rows(const Mat<const T>& x, bool vectors_aligned, F held) {
  if constexpr (std::is_same_v<T, double>) {
    return false;
  } else {
    if (!vectors_aligned || x.cols > 32 * cuda::kWarp || !cuda::vectorisable(x)) return false;
    if (x.cols <= 8 * cuda::kWarp) return held(std::integral_constant<int, 8>()), true;
    if (x.cols <= 16 * cuda::kWarp) return held(std::integral_constant<int, 16>()), true;
    return held(std::integral_constant<int, 32>()), true;
  }
}

template <bool kCentred, class T>
void forward(Cuda device, Mat<const T> x, Scaling<acc_t<T>> scaling, double eps, Mat<T> y, acc_t<T>* mean,
             acc_t<T>* scale) {
  using Sum = acc_t<T>;
  const bool even = cuda::vectorisable(y) && cuda::aligned(scaling.gain) && cuda::aligned(scaling.bias);
  const auto held = [&](auto elements) {
    if constexpr (!std::is_same_v<T, double>) {
      cuda::launch(device, held_forward<T, elements(), kCentred>, cuda::blocks(x.count(), kWarps), kThreads,
                   0, x, scaling, static_cast<Sum>(eps), y, mean, scale);
    }
  };
  if (with_held_rows(x, even, held)) return;
  cuda::for_rows<1>(device, x.count(), x.cols,
                    AnyForward<Sum, kCentred>{scaling, static_cast<Sum>(eps), mean, scale}, x, y);
}

// Enough blocks to fill 132 multiprocessors, once; each gets the same rows on any card.
template <class T, bool kCentred>
constexpr int64_t kBackwardBlocks = 132 * kResident<T, kCentred>;

template <bool kCentred, class T>
void backward(Cuda device, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* mean, const acc_t<T>* scale,
              Mat<const T> dy, Mat<const T> added, Mat<T> dx, acc_t<T>* dgain, acc_t<T>* dbias) {
  using Sum = acc_t<T>;
  const bool even =
      cuda::vectorisable(dy) && cuda::vectorisable(dx) && cuda::vectorisable(added) && cuda::aligned(gain);
  const auto held = [&](auto elements) {
    if constexpr (!std::is_same_v<T, double>) {
      const int64_t wanted = std::min(kBackwardBlocks<T, kCentred>, cuda::blocks(x.count(), 2 * kWarps));
      const int64_t chunk = cuda::blocks(x.count(), std::max<int64_t>(wanted, 1));
      const int64_t grid = chunk ? cuda::blocks(x.count(), chunk) : 0;
      const cuda::Scratch<Sum> partial(grid * x.cols * ((dgain ? 1 : 0) + (dbias ? 1 : 0)));
      Sum* dgain_partial = dgain ? partial.data() : nullptr;
      Sum* dbias_partial = dbias ? partial.data() + (dgain ? grid * x.cols : 0) : nullptr;
      cuda::launch(device, held_backward<T, elements(), kCentred>, grid, kThreads, 0, x, gain, mean, scale,
                   dy, added, dx, chunk, dgain_partial, dbias_partial);
      if (dgain) cuda::add_partials(device, 1, grid, x.cols, dgain_partial, dgain);
      if (dbias) cuda::add_partials(device, 1, grid, x.cols, dbias_partial, dbias);
    }
  };
  if (with_held_rows(x, even, held)) return;
  if (dx.data)
    cuda::for_rows<1>(device, x.count(), x.cols, AnyBackward<Sum, kCentred>{gain, mean, scale}, x, dy, added,
                      dx);
  const int64_t rows = x.count();
  if (dgain)
    cuda::sum_terms<1>(device, ColumnTerms<T>{x, dy, kCentred ? mean : nullptr, scale}, 1, rows, x.cols,
                       dgain);
  if (dbias) cuda::sum_terms<1>(device, ColumnTerms<T>{{}, dy, nullptr, scale}, 1, rows, x.cols, dbias);
}

}  // namespace

template <class T>
void rms_norm(Cuda device, Mat<const T> x, const acc_t<T>* gain, double eps, Mat<T> y, acc_t<T>* scale) {
  forward<false>(device, x, Scaling<acc_t<T>>{gain, nullptr}, eps, y, static_cast<acc_t<T>*>(nullptr), scale);
}

template <class T>
void rms_norm_backward(Cuda device, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* scale,
                       Mat<const T> dy, Mat<T> dx, acc_t<T>* dgain, Mat<const T> added) {
  backward<false>(device, x, gain, static_cast<const acc_t<T>*>(nullptr), scale, dy, added, dx, dgain,
                  static_cast<acc_t<T>*>(nullptr));
}

template <class T>
void layer_norm(Cuda device, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* bias, double eps, Mat<T> y,
                acc_t<T>* mean, acc_t<T>* scale) {
  forward<true>(device, x, Scaling<acc_t<T>>{gain, bias}, eps, y, mean, scale);
}

template <class T>
void layer_norm_backward(Cuda device, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* mean,
                         const acc_t<T>* scale, Mat<const T> dy, Mat<T> dx, acc_t<T>* dgain,
                         acc_t<T>* dbias) {
  backward<true>(device, x, gain, mean, scale, dy, Mat<const T>(), dx, dgain, dbias);
}

#define MR_INSTANTIATE(T)                                                                                   \
  template void rms_norm(Cuda, Mat<const T>, const acc_t<T>*, double, Mat<T>, acc_t<T>*);                   \
  template void rms_norm_backward(Cuda, Mat<const T>, const acc_t<T>*, const acc_t<T>*, Mat<const T>,       \
                                  Mat<T>, acc_t<T>*, Mat<const T>);                                         \
  template void layer_norm(Cuda, Mat<const T>, const acc_t<T>*, const acc_t<T>*, double, Mat<T>, acc_t<T>*, \
                           acc_t<T>*);                                                                      \
  template void layer_norm_backward(Cuda, Mat<const T>, const acc_t<T>*, const acc_t<T>*, const acc_t<T>*,  \
                                    Mat<const T>, Mat<T>, acc_t<T>*, acc_t<T>*)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

// Binary cross entropy of logits, alone or per task, and softmax cross entropy; sums in f64.
//
// BCE: block (chunk, task) adds the terms of one task over a fixed chunk of rows, a second kernel adds the
// chunks in order and divides; backward is one thread an element.  Softmax cross entropy: up to a block
// shares a row, its term is written in f64, and the terms are added as in ops/sums.cuh.  Floor: logits,
// labels and weights once (backward: and the gradient); about 40 instructions an element.  Nothing is read on
// the host: the normaliser Σ w stays on the device.
#include "mixrec/ops/loss.h"
#include "mixrec/ops/pointwise_functions.h"
#include "mixrec/ops/softmax_rows.cuh"
#include "mixrec/ops/sums.cuh"

namespace mixrec::kernel {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kRowsPerBlock = 2048, kMostChunks = 1024;

// Σ w b and Σ w of one task over one chunk of rows, at partial[task][chunk].
struct Partial {
  double loss, weight;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    bce_chunks(int64_t rows, int64_t tasks, int64_t chunk, const T* logits, const T* labels, const T* weights,
               Partial* partial) {
  const int64_t begin = blockIdx.x * chunk, end = begin + chunk < rows ? begin + chunk : rows;
  for (int64_t task = blockIdx.y; task < tasks; task += gridDim.y) {
    Partial sum{0, 0};
    for (int64_t row = begin + threadIdx.x; row < end; row += kThreads) {
      const int64_t i = row * tasks + task;
      const double weight = weights ? static_cast<double>(weights[i]) : 1;
      if (weight == 0) continue;  // whatever its label and logit
      const acc_t<T> z = logits[i], label = labels[i];
      const acc_t<T> tail = simd::log1p(simd::exp(-simd::abs(z)));
      sum.loss += weight * static_cast<double>(simd::max(acc_t<T>(0), z) - z * label + tail);
      sum.weight += weight;
    }
    sum.loss = cuda::block_sum<kThreads>(sum.loss);
    sum.weight = cuda::block_sum<kThreads>(sum.weight);
    if (threadIdx.x == 0) partial[task * gridDim.x + blockIdx.x] = sum;
  }
}

// Kernels take no more than a few KB of arguments: losses come in batches of so many.
constexpr int kBatch = 128;
struct Normalisers {
  double at[kBatch];
};

// Block k finishes loss k of the batch from `count` consecutive partial sums.
template <class T>
__global__ void __launch_bounds__(kThreads)
    bce_finish(const Partial* partial, int64_t count, Normalisers normalisers, T* loss, acc_t<T>* factor) {
  const Partial* own = partial + blockIdx.x * count;
  Partial sum{0, 0};
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    sum.loss += own[i].loss;
    sum.weight += own[i].weight;
  }
  sum.loss = cuda::block_sum<kThreads>(sum.loss);
  sum.weight = cuda::block_sum<kThreads>(sum.weight);
  if (threadIdx.x != 0) return;
  const double given = normalisers.at[blockIdx.x], normaliser = given != 0 ? given : sum.weight;
  const double inverse = normaliser != 0 ? 1 / normaliser : 0;
  loss[blockIdx.x] = static_cast<T>(static_cast<acc_t<T>>(sum.loss * inverse));
  factor[blockIdx.x] = static_cast<acc_t<T>>(inverse);
}

template <class T>
struct BceBackward {
  const T *logits, *labels, *weights;
  const acc_t<T>* factor;
  const T* dy;
  bool per_task;

  // rows × tasks, dense
  template <class At>
  __device__ void operator()(At at, Mat<T> dx) const {
    const int64_t i = at.row * dx.cols + at.col, loss = per_task ? at.col : 0;
    const acc_t<T> weight = weights ? static_cast<acc_t<T>>(weights[i]) : acc_t<T>(1);
    acc_t<T> d = 0;
    if (weight != 0) {
      const acc_t<T> z = logits[i], label = labels[i];
      d = factor[loss] * static_cast<acc_t<T>>(dy[loss]) * weight * (simd::sigmoid(z) - label);
    }
    dx.data[i] = static_cast<T>(d);
  }
};

// One row's logsumexp, and its term of the loss.
template <class T>
struct CrossEntropyRow {
  const int64_t* labels;
  acc_t<T>* log_sums;
  double* terms;

  template <class Row>
  __device__ void operator()(Row row, Mat<const T> logits) const {
    const acc_t<T> log_sum = cuda::row_logsumexp(row, logits);
    if (!row.writes()) return;
    const int64_t label = labels[row.row];
    const bool known = label >= 0 && label < row.cols;
    const acc_t<T> own = known ? static_cast<acc_t<T>>(logits.row(row.row)[label]) : acc_t<T>(NAN);
    log_sums[row.row] = log_sum;
    terms[row.row] = static_cast<double>(log_sum) - static_cast<double>(own);
  }
};

template <class T>
__global__ void divide(const double* total, double normaliser, T* loss) {
  *loss = static_cast<T>(static_cast<acc_t<T>>(*total / normaliser));
}

template <class T>
struct CrossEntropyBackward {
  const int64_t* labels;
  double normaliser;
  const acc_t<T>* log_sums;
  const T* dy;

  template <class At>
  __device__ void operator()(At at, Mat<const T> logits, Mat<T> dx) const {
    const acc_t<T> factor = static_cast<acc_t<T>>(*dy) / static_cast<acc_t<T>>(normaliser);
    const acc_t<T> log_sum = log_sums[at.row];
    const int64_t label = labels[at.row];
    auto v = at.load(logits);
#pragma unroll
    for (int k = 0; k < At::kWidth; ++k)
      v[k] = (simd::exp(v[k] - log_sum) - (at.col + k == label ? 1 : 0)) * factor;
    at.store(dx, v);
  }
};

}  // namespace

template <class T>
void bce_with_logits(Cuda device, bool per_task, int64_t rows, int64_t tasks, const T* logits,
                     const T* labels, const T* weights, const double* normalisers, T* loss,
                     acc_t<T>* factor) {
  const int64_t losses = per_task ? tasks : 1;
  if (losses == 0) return;
  const int64_t chunk = std::max(kRowsPerBlock, cuda::blocks(rows, kMostChunks));
  const int64_t chunks = cuda::blocks(rows, chunk);
  const cuda::Scratch<Partial> partial(chunks * tasks);
  cuda::launch(device, bce_chunks<T>,
               dim3(static_cast<unsigned>(chunks), static_cast<unsigned>(std::min<int64_t>(tasks, 65535))),
               dim3(kThreads), 0, rows, tasks, chunk, logits, labels, weights, partial.data());
  const int64_t count = chunks * (per_task ? 1 : tasks);
  for (int64_t first = 0; first < losses; first += kBatch) {
    const int64_t batch = std::min<int64_t>(kBatch, losses - first);
    Normalisers given{};
    std::copy_n(normalisers + first, batch, given.at);
    cuda::launch(device, bce_finish<T>, batch, kThreads, 0, partial.data() + first * count, count, given,
                 loss + first, factor + first);
  }
}

template <class T>
void bce_with_logits_backward(Cuda device, bool per_task, int64_t rows, int64_t tasks, const T* logits,
                              const T* labels, const T* weights, const acc_t<T>* factor, const T* dy, T* dx) {
  cuda::for_tiles<1>(device, rows, tasks, BceBackward<T>{logits, labels, weights, factor, dy, per_task},
                     Mat<T>{dx, 1, rows, tasks, 0, tasks});
}

template <class T>
void softmax_cross_entropy(Cuda device, Mat<const T> logits, const int64_t* labels, double normaliser,
                           T* loss, acc_t<T>* log_sums) {
  const int64_t rows = logits.count();
  const cuda::Scratch<double> terms(rows), total(1);
  cuda::for_wide_rows(device, CrossEntropyRow<T>{labels, log_sums, terms.data()}, logits);
  cuda::sum_middle(device, 1, rows, 1, static_cast<const double*>(terms.data()), total.data());
  cuda::launch(device, divide<T>, 1, 1, 0, total.data(), normaliser, loss);
}

template <class T>
void softmax_cross_entropy_backward(Cuda device, Mat<const T> logits, const int64_t* labels,
                                    double normaliser, const acc_t<T>* log_sums, const T* dy, Mat<T> dx) {
  cuda::for_row_stretches(device, CrossEntropyBackward<T>{labels, normaliser, log_sums, dy}, logits, dx);
}

#define MR_INSTANTIATE(T)                                                                                   \
  template void bce_with_logits(Cuda, bool, int64_t, int64_t, const T*, const T*, const T*, const double*,  \
                                T*, acc_t<T>*);                                                             \
  template void bce_with_logits_backward(Cuda, bool, int64_t, int64_t, const T*, const T*, const T*,        \
                                         const acc_t<T>*, const T*, T*);                                    \
  template void softmax_cross_entropy(Cuda, Mat<const T>, const int64_t*, double, T*, acc_t<T>*);           \
  template void softmax_cross_entropy_backward(Cuda, Mat<const T>, const int64_t*, double, const acc_t<T>*, \
                                               const T*, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel

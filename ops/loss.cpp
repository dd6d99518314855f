#include "mixrec/ops/loss.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/loops.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/pointwise_functions.h"
#include "mixrec/ops/reduce.h"

#include <algorithm>
#include <vector>

namespace mixrec {
namespace {

void check_data(const Tensor& logits, const Tensor& data, const char* name) {
  check_same(logits, data, "the logits", name);
  MR_CHECK(data.shape() == logits.shape(), name, " ", data.shape(), " and the logits ", logits.shape(),
           " differ in shape");
  MR_CHECK(!data.needs_grad(), name, " cannot get a gradient: detach() them");
}

void check_normaliser(double normaliser) {
  MR_CHECK(normaliser >= 0, "the normaliser must not be negative, got ", normaliser);
}

Tensor empty_accumulators(int64_t count, const Tensor& x) {
  return empty({count}, x.dtype() == f64 ? f64 : f32, x.device());
}

template <class T>
const T* data_or_null(const Tensor& x) {
  return x ? x.data<const T>() : nullptr;
}

// `normalisers` holds one number for all tasks or, with per_task, one each.
Tensor bce(const Tensor& logits, const Tensor& labels, const Tensor& weights, bool per_task,
           const std::vector<double>& normalisers) {
  MR_CHECK(logits.ndim() == 2, "needs logits [C, K], got ", logits.shape());
  check_data(logits, labels, "the labels");
  if (weights) check_data(logits, weights, "the weights");
  for (const double normaliser : normalisers) check_normaliser(normaliser);
  const Tensor z = logits.detach().contiguous(), y = labels.contiguous();
  const Tensor w = weights ? weights.contiguous() : Tensor();
  const int64_t rows = z.dim(0), tasks = z.dim(1), losses = per_task ? tasks : 1;
  Tensor loss = empty(per_task ? Shape{tasks} : Shape{}, z.dtype(), z.device());
  Tensor factor = empty_accumulators(losses, z);
  run(z, [&]<class T>(auto backend) {
    kernel::bce_with_logits<T>(backend, per_task, rows, tasks, z.data<const T>(), y.data<const T>(),
                               data_or_null<T>(w), normalisers.data(), loss.data<T>(),
                               factor.data<acc_t<T>>());
  });
  return record(loss, {logits}, [&] {
    return [z = Saved(z), y = Saved(y), w = Saved(w), factor = Saved(factor), per_task, rows,
            tasks](const Tensor& dy) -> Grads {
      const Tensor dx = empty_like(z.get()), upstream = dy.contiguous();
      run(dx, [&]<class T>(auto backend) {
        kernel::bce_with_logits_backward<T>(backend, per_task, rows, tasks, z.get().data<const T>(),
                                            y.get().data<const T>(), data_or_null<T>(w.get()),
                                            factor.get().data<const acc_t<T>>(), upstream.data<const T>(),
                                            dx.data<T>());
      });
      return {dx};
    };
  });
}

}  // namespace

Tensor bce_with_logits(const Tensor& logits, const Tensor& labels, const Tensor& weights, double normaliser) {
  MR_OP("bce_with_logits");
  return bce(logits, labels, weights, false, {normaliser});
}

Tensor bce_with_logits_per_task(const Tensor& logits, const Tensor& labels, const Tensor& weights,
                                const std::vector<double>& normalisers) {
  MR_OP("bce_with_logits_per_task");
  MR_CHECK(logits.ndim() == 2, "needs logits [C, K], got ", logits.shape());
  const auto tasks = static_cast<size_t>(logits.dim(1));
  MR_CHECK(normalisers.empty() || normalisers.size() == tasks, normalisers.size(), " normalisers for ", tasks,
           " tasks");
  return bce(logits, labels, weights, true, normalisers.empty() ? std::vector<double>(tasks) : normalisers);
}

Tensor mse(const Tensor& prediction, const Tensor& target, double normaliser) {
  MR_OP("mse");
  MR_CHECK(prediction.shape() == target.shape(), "the prediction is ", prediction.shape(), " and the target ",
           target.shape());
  check_normaliser(normaliser);
  const double count = normaliser ? normaliser : static_cast<double>(prediction.numel());
  return sum(square(prediction - target)) * (count ? 1 / count : 0);
}

Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, double normaliser) {
  MR_OP("softmax_cross_entropy");
  MR_CHECK(logits.ndim() == 2 && logits.dim(1) > 0, "needs logits [B, K] with K > 0, got ", logits.shape());
  MR_CHECK(labels.dtype() == i64 && labels.shape() == Shape{logits.dim(0)}, "the labels must be i64 [",
           logits.dim(0), "], one for every row of the logits ", logits.shape(), ", got ", labels.dtype(),
           labels.shape());
  MR_CHECK(labels.device() == logits.device(), "the logits are on ", logits.device(), " and the labels on ",
           labels.device());
  check_normaliser(normaliser);
  const Tensor ids = labels.contiguous();
  for (int64_t i = 0; ids.device().is_cpu() && i < ids.numel(); ++i) {
    const int64_t id = ids.data<const int64_t>()[i];
    MR_CHECK(id >= 0 && id < logits.dim(1), "label ", id, " of row ", i, " is outside the ", logits.dim(1),
             " classes");
  }
  const double count = normaliser ? normaliser : static_cast<double>(std::max<int64_t>(logits.dim(0), 1));
  Tensor loss = empty({}, logits.dtype(), logits.device());
  Tensor log_sums = empty_accumulators(logits.dim(0), logits);
  run(logits, [&]<class T>(auto backend) {
    kernel::softmax_cross_entropy<T>(backend, logits.mat<const T>(), ids.data<const int64_t>(), count,
                                     loss.data<T>(), log_sums.data<acc_t<T>>());
  });
  return record(loss, {logits}, [&] {
    return
        [z = Saved(logits), ids = Saved(ids), log_sums = Saved(log_sums), count](const Tensor& dy) -> Grads {
          const Tensor dx = empty_like(z.get()), upstream = dy.contiguous();
          run(dx, [&]<class T>(auto backend) {
            kernel::softmax_cross_entropy_backward<T>(
                backend, z.get().mat<const T>(), ids.get().data<const int64_t>(), count,
                log_sums.get().data<const acc_t<T>>(), upstream.data<const T>(), dx.mat<T>());
          });
          return {dx};
        };
  });
}

namespace kernel {

template <class T>
void bce_with_logits(Cpu, bool per_task, int64_t rows, int64_t tasks, const T* logits, const T* labels,
                     const T* weights, const double* normalisers, T* loss, acc_t<T>* factor) {
  std::vector<double> sums(static_cast<size_t>(2 * tasks));  // Σ w b of every task, then Σ w
  chunked_reduce(rows, 2 * tasks, 10 * tasks, sums.data(), [&](int64_t begin, int64_t end, double* partial) {
    // Few tasks make short rows, so terms are computed in blocks of the dense matrix and then dealt out.
    constexpr int64_t kBlock = 256;
    acc_t<T> terms[kBlock];
    for (int64_t start = begin * tasks; start < end * tasks; start += kBlock) {
      const int64_t count = std::min(kBlock, end * tasks - start);
      simd::for_packs<T>(count, [&](auto at) {
        const auto z = at.load(logits + start);
        const auto tail = simd::log1p(simd::exp(-simd::abs(z)));
        at.store(terms, simd::max(decltype(z)(0), z) - z * at.load(labels + start) + tail);
      });
      for (int64_t j = 0; j < count; ++j) {
        const double weight = weights ? static_cast<double>(weights[start + j]) : 1;
        if (weight == 0) continue;
        const int64_t task = (start + j) % tasks;
        partial[task] += weight * static_cast<double>(terms[j]);
        partial[tasks + task] += weight;
      }
    }
  });
  const int64_t losses = per_task ? tasks : 1;
  for (int64_t k = 0; k < losses; ++k) {
    double total = 0, weight = 0;
    for (int64_t task = per_task ? k : 0; task < (per_task ? k + 1 : tasks); ++task) {
      total += sums[static_cast<size_t>(task)];
      weight += sums[static_cast<size_t>(tasks + task)];
    }
    const double normaliser = normalisers[k] != 0 ? normalisers[k] : weight;
    const double inverse = normaliser != 0 ? 1 / normaliser : 0;
    loss[k] = static_cast<T>(static_cast<acc_t<T>>(total * inverse));
    factor[k] = static_cast<acc_t<T>>(inverse);
  }
}

template <class T>
void bce_with_logits_backward(Cpu, bool per_task, int64_t rows, int64_t tasks, const T* logits,
                              const T* labels, const T* weights, const acc_t<T>* factor, const T* dy, T* dx) {
  std::vector<acc_t<T>> scales(static_cast<size_t>(tasks));
  for (int64_t k = 0; k < tasks; ++k) {
    const int64_t loss = per_task ? k : 0;
    scales[static_cast<size_t>(k)] = factor[loss] * static_cast<acc_t<T>>(dy[loss]);
  }
  for_rows(rows, 10 * tasks, [&](int64_t i) {
    const int64_t start = i * tasks;
    simd::for_packs<T>(tasks, [&](auto at) {
      const auto slope = simd::sigmoid(at.load(logits + start)) - at.load(labels + start);
      const auto scale = at.load(scales.data());
      using V = std::remove_const_t<decltype(scale)>;
      const V weight = weights ? at.load(weights + start) : V(1);
      at.store(dx + start, simd::select(weight == V(0), V(0), scale * weight * slope));
    });
  });
}

template <class T>
void softmax_cross_entropy(Cpu, Mat<const T> logits, const int64_t* labels, double normaliser, T* loss,
                           acc_t<T>* log_sums) {
  const int64_t n = logits.cols;
  double total = 0;
  chunked_reduce(logits.count(), 1, 8 * n, &total, [&](int64_t begin, int64_t end, double* partial) {
    for (int64_t i = begin; i < end; ++i) {
      const T* row = logits.row(i);
      const acc_t<T> shift = simd::max_packs(n, row);
      const simd::Value<T> largest = shift;
      const auto sum = simd::sum_packs<T>(n, [&](auto at) { return simd::exp(at.load(row) - largest); });
      log_sums[i] = shift + simd::log(sum);
      *partial += static_cast<double>(log_sums[i]) - static_cast<double>(row[labels[i]]);
    }
  });
  *loss = static_cast<T>(static_cast<acc_t<T>>(total / normaliser));
}

template <class T>
void softmax_cross_entropy_backward(Cpu, Mat<const T> logits, const int64_t* labels, double normaliser,
                                    const acc_t<T>* log_sums, const T* dy, Mat<T> dx) {
  const int64_t n = logits.cols;
  const acc_t<T> factor = static_cast<acc_t<T>>(*dy) / static_cast<acc_t<T>>(normaliser);
  for_rows(logits.count(), 8 * n, [&](int64_t i) {
    const T* row = logits.row(i);
    T* grad = dx.row(i);
    const simd::Value<T> log_sum = log_sums[i], scale = factor;
    simd::for_packs<T>(n, [&](auto at) { at.store(grad, simd::exp(at.load(row) - log_sum) * scale); });
    const acc_t<T> own = simd::exp(static_cast<acc_t<T>>(row[labels[i]]) - log_sums[i]);
    grad[labels[i]] = static_cast<T>((own - 1) * factor);
  });
}

#define MR_INSTANTIATE(T)                                                                                  \
  template void bce_with_logits(Cpu, bool, int64_t, int64_t, const T*, const T*, const T*, const double*,  \
                                T*, acc_t<T>*);                                                            \
  template void bce_with_logits_backward(Cpu, bool, int64_t, int64_t, const T*, const T*, const T*,        \
                                         const acc_t<T>*, const T*, T*);                                   \
  template void softmax_cross_entropy(Cpu, Mat<const T>, const int64_t*, double, T*, acc_t<T>*);           \
  template void softmax_cross_entropy_backward(Cpu, Mat<const T>, const int64_t*, double, const acc_t<T>*, \
                                               const T*, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

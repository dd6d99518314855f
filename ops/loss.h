// Losses: a sum over examples divided by a count.  The count may be given, so that micro-batches and several
// machines divide by the count of the whole batch; 0 means that of the tensors at hand.
//
// Labels and weights are data: they get no gradient, and asking for one is an error.  Sums are kept in f64.
#pragma once

#include "mixrec/core/dtype.h"
#include "mixrec/core/tensor.h"

#include <vector>

namespace mixrec {

// Binary cross entropy of logits z against labels y in [0, 1] -> []:
//
//   Σ w b / normaliser      b = max(z, 0) - z y + log(1 + e^-|z|)      dz = dy w (σ(z) - y) / normaliser
//
// logits, labels, weights: [C, K], one dtype; undefined weights are 1.  normaliser 0 stands for Σ w, and the
// loss is 0 when that is.  An entry of weight 0 does not count, whatever its label and logit.
Tensor bce_with_logits(const Tensor& logits, const Tensor& labels, const Tensor& weights = {},
                       double normaliser = 0);

// The same for every task (column) by itself -> [K], each divided by its own Σ w or the one given.
Tensor bce_with_logits_per_task(const Tensor& logits, const Tensor& labels, const Tensor& weights = {},
                                const std::vector<double>& normalisers = {});

// Σ (prediction - target)² / normaliser -> [], over equal shapes; 0 stands for the number of elements.
Tensor mse(const Tensor& prediction, const Tensor& target, double normaliser = 0);

// Σ_i (logsumexp(z_i) - z_i[label_i]) / normaliser -> [].  logits: [B, K], labels: i64 [B] in [0, K);
// 0 stands for B.  dz = dy (softmax(z) - onehot(label)) / normaliser; saves z and its logsumexp.
Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, double normaliser = 0);

namespace kernel {

// Dense operands; weights may be null.  loss: one number, or one a task with per_task.  normalisers: as many,
// 0 for Σ w; `factor` receives their inverses (0 where they are 0).
template <class T>
void bce_with_logits(Cpu, bool per_task, int64_t rows, int64_t tasks, const T* logits, const T* labels,
                     const T* weights, const double* normalisers, T* loss, acc_t<T>* factor);
template <class T>
void bce_with_logits_backward(Cpu, bool per_task, int64_t rows, int64_t tasks, const T* logits,
                              const T* labels, const T* weights, const acc_t<T>* factor, const T* dy, T* dx);
template <class T>
void softmax_cross_entropy(Cpu, Mat<const T> logits, const int64_t* labels, double normaliser, T* loss,
                           acc_t<T>* log_sums);
template <class T>
void softmax_cross_entropy_backward(Cpu, Mat<const T> logits, const int64_t* labels, double normaliser,
                                    const acc_t<T>* log_sums, const T* dy, Mat<T> dx);

// The same on a device; `normalisers` is host memory there too.  A label outside the classes makes the loss
// NaN.
template <class T>
void bce_with_logits(Cuda, bool per_task, int64_t rows, int64_t tasks, const T* logits, const T* labels,
                     const T* weights, const double* normalisers, T* loss, acc_t<T>* factor);
template <class T>
void bce_with_logits_backward(Cuda, bool per_task, int64_t rows, int64_t tasks, const T* logits,
                              const T* labels, const T* weights, const acc_t<T>* factor, const T* dy, T* dx);
template <class T>
void softmax_cross_entropy(Cuda, Mat<const T> logits, const int64_t* labels, double normaliser, T* loss,
                           acc_t<T>* log_sums);
template <class T>
void softmax_cross_entropy_backward(Cuda, Mat<const T> logits, const int64_t* labels, double normaliser,
                                    const acc_t<T>* log_sums, const T* dy, Mat<T> dx);

}  // namespace kernel
}  // namespace mixrec

#include "mixrec/ops/softmax.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"

#include <cmath>

namespace mixrec {

namespace {

void check_rows(const Tensor& x) {
  MR_CHECK(x.ndim() > 0 && x.dim(-1) > 0, "needs a non-empty last dimension, got ", x.shape());
}

Tensor softmax_backward(const Tensor& y, const Tensor& dy) {
  Tensor dx = empty_like(y);
  run(y, [&]<class T>(auto backend) {
    kernel::softmax_backward<T>(backend, y.mat<const T>(), dy.mat<const T>(), dx.mat<T>());
  });
  return dx;
}

Tensor log_softmax_backward(const Tensor& y, const Tensor& dy) {
  Tensor dx = empty_like(y);
  run(y, [&]<class T>(auto backend) {
    kernel::log_softmax_backward<T>(backend, y.mat<const T>(), dy.mat<const T>(), dx.mat<T>());
  });
  return dx;
}

Tensor logsumexp_backward(const Tensor& x, const Tensor& y, const Tensor& dy) {
  Tensor dx = empty_like(x);
  run(x, [&]<class T>(auto backend) {
    kernel::logsumexp_backward<T>(backend, x.mat<const T>(), y.data<const T>(), dy.data<const T>(),
                                  dx.mat<T>());
  });
  return dx;
}

}  // namespace

Tensor softmax(const Tensor& x) {
  MR_OP("softmax");
  check_rows(x);
  Tensor y = empty_like(x);
  run(x, [&]<class T>(auto backend) { kernel::softmax<T>(backend, x.mat<const T>(), y.mat<T>()); });
  return record(y, {x}, [&] {
    return [y = Saved(y)](const Tensor& dy) -> Grads { return {softmax_backward(y.get(), dy.contiguous())}; };
  });
}

Tensor log_softmax(const Tensor& x) {
  MR_OP("log_softmax");
  check_rows(x);
  Tensor y = empty_like(x);
  run(x, [&]<class T>(auto backend) { kernel::log_softmax<T>(backend, x.mat<const T>(), y.mat<T>()); });
  return record(y, {x}, [&] {
    return [y = Saved(y)](const Tensor& dy) -> Grads {
      return {log_softmax_backward(y.get(), dy.contiguous())};
    };
  });
}

Tensor logsumexp(const Tensor& x) {
  MR_OP("logsumexp");
  check_rows(x);
  Shape shape = x.shape();
  shape.remove(-1);
  Tensor y = empty(shape, x.dtype(), x.device());
  run(x, [&]<class T>(auto backend) { kernel::logsumexp<T>(backend, x.mat<const T>(), y.data<T>()); });
  return record(y, {x}, [&] {
    return [x = Saved(x), y = Saved(y)](const Tensor& dy) -> Grads {
      return {logsumexp_backward(x.get(), y.get(), dy.contiguous())};
    };
  });
}

namespace kernel {
namespace {

// Largest element, in the accumulation type.
template <class T>
acc_t<T> row_max(const T* x, int64_t n) {
  acc_t<T> largest = x[0];
  for (int64_t j = 1; j < n; ++j) largest = std::max<acc_t<T>>(largest, x[j]);
  return largest;
}

template <class T>
acc_t<T> row_sum_exp(const T* x, int64_t n, acc_t<T> shift) {
  acc_t<T> sum = 0;
  for (int64_t j = 0; j < n; ++j) sum += std::exp(static_cast<acc_t<T>>(x[j]) - shift);
  return sum;
}

// Calls f(i) for every row, in parallel.
template <class T, class F>
void for_rows(Mat<T> x, F f) {
  parallel_for(x.count(), 8 * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

}  // namespace

template <class T>
void softmax(Cpu, Mat<const T> x, Mat<T> y) {
  for_rows(x, [&](int64_t i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    const acc_t<T> shift = row_max(in, x.cols);
    const acc_t<T> scale = 1 / row_sum_exp(in, x.cols, shift);
    for (int64_t j = 0; j < x.cols; ++j)
      out[j] = static_cast<T>(std::exp(static_cast<acc_t<T>>(in[j]) - shift) * scale);
  });
}

template <class T>
void softmax_backward(Cpu, Mat<const T> y, Mat<const T> dy, Mat<T> dx) {
  for_rows(y, [&](int64_t i) {
    const T *out = y.row(i), *upstream = dy.row(i);
    T* grad = dx.row(i);
    acc_t<T> dot = 0;
    for (int64_t j = 0; j < y.cols; ++j)
      dot += static_cast<acc_t<T>>(out[j]) * static_cast<acc_t<T>>(upstream[j]);
    for (int64_t j = 0; j < y.cols; ++j) {
      grad[j] = static_cast<T>(static_cast<acc_t<T>>(out[j]) * (static_cast<acc_t<T>>(upstream[j]) - dot));
    }
  });
}

template <class T>
void log_softmax(Cpu, Mat<const T> x, Mat<T> y) {
  for_rows(x, [&](int64_t i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    const acc_t<T> shift = row_max(in, x.cols);
    const acc_t<T> log_sum = shift + std::log(row_sum_exp(in, x.cols, shift));
    for (int64_t j = 0; j < x.cols; ++j) out[j] = static_cast<T>(static_cast<acc_t<T>>(in[j]) - log_sum);
  });
}

template <class T>
void log_softmax_backward(Cpu, Mat<const T> y, Mat<const T> dy, Mat<T> dx) {
  for_rows(y, [&](int64_t i) {
    const T *out = y.row(i), *upstream = dy.row(i);
    T* grad = dx.row(i);
    acc_t<T> sum = 0;
    for (int64_t j = 0; j < y.cols; ++j) sum += static_cast<acc_t<T>>(upstream[j]);
    for (int64_t j = 0; j < y.cols; ++j) {
      grad[j] =
          static_cast<T>(static_cast<acc_t<T>>(upstream[j]) - std::exp(static_cast<acc_t<T>>(out[j])) * sum);
    }
  });
}

template <class T>
void logsumexp(Cpu, Mat<const T> x, T* y) {
  for_rows(x, [&](int64_t i) {
    const acc_t<T> shift = row_max(x.row(i), x.cols);
    y[i] = static_cast<T>(shift + std::log(row_sum_exp(x.row(i), x.cols, shift)));
  });
}

template <class T>
void logsumexp_backward(Cpu, Mat<const T> x, const T* y, const T* dy, Mat<T> dx) {
  for_rows(x, [&](int64_t i) {
    const T* in = x.row(i);
    T* grad = dx.row(i);
    for (int64_t j = 0; j < x.cols; ++j) {
      grad[j] = static_cast<T>(std::exp(static_cast<acc_t<T>>(in[j]) - static_cast<acc_t<T>>(y[i])) *
                               static_cast<acc_t<T>>(dy[i]));
    }
  });
}

#define MR_INSTANTIATE(T)                                                      \
  template void softmax(Cpu, Mat<const T>, Mat<T>);                            \
  template void softmax_backward(Cpu, Mat<const T>, Mat<const T>, Mat<T>);     \
  template void log_softmax(Cpu, Mat<const T>, Mat<T>);                        \
  template void log_softmax_backward(Cpu, Mat<const T>, Mat<const T>, Mat<T>); \
  template void logsumexp(Cpu, Mat<const T>, T*);                              \
  template void logsumexp_backward(Cpu, Mat<const T>, const T*, const T*, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

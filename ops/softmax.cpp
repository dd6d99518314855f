#include "mixrec/ops/softmax.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/loops.h"

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

// Sum of exp(x - shift) over a row.
template <class T>
acc_t<T> sum_exp(int64_t n, const T* x, simd::Value<T> shift) {
  return simd::sum_packs<T>(n, [=](auto at) { return simd::exp(at.load(x) - shift); });
}

template <class T>
acc_t<T> row_logsumexp(int64_t n, const T* x) {
  const acc_t<T> shift = simd::max_packs(n, x);
  return shift + simd::log(sum_exp<T>(n, x, shift));
}

}  // namespace

template <class T>
void softmax(Cpu, Mat<const T> x, Mat<T> y) {
  const int64_t n = x.cols;
  for_rows(x.count(), 16 * n, [&](int64_t i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    const simd::Value<T> shift = simd::max_packs(n, in), scale = 1 / sum_exp<T>(n, in, shift);
    simd::for_packs<T>(n, [=](auto at) { at.store(out, simd::exp(at.load(in) - shift) * scale); });
  });
}

template <class T>
void softmax_backward(Cpu, Mat<const T> y, Mat<const T> dy, Mat<T> dx) {
  const int64_t n = y.cols;
  for_rows(y.count(), 4 * n, [&](int64_t i) {
    const T *out = y.row(i), *upstream = dy.row(i);
    T* grad = dx.row(i);
    const simd::Value<T> dot =
        simd::sum_packs<T>(n, [=](auto at) { return at.load(out) * at.load(upstream); });
    simd::for_packs<T>(n, [=](auto at) { at.store(grad, at.load(out) * (at.load(upstream) - dot)); });
  });
}

template <class T>
void log_softmax(Cpu, Mat<const T> x, Mat<T> y) {
  const int64_t n = x.cols;
  for_rows(x.count(), 8 * n, [&](int64_t i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    const simd::Value<T> log_sum = row_logsumexp(n, in);
    simd::for_packs<T>(n, [=](auto at) { at.store(out, at.load(in) - log_sum); });
  });
}

template <class T>
void log_softmax_backward(Cpu, Mat<const T> y, Mat<const T> dy, Mat<T> dx) {
  const int64_t n = y.cols;
  for_rows(y.count(), 8 * n, [&](int64_t i) {
    const T *out = y.row(i), *upstream = dy.row(i);
    T* grad = dx.row(i);
    const simd::Value<T> sum = simd::sum_packs<T>(n, [=](auto at) { return at.load(upstream); });
    simd::for_packs<T>(n,
                       [=](auto at) { at.store(grad, at.load(upstream) - simd::exp(at.load(out)) * sum); });
  });
}

template <class T>
void logsumexp(Cpu, Mat<const T> x, T* y) {
  for_rows(x.count(), 8 * x.cols, [&](int64_t i) { y[i] = static_cast<T>(row_logsumexp(x.cols, x.row(i))); });
}

template <class T>
void logsumexp_backward(Cpu, Mat<const T> x, const T* y, const T* dy, Mat<T> dx) {
  for_rows(x.count(), 8 * x.cols, [&](int64_t i) {
    const T* in = x.row(i);
    T* grad = dx.row(i);
    const simd::Value<T> log_sum = static_cast<acc_t<T>>(y[i]), scale = static_cast<acc_t<T>>(dy[i]);
    simd::for_packs<T>(x.cols, [=](auto at) { at.store(grad, simd::exp(at.load(in) - log_sum) * scale); });
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

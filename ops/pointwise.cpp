#include "mixrec/ops/pointwise.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/loops.h"
#include "mixrec/ops/pointwise_functions.h"

namespace mixrec {
namespace {

template <class F>
Tensor apply(const F& function, const Tensor& x) {
  Tensor y = empty_like(x);
  run(x,
      [&]<class T>(auto backend) { kernel::pointwise<T>(backend, function, x.mat<const T>(), y.mat<T>()); });
  return record(y, {x}, [&] {
    return [function, saved = Saved(x)](const Tensor& upstream) -> Grads {
      const Tensor &in = saved.get(), dy = upstream.contiguous(), dx = empty_like(in);
      run(in, [&]<class T>(auto backend) {
        kernel::pointwise_backward<T>(backend, function, in.mat<const T>(), dy.mat<const T>(), dx.mat<T>());
      });
      return {dx};
    };
  });
}

}  // namespace

Tensor relu(const Tensor& x) {
  MR_OP("relu");
  return apply(pointwise::Relu{}, x);
}

Tensor leaky_relu(const Tensor& x, double negative_slope) {
  MR_OP("leaky_relu");
  return apply(pointwise::LeakyRelu{negative_slope}, x);
}

Tensor silu(const Tensor& x) {
  MR_OP("silu");
  return apply(pointwise::Silu{}, x);
}

Tensor gelu(const Tensor& x) {
  MR_OP("gelu");
  return apply(pointwise::Gelu{}, x);
}

Tensor sigmoid(const Tensor& x) {
  MR_OP("sigmoid");
  return apply(pointwise::Sigmoid{}, x);
}

Tensor tanh(const Tensor& x) {
  MR_OP("tanh");
  return apply(pointwise::Tanh{}, x);
}

Tensor exp(const Tensor& x) {
  MR_OP("exp");
  return apply(pointwise::Exp{}, x);
}

Tensor log(const Tensor& x) {
  MR_OP("log");
  return apply(pointwise::Log{}, x);
}

Tensor log1p(const Tensor& x) {
  MR_OP("log1p");
  return apply(pointwise::Log1p{}, x);
}

Tensor sqrt(const Tensor& x) {
  MR_OP("sqrt");
  return apply(pointwise::Sqrt{}, x);
}

Tensor square(const Tensor& x) {
  MR_OP("square");
  return apply(pointwise::Square{}, x);
}

Tensor abs(const Tensor& x) {
  MR_OP("abs");
  return apply(pointwise::Abs{}, x);
}

Tensor softplus(const Tensor& x) {
  MR_OP("softplus");
  return apply(pointwise::Softplus{}, x);
}

Tensor clamp(const Tensor& x, double low, double high) {
  MR_OP("clamp");
  MR_CHECK(low <= high, "the lower bound ", low, " is above the upper one ", high);
  return apply(pointwise::Clamp{low, high}, x);
}

Tensor pow(const Tensor& x, double exponent) {
  MR_OP("pow");
  return apply(pointwise::Pow{exponent}, x);
}

namespace kernel {

template <class T, class F>
void pointwise(Cpu, const F& function, Mat<const T> x, Mat<T> y) {
  const auto stretch = [&](int64_t n, const T* in, T* out) {
    simd::for_packs<T>(n, [&](auto at) { at.store(out, function.value(at.load(in))); });
  };
  for_stretches(8, stretch, x, y);
}

template <class T, class F>
void pointwise_backward(Cpu, const F& function, Mat<const T> x, Mat<const T> dy, Mat<T> dx) {
  const auto stretch = [&](int64_t n, const T* in, const T* upstream, T* grad) {
    simd::for_packs<T>(n, [&](auto at) { at.store(grad, at.load(upstream) * function.slope(at.load(in))); });
  };
  for_stretches(8, stretch, x, dy, dx);
}

}  // namespace kernel
}  // namespace mixrec

#include "mixrec/ops/ffn/swiglu.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/loops.h"

namespace mixrec {
namespace {

Tensor forward(const Tensor& gate, const Tensor& up) {
  Tensor y = empty_like(gate);
  run(gate, [&]<class T>(auto backend) {
    kernel::swiglu<T>(backend, gate.mat<const T>(), up.mat<const T>(), y.mat<T>());
  });
  return y;
}

// An undefined gradient is not computed.
void backward(const Tensor& gate, const Tensor& up, const Tensor& dy, const Tensor& dgate,
              const Tensor& dup) {
  run(gate, [&]<class T>(auto backend) {
    kernel::swiglu_backward<T>(backend, gate.mat<const T>(), up.mat<const T>(), dy.mat<const T>(),
                               dgate ? dgate.mat<T>() : Mat<T>(), dup ? dup.mat<T>() : Mat<T>());
  });
}

Tensor half(const Tensor& x, int which) {
  const int64_t width = x.dim(-1) / 2;
  return x.detach().narrow(-1, which * width, width);
}

}  // namespace

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  MR_OP("swiglu");
  check_same(gate, up, "the gate", "the up projection");
  MR_CHECK(gate.shape() == up.shape(), "the gate is ", gate.shape(), " and the up projection ", up.shape());
  return record(forward(gate, up), {gate, up}, [&] {
    return [gate = Saved(gate), up = Saved(up)](const Tensor& dy, const Needs& needs) -> Grads {
      const Tensor dgate = needs[0] ? empty_like(gate.get()) : Tensor();
      const Tensor dup = needs[1] ? empty_like(up.get()) : Tensor();
      backward(gate.get(), up.get(), dy.contiguous(), dgate, dup);
      return {dgate, dup};
    };
  });
}

Tensor swiglu(const Tensor& gate_up) {
  MR_OP("swiglu");
  MR_CHECK(gate_up.ndim() > 0 && gate_up.dim(-1) % 2 == 0,
           "the last dimension holds gate and up side by side and must be even, got ", gate_up.shape());
  return record(forward(half(gate_up, 0), half(gate_up, 1)), {gate_up}, [&] {
    return [saved = Saved(gate_up)](const Tensor& dy) -> Grads {
      const Tensor& x = saved.get();
      const Tensor dx = empty_like(x);
      backward(half(x, 0), half(x, 1), dy.contiguous(), half(dx, 0), half(dx, 1));
      return {dx};
    };
  });
}

namespace kernel {

template <class T>
void swiglu(Cpu, Mat<const T> gate, Mat<const T> up, Mat<T> y) {
  const auto stretch = [](int64_t n, const T* g, const T* u, T* out) {
    simd::for_packs<T>(n, [=](auto at) {
      const auto x = at.load(g);
      at.store(out, x * simd::sigmoid(x) * at.load(u));
    });
  };
  for_stretches(8, stretch, gate, up, y);
}

template <class T>
void swiglu_backward(Cpu, Mat<const T> gate, Mat<const T> up, Mat<const T> dy, Mat<T> dgate, Mat<T> dup) {
  const auto stretch = [](int64_t n, const T* g, const T* u, const T* upstream, T* dg, T* du) {
    simd::for_packs<T>(n, [=](auto at) {
      const auto x = at.load(g), s = simd::sigmoid(x), d = at.load(upstream), silu = x * s;
      if (dg) at.store(dg, d * at.load(u) * (s + silu * (1.0f - s)));
      if (du) at.store(du, d * silu);
    });
  };
  for_stretches(12, stretch, gate, up, dy, dgate, dup);
}

#define MR_INSTANTIATE(T)                                        \
  template void swiglu(Cpu, Mat<const T>, Mat<const T>, Mat<T>); \
  template void swiglu_backward(Cpu, Mat<const T>, Mat<const T>, Mat<const T>, Mat<T>, Mat<T>)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

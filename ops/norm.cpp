#include "mixrec/ops/norm.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/loops.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace mixrec {
namespace {

void check_rows(const Tensor& x) {
  MR_CHECK(x.ndim() > 0 && x.dim(-1) > 0, "needs a non-empty last dimension, got ", x.shape());
}

void check_vector(const Tensor& x, const Tensor& vector, const char* name) {
  if (!vector) return;
  MR_CHECK(vector.ndim() == 1 && vector.dim(0) == x.dim(-1), name, " is ", vector.shape(), ", but rows of x ",
           x.shape(), " have ", x.dim(-1), " elements");
  MR_CHECK(vector.is_contiguous(), name, " is strided: call contiguous()");
  if (x.dtype() == bf16 && vector.dtype() == f32) {
    MR_CHECK(vector.device() == x.device(), "x is on ", x.device(), " and ", name, " on ", vector.device());
  } else {
    check_same(x, vector, "x", name);
  }
}

DType statistics_of(const Tensor& x) { return x.dtype() == f64 ? f64 : f32; }

// A gain or bias as kernels take it; stays undefined.
Tensor widened(const Tensor& vector) {
  return vector ? cast(vector.detach(), statistics_of(vector)) : vector;
}

// Room for the gradient of a gain or bias of x, an input of the op, if it is needed.
Tensor vector_gradient(const Tensor& x, const Needs& needs, size_t input) {
  return needs[input] ? needs.gradient(input, {x.dim(-1)}, statistics_of(x), x.device()) : Tensor();
}

// One statistic a row, in the accumulation type.
Tensor empty_statistic(const Tensor& x) {
  return empty({x.numel() / x.dim(-1)}, statistics_of(x), x.device());
}

template <class T>
T* data_or_null(const Tensor& x) {
  return x ? x.data<T>() : nullptr;
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& gain, double eps) {
  MR_OP("rms_norm");
  check_rows(x);
  check_vector(x, gain, "the gain");
  Tensor y = empty_like(x), scale = empty_statistic(x);
  const Tensor wide = widened(gain);
  run(x, [&]<class T>(auto backend) {
    kernel::rms_norm<T>(backend, x.mat<const T>(), data_or_null<const acc_t<T>>(wide), eps, y.mat<T>(),
                        scale.data<acc_t<T>>());
  });
  return record(y, {x, gain}, [&] {
    return [x = Saved(x), gain = Saved(gain), scale = Saved(scale)](const Tensor& upstream,
                                                                    const Needs& needs) -> Grads {
      const Tensor &in = x.get(), wide = widened(gain.get()), dy = upstream.contiguous();
      // On a device what other uses of x have left of its gradient is added on the way.
      const Tensor sum = in.device().is_cuda() ? needs.running(0) : Tensor();
      const Tensor dx = sum        ? sum
                        : needs[0] ? empty_like(in)
                                   : Tensor(),
                   dgain = vector_gradient(in, needs, 1);
      run(in, [&]<class T>(auto backend) {
        const auto go = [&](auto... added) {
          kernel::rms_norm_backward<T>(backend, in.mat<const T>(), data_or_null<const acc_t<T>>(wide),
                                       scale.get().data<acc_t<T>>(), dy.mat<const T>(),
                                       dx ? dx.mat<T>() : Mat<T>(), data_or_null<acc_t<T>>(dgain), added...);
        };
        if constexpr (std::is_same_v<decltype(backend), Cuda>) {
          go(sum ? sum.mat<const T>() : Mat<const T>());
        } else {
          go();
        }
      });
      return {dx, dgain ? cast(dgain, gain.get().dtype()) : dgain};
    };
  });
}

Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double eps) {
  MR_OP("layer_norm");
  check_rows(x);
  check_vector(x, gain, "the gain");
  check_vector(x, bias, "the bias");
  Tensor y = empty_like(x), mean = empty_statistic(x), scale = empty_statistic(x);
  const Tensor wide_gain = widened(gain), wide_bias = widened(bias);
  run(x, [&]<class T>(auto backend) {
    kernel::layer_norm<T>(backend, x.mat<const T>(), data_or_null<const acc_t<T>>(wide_gain),
                          data_or_null<const acc_t<T>>(wide_bias), eps, y.mat<T>(), mean.data<acc_t<T>>(),
                          scale.data<acc_t<T>>());
  });
  return record(y, {x, gain, bias}, [&] {
    return [x = Saved(x), gain = Saved(gain), mean = Saved(mean), scale = Saved(scale),
            bias_dtype = bias ? bias.dtype() : x.dtype()](const Tensor& upstream,
                                                          const Needs& needs) -> Grads {
      const Tensor &in = x.get(), wide = widened(gain.get()), dy = upstream.contiguous();
      const Tensor dx = needs[0] ? empty_like(in) : Tensor();
      const Tensor dgain = vector_gradient(in, needs, 1), dbias = vector_gradient(in, needs, 2);
      run(in, [&]<class T>(auto backend) {
        kernel::layer_norm_backward<T>(backend, in.mat<const T>(), data_or_null<const acc_t<T>>(wide),
                                       mean.get().data<acc_t<T>>(), scale.get().data<acc_t<T>>(),
                                       dy.mat<const T>(), dx ? dx.mat<T>() : Mat<T>(),
                                       data_or_null<acc_t<T>>(dgain), data_or_null<acc_t<T>>(dbias));
      });
      return {dx, dgain ? cast(dgain, gain.get().dtype()) : dgain, dbias ? cast(dbias, bias_dtype) : dbias};
    };
  });
}

namespace kernel {
namespace {

// Calls row(i, sums) for every row.  What the rows add to sums[0 .. width) ends up in `sums`, in an order
// that does not depend on the threads; with width 0 they get a null pointer.
template <class Sum, class F>
void for_rows_with_sums(int64_t rows, int64_t work, std::vector<Sum>& sums, F row) {
  const auto width = static_cast<int64_t>(sums.size());
  if (width == 0) return for_rows(rows, work, [&](int64_t i) { row(i, static_cast<Sum*>(nullptr)); });
  chunked_reduce(rows, width, work, sums.data(), [&](int64_t begin, int64_t end, Sum* partial) {
    for (int64_t i = begin; i < end; ++i) row(i, partial);
  });
}

template <class At, class T>
auto load_or(At at, const T* row, float otherwise) {
  return row ? at.load(row) : decltype(at.load(row))(otherwise);
}

}  // namespace

template <class T>
void rms_norm(Cpu, Mat<const T> x, const acc_t<T>* gain, double eps, Mat<T> y, acc_t<T>* scale) {
  const int64_t n = x.cols;
  for_rows(x.count(), 4 * n, [&](int64_t i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    const acc_t<T> squares = simd::sum_packs<T>(n, [&](auto at) { return at.load(in) * at.load(in); });
    scale[i] = 1 / std::sqrt(squares / static_cast<acc_t<T>>(n) + static_cast<acc_t<T>>(eps));
    const simd::Value<T> r = scale[i];
    simd::for_packs<T>(n, [&](auto at) { at.store(out, at.load(in) * r * load_or(at, gain, 1)); });
  });
}

template <class T>
void rms_norm_backward(Cpu, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* scale, Mat<const T> dy,
                       Mat<T> dx, acc_t<T>* dgain) {
  const int64_t n = x.cols;
  std::vector<acc_t<T>> sums(static_cast<size_t>(dgain ? n : 0));
  for_rows_with_sums(x.count(), 8 * n, sums, [&](int64_t i, acc_t<T>* dgain_sum) {
    const T *in = x.row(i), *upstream = dy.row(i);
    const simd::Value<T> r = scale[i];
    const acc_t<T> dot = simd::sum_packs<T>(n, [&](auto at) {
      const auto product = at.load(upstream) * at.load(in);
      if (dgain_sum) at.store(dgain_sum, at.load(dgain_sum) + product * r);
      return product * load_or(at, gain, 1);
    });
    if (!dx.data) return;
    T* grad = dx.row(i);
    const simd::Value<T> back = dot * scale[i] * scale[i] / static_cast<acc_t<T>>(n);
    simd::for_packs<T>(n, [&](auto at) {
      at.store(grad, r * (at.load(upstream) * load_or(at, gain, 1) - at.load(in) * back));
    });
  });
  if (dgain) std::copy_n(sums.data(), n, dgain);
}

template <class T>
void layer_norm(Cpu, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* bias, double eps, Mat<T> y,
                acc_t<T>* mean, acc_t<T>* scale) {
  const int64_t n = x.cols;
  for_rows(x.count(), 5 * n, [&](int64_t i) {
    const T* in = x.row(i);
    T* out = y.row(i);
    mean[i] = simd::sum_packs<T>(n, [&](auto at) { return at.load(in); }) / static_cast<acc_t<T>>(n);
    const simd::Value<T> mu = mean[i];
    const acc_t<T> squares = simd::sum_packs<T>(n, [&](auto at) {
      const auto centred = at.load(in) - mu;
      return centred * centred;
    });
    scale[i] = 1 / std::sqrt(squares / static_cast<acc_t<T>>(n) + static_cast<acc_t<T>>(eps));
    const simd::Value<T> r = scale[i];
    simd::for_packs<T>(n, [&](auto at) {
      at.store(out, (at.load(in) - mu) * r * load_or(at, gain, 1) + load_or(at, bias, 0));
    });
  });
}

template <class T>
void layer_norm_backward(Cpu, Mat<const T> x, const acc_t<T>* gain, const acc_t<T>* mean,
                         const acc_t<T>* scale, Mat<const T> dy, Mat<T> dx, acc_t<T>* dgain,
                         acc_t<T>* dbias) {
  using Sum = acc_t<T>;
  const int64_t n = x.cols;
  std::vector<Sum> sums(static_cast<size_t>(dgain || dbias ? 2 * n : 0));  // of the gain, then of the bias
  for_rows_with_sums(x.count(), 12 * n, sums, [&](int64_t i, Sum* dgain_sum) {
    const T *in = x.row(i), *upstream = dy.row(i);
    const simd::Value<T> mu = mean[i], r = scale[i];
    if (dgain_sum) {
      Sum* dbias_sum = dgain_sum + n;
      simd::for_packs<T>(n, [&](auto at) {
        const auto d = at.load(upstream);
        at.store(dgain_sum, at.load(dgain_sum) + d * (at.load(in) - mu) * r);
        at.store(dbias_sum, at.load(dbias_sum) + d);
      });
    }
    if (!dx.data) return;
    T* grad = dx.row(i);
    const auto h = [&](auto at) { return at.load(upstream) * load_or(at, gain, 1); };
    const Sum sum_h = simd::sum_packs<T>(n, h);
    const Sum dot = simd::sum_packs<T>(n, [&](auto at) { return h(at) * (at.load(in) - mu); });
    const simd::Value<T> mean_h = sum_h / static_cast<Sum>(n);
    const simd::Value<T> back = dot * scale[i] * scale[i] / static_cast<Sum>(n);
    simd::for_packs<T>(n, [&](auto at) { at.store(grad, r * (h(at) - mean_h - (at.load(in) - mu) * back)); });
  });
  if (dgain) std::copy_n(sums.data(), n, dgain);
  if (dbias) std::copy_n(sums.data() + n, n, dbias);
}

#define MR_INSTANTIATE(T)                                                                                    \
  template void rms_norm(Cpu, Mat<const T>, const acc_t<T>*, double, Mat<T>, acc_t<T>*);                     \
  template void rms_norm_backward(Cpu, Mat<const T>, const acc_t<T>*, const acc_t<T>*, Mat<const T>, Mat<T>, \
                                  acc_t<T>*);                                                                \
  template void layer_norm(Cpu, Mat<const T>, const acc_t<T>*, const acc_t<T>*, double, Mat<T>, acc_t<T>*,   \
                           acc_t<T>*);                                                                       \
  template void layer_norm_backward(Cpu, Mat<const T>, const acc_t<T>*, const acc_t<T>*, const acc_t<T>*,    \
                                    Mat<const T>, Mat<T>, acc_t<T>*, acc_t<T>*)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

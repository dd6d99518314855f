#include "mixrec/ops/matmul.h"

#include "mixrec/autograd/record.h"
#include "mixrec/autograd/shadow.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/gemm/product.h"
#include "mixrec/ops/reduce.h"

#include <algorithm>

namespace mixrec {
namespace {

Tensor dense_rows(const Tensor& x) { return x.dim(-1) <= 1 || x.strides()[-1] == 1 ? x : x.contiguous(); }

// Any matrix as [batch, rows, cols]; leading dimensions are the batch, or more rows when `flatten`.
Tensor as_batch(const Tensor& x, bool flatten) {
  const Tensor source = dense_rows(x.detach());
  if (source.ndim() == 3 && !flatten) return source;
  const int64_t batch = flatten || source.ndim() == 2
                            ? 1
                            : source.numel() / std::max<int64_t>(1, source.dim(-1) * source.dim(-2));
  if (source.numel() == 0)
    return empty({batch, flatten ? 0 : source.dim(-2), source.dim(-1)}, x.dtype(), x.device());
  return source.reshape({batch, -1, source.dim(-1)});
}

// op(a) op(b) of two batches, as a new dense tensor of a's dtype, or of f32.
Tensor product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, DType dtype) {
  const Operand left{a, transpose_a}, right{b, transpose_b};
  Tensor y = empty({std::max(a.dim(0), b.dim(0)), left.rows(), right.cols()}, dtype, a.device());
  multiply(left, right, y);
  return y;
}
Tensor product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b) {
  return product(a, transpose_a, b, transpose_b, a.dtype());
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, const MatmulOptions& options) {
  MR_OP("matmul");
  const auto [ta, tb] = options;
  check_same(a, b, "the left operand", "the right one");
  MR_CHECK(a.ndim() >= 2 && b.ndim() >= 2, "needs matrices, got ", a.shape(), " x ", b.shape());
  MR_CHECK(a.dim(ta ? -2 : -1) == b.dim(tb ? -1 : -2), "inner sizes differ: ", a.shape(), ta ? "ᵀ x " : " x ",
           b.shape(), tb ? "ᵀ" : "");
  const bool shared = b.ndim() == 2;  // one b for all of a's leading dimensions
  MR_CHECK(!(shared && a.ndim() > 2 && ta), "a batch ", a.shape(), " times one matrix cannot be transposed");
  if (!shared) {
    MR_CHECK(a.ndim() == b.ndim() && std::equal(a.shape().begin(), a.shape().end() - 2, b.shape().begin()),
             "batch sizes differ: ", a.shape(), " x ", b.shape());
  }
  Shape shape = a.shape();
  shape.set(-2, a.dim(ta ? -1 : -2));
  shape.set(-1, b.dim(tb ? -2 : -1));
  const Tensor left = as_batch(a, shared), right = as_batch(b, false);
  return record(product(left, ta, right, tb).reshape(shape), {a, b}, [&] {
    return [a = Saved(left), b = Saved(right), ta = ta, tb = tb, shared, a_shape = a.shape(),
            b_shape = b.shape()](const Tensor& upstream, const Needs& needs) -> Grads {
      const Tensor dy = as_batch(upstream, shared);
      Grads grads(2);
      if (needs[0])
        grads[0] = (ta ? product(b.get(), tb, dy, true) : product(dy, false, b.get(), !tb)).reshape(a_shape);
      if (needs[1])
        grads[1] = (tb ? product(dy, true, a.get(), ta) : product(a.get(), !ta, dy, false)).reshape(b_shape);
      return grads;
    };
  });
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias) {
  MR_OP("linear");
  MR_CHECK(w.ndim() == 2 && x.ndim() >= 1 && x.dim(-1) == w.dim(0), "the input ", x.shape(),
           " does not fit the weight ", w.shape());
  if (bias.defined()) {
    MR_CHECK(bias.shape() == Shape{w.dim(1)}, "the bias ", bias.shape(), " does not fit the weight ",
             w.shape());
  }
  Shape shape = x.shape();
  shape.set(-1, w.dim(1));
  const Tensor rows = as_batch(x.ndim() == 1 ? x.detach().reshape({1, -1}) : x, true),
               weight = as_batch(operand_for(x, w, "the weight"), false);
  Tensor y = empty({1, rows.dim(1), w.dim(1)}, x.dtype(), x.device());
  multiply({rows}, {weight}, y, bias.defined() ? operand_for(x, bias, "the bias").contiguous() : bias);
  return record(y.reshape(shape), {x, w, bias}, [&] {
    return [rows = Saved(rows), weight = Saved(weight), x_shape = x.shape(), w_dtype = w.dtype(),
            bias_dtype = bias.defined() ? bias.dtype() : f32](const Tensor& upstream,
                                                              const Needs& needs) -> Grads {
      const Tensor dy = upstream.contiguous().reshape({1, rows.get().dim(1), weight.get().dim(2)});
      Grads grads(3);
      if (const Tensor sum = needs.running(0)) {
        multiply_add({dy}, {weight.get(), true},
                     as_batch(sum.ndim() == 1 ? sum.reshape({1, -1}) : sum, true));
        grads[0] = sum;
      } else if (needs[0]) {
        grads[0] = product(dy, false, weight.get(), true).reshape(x_shape);
      }
      if (needs[1]) {
        const int64_t in = weight.get().dim(1), out = weight.get().dim(2);
        grads[1] = needs.gradient(1, {in, out}, w_dtype, dy.device());
        multiply({rows.get(), true}, {dy}, grads[1].reshape({1, in, out}));
      }
      if (needs[2]) grads[2] = sum_to(cast(dy, bias_dtype), {dy.dim(2)});
      return grads;
    };
  });
}

namespace {

// Heads of [B, N, K] as a batch of N matrices [B, K], without a copy.
Tensor heads_first(const Tensor& x) { return x.transpose(0, 1); }

Tensor per_head_product(const Tensor& x, const Tensor& w, const PerHeadOptions& options) {
  const auto& [transpose, scale, residual] = options;
  Tensor y = empty({x.dim(0), x.dim(1), w.dim(transpose ? 1 : 2)}, x.dtype(), x.device());
  if (residual.defined()) {
    multiply_with({heads_first(x)}, {w, transpose}, heads_first(residual), heads_first(y), scale);
  } else {
    multiply({heads_first(x)}, {w, transpose}, heads_first(y), {}, scale);
  }
  return y;
}

}  // namespace

Tensor per_head_matmul(const Tensor& x, const Tensor& w, const PerHeadOptions& options) {
  MR_OP("per_head_matmul");
  const auto [transpose, scale, residual] = options;
  MR_CHECK(x.ndim() == 3 && w.ndim() == 3, "needs [rows, heads, width] and [heads, width, out], got ",
           x.shape(), " and ", w.shape());
  MR_CHECK(x.dim(1) == w.dim(0), "the input has ", x.dim(1), " heads, the weight ", w.dim(0));
  MR_CHECK(x.dim(2) == w.dim(transpose ? 2 : 1), "inner sizes differ: ", x.shape(), " x ", w.shape(),
           transpose ? "ᵀ" : "");
  Tensor added;
  if (residual.defined()) {
    const Shape shape{x.dim(0), x.dim(1), w.dim(transpose ? 1 : 2)};
    check_same(x, residual, "the input", "the residual");
    MR_CHECK(residual.shape() == shape, "the residual is ", residual.shape(), " and the result ", shape);
    added = dense_rows(residual.detach());
  }
  const Tensor input = dense_rows(x.detach()), weight = dense_rows(operand_for(x, w, "the weight"));
  return record(per_head_product(input, weight, {transpose, scale, added}), {x, w, residual}, [&] {
    return [x = Saved(input), w = Saved(weight), transpose = transpose, scale = scale, dtype = w.dtype()](
               const Tensor& upstream, const Needs& needs) -> Grads {
      const Tensor dy = dense_rows(upstream);
      Grads grads{{}, {}, upstream};
      if (const Tensor sum = needs.running(0)) {
        multiply_add({heads_first(dy)}, {w.get(), !transpose}, heads_first(sum), scale);
        grads[0] = sum;
      } else if (needs[0]) {
        grads[0] = per_head_product(dy, w.get(), {.transpose_w = !transpose, .scale = scale});
      }
      if (needs[1]) {
        const Tensor rows = heads_first(x.get()), upstream_rows = heads_first(dy);
        grads[1] = needs.gradient(1, w.get().shape(), dtype, dy.device());
        multiply({transpose ? upstream_rows : rows, true}, {transpose ? rows : upstream_rows}, grads[1], {},
                 scale);
      }
      return grads;
    };
  });
}

namespace kernel {

template <class T, class C>
void product(Cpu, const Gemm& shape, const T* a, const T* b, C* c, const C* bias) {
  gemm(shape, a, b, c, bias);
}
template void product(Cpu, const Gemm&, const float*, const float*, float*, const float*);
template void product(Cpu, const Gemm&, const bfloat16*, const bfloat16*, bfloat16*, const bfloat16*);
template void product(Cpu, const Gemm&, const bfloat16*, const bfloat16*, float*, const float*);
template void product(Cpu, const Gemm&, const double*, const double*, double*, const double*);

}  // namespace kernel
}  // namespace mixrec

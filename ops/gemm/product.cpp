#include "mixrec/ops/gemm/product.h"

#include "mixrec/autograd/shadow.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/ops/matmul.h"

#include <algorithm>

namespace mixrec {
namespace {

// A row stride is meaningless, and may be anything, when there is one row.
int64_t row_stride(const Tensor& x) { return x.dim(1) > 1 ? x.strides()[1] : std::max<int64_t>(x.dim(2), 1); }
int64_t batch_stride(const Tensor& x) { return x.dim(0) > 1 ? x.strides()[0] : 0; }

kernel::Gemm shape_of(const Operand& a, const Operand& b, const Tensor& y, double scale) {
  return {.m = y.dim(1),
          .n = y.dim(2),
          .k = a.cols(),
          .transpose_a = a.transpose,
          .transpose_b = b.transpose,
          .lda = row_stride(a.tensor),
          .ldb = row_stride(b.tensor),
          .ldc = row_stride(y),
          .alpha = scale,
          .batch = y.dim(0),
          .stride_a = batch_stride(a.tensor),
          .stride_b = batch_stride(b.tensor),
          .stride_c = batch_stride(y)};
}

void run_product(const kernel::Gemm& shape, const Operand& a, const Operand& b, const Tensor& y,
                 const Tensor& bias) {
  run(a.tensor, [&]<class T>(auto backend) {
    const auto into = [&]<class C>(C* c) {
      kernel::product<T, C>(backend, shape, a.tensor.data<const T>(), b.tensor.data<const T>(), c,
                            bias.defined() ? bias.data<const C>() : nullptr);
    };
    if (y.dtype() == a.tensor.dtype()) {
      into(y.data<T>());
    } else {
      into(y.data<acc_t<T>>());
    }
  });
}

}  // namespace

void multiply(const Operand& a, const Operand& b, const Tensor& y, const Tensor& bias, double scale) {
  run_product(shape_of(a, b, y, scale), a, b, y, bias);
}

void multiply_add(const Operand& a, const Operand& b, const Tensor& y, double scale) {
  kernel::Gemm shape = shape_of(a, b, y, scale);
  shape.accumulate = true;
  run_product(shape, a, b, y, {});
}

void multiply_with(const Operand& a, const Operand& b, const Tensor& addend, const Tensor& y, double scale) {
  run(a.tensor, [&]<class T>(auto backend) {
    if constexpr (std::is_same_v<decltype(backend), Cuda>) {
      const auto into = [&]<class C>(C* c) {
        const Mat<const C> from{addend.data<const C>(), addend.dim(0),        addend.dim(1),
                                addend.dim(2),          batch_stride(addend), row_stride(addend)};
        kernel::product_with(backend, shape_of(a, b, y, scale), a.tensor.data<const T>(),
                             b.tensor.data<const T>(), from, c);
      };
      if (y.dtype() == a.tensor.dtype()) {
        into(y.data<T>());
      } else {
        into(y.data<acc_t<T>>());
      }
    } else {
      copy_into(y, addend);
      multiply_add(a, b, y, scale);
    }
  });
}

Tensor operand_for(const Tensor& x, const Tensor& parameter, const char* name) {
  if (x.dtype() == bf16 && parameter.dtype() == f32 && x.device() == parameter.device())
    return shadow_of(parameter, bf16);
  check_same(x, parameter, "the input", name);
  return parameter.detach();
}

}  // namespace mixrec

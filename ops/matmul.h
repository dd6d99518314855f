// Matrix products: plain, batched, with bias, and per head.
//
//   matmul           y = op(a) op(b)                da = dy op(b)ᵀ           db = op(a)ᵀ dy        saves a, b
//   linear           y = x w + bias                 dx = dy wᵀ               dw = xᵀ dy            saves x, w
//   per_head_matmul  y[:, i] = x[:, i] op(w[i])     dx[:, i] = dy[:, i] op(w[i])ᵀ                  saves x, w
//                    (times a scale, + residual)    dw[i] = x[:, i]ᵀ dy[:, i]
//
// Operands of one floating dtype, rows may be strided; sums are kept in f32 (f64 for f64).  Gradients that
// are not needed are not computed.
//
// In linear and per_head_matmul a bf16 x may meet f32 parameters: the product reads their bf16 shadows
// (autograd/shadow.h), and their gradients are f32, as the product sums them.
#pragma once

#include "mixrec/core/tensor.h"
#include "mixrec/ops/gemm/gemm.h"

namespace mixrec {

struct MatmulOptions {
  bool transpose_a = false;  // use aᵀ of the last two dimensions
  bool transpose_b = false;
};

// [m, k] x [k, n] -> [m, n];  [..., m, k] x [k, n] -> [..., m, n] (without transpose_a);
// [batch, m, k] x [batch, k, n] -> [batch, m, n].
Tensor matmul(const Tensor& a, const Tensor& b, const MatmulOptions& options = {});

// x [..., K], w [K, F], bias [F] or undefined -> [..., F].
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias = {});

struct PerHeadOptions {
  bool transpose_w = false;
  double scale = 1;      // on the product
  Tensor residual = {};  // [B, N, F], added to it; or undefined
};
// Every head has its own weight: x [B, N, K], w [N, K, F] -> [B, N, F]; with transpose_w, w is [N, F, K].
Tensor per_head_matmul(const Tensor& x, const Tensor& w, const PerHeadOptions& options = {});

namespace kernel {

// c = op(a) op(b) [+ bias] [+ c] as ops/gemm/gemm.h describes; bias may be null.  C is T, or float for bfloat16.
template <class T, class C>
void product(Cpu, const Gemm& shape, const T* a, const T* b, C* c, const C* bias);
template <class T, class C>
void product(Cuda, const Gemm& shape, const T* a, const T* b, C* c, const C* bias);
// c = op(a) op(b) + addend, m x n a batch item.  C as in product().
template <class T, class C>
void product_with(Cuda, const Gemm& shape, const T* a, const T* b, Mat<const C> addend, C* c);

}  // namespace kernel
}  // namespace mixrec

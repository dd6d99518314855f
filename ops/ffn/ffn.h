// A feed-forward network with the SwiGLU gate (Shazeer 2020, https://arxiv.org/abs/2002.05202), no biases:
//
//   y = h W_down [+ residual]        h = silu(x W_gate) ⊙ (x W_up)        gate_up = [W_gate, W_up]
//
//   dh = dy W_downᵀ      dgate, dup from dh as in ops/ffn/swiglu.h      dx = dgate W_gateᵀ + dup W_upᵀ
//   dW_down = hᵀ dy      dW_gate = xᵀ dgate                         dW_up = xᵀ dup        dresidual = dy
//
// Saves x, the weights and x gate_up; h is made again.
//
// On the CPU in f32, and where the weights fit in a core's cache, rows go through the whole network in blocks
// that stay in cache, forward and backward.  Elsewhere it is reference::ffn, and so are a few rows, for which
// packing the weights would not pay: forward, the bits are the same.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// One network for all rows: x [..., D], gate_up [D, 2F], down [F, E] -> [..., E].
// One a head: x [B, N, D], gate_up [N, D, 2F], down [N, F, E] -> [B, N, E].
// The residual has the shape of the result, or is undefined.  One dtype, but for bf16 with f32 weights as in
// linear().
Tensor ffn(const Tensor& x, const Tensor& gate_up, const Tensor& down, const Tensor& residual = {});

// Throws unless the weights fit x and each other.
void check_ffn(const Tensor& x, const Tensor& gate_up, const Tensor& down);

namespace kernel {

// A batch is a number of networks: x, residual, hidden, y [batch, rows, width], gate_up [batch, D, 2F],
// down [batch, F, E].  hidden, x gate_up [batch, rows, 2F], is not written when it has no data, and a
// residual without data is none.
template <class T>
void ffn(Cpu, Mat<const T> x, Mat<const T> gate_up, Mat<const T> down, Mat<const T> residual, Mat<T> hidden,
         Mat<T> y);
// A gradient without data is not computed; those of the weights are dense.
template <class T>
void ffn_backward(Cpu, Mat<const T> x, Mat<const T> gate_up, Mat<const T> down, Mat<const T> hidden,
                  Mat<const T> dy, Mat<T> dx, Mat<T> dgate_up, Mat<T> ddown);

}  // namespace kernel
}  // namespace mixrec

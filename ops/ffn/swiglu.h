// The gated unit of SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202):
//
//   y = silu(gate) ⊙ up        silu(g) = g s, s = 1 / (1 + e^-g)
//
//   dgate = dy ⊙ up ⊙ s (1 + g (1 - s))        dup = dy ⊙ silu(gate)        saves gate, up
//
// Forward and backward are one pass each.  f32 inside for bf16.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// gate, up: [..., F] -> [..., F].  Rows may be strided: column halves of one buffer, head slices.
Tensor swiglu(const Tensor& gate, const Tensor& up);

// gate_up: [..., 2F], the gate first -> [..., F].  One product makes gate_up, and its gradient is one tensor.
Tensor swiglu(const Tensor& gate_up);

namespace kernel {

template <class T>
void swiglu(Cpu, Mat<const T> gate, Mat<const T> up, Mat<T> y);
// A gradient without data is not computed.
template <class T>
void swiglu_backward(Cpu, Mat<const T> gate, Mat<const T> up, Mat<const T> dy, Mat<T> dgate, Mat<T> dup);

// The same on a device.  The backward also makes y again when it has data.
template <class T>
void swiglu(Cuda, Mat<const T> gate, Mat<const T> up, Mat<T> y);
template <class T>
void swiglu_backward(Cuda, Mat<const T> gate, Mat<const T> up, Mat<const T> dy, Mat<T> dgate, Mat<T> dup,
                     Mat<T> y = {});

}  // namespace kernel
}  // namespace mixrec

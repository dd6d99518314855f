// One-query-per-head attention over jagged histories, with events as keys and as values.
//
// For candidate c of request r, head n and the events t of r's history, h_t^n = h[t, n·Ds : (n + 1)·Ds]:
//
//   s_t = u[c, n] · h_t^n,   α = softmax_t(s),   m[c, n] = Σ_t α_t h_t^n            (0 for an empty history)
//
// This is the middle of MixFormer's cross attention (eq 8) in the form that never builds K and V; nn's
// CrossAttention and cross_attention() (ops/attention/cross_attention.h) put the projections around it.  There is no
// scale: it belongs in u.
//
//   ds_t = α_t (dm · h_t − dm · m),   du = Σ_t ds_t h_t,   dh_t = Σ_c α_t dm + ds_t u
//
// u: [C, N, Ds] and h: [E, N·Ds], rows of any stride; history_offsets: i64 [R + 1] into the E events;
// candidate_offsets: i64 [R + 1] into the C candidates (0, 1, 2, … for one candidate a request).  Saves u, h,
// the log-sum-exp of each (c, n), and m as summed (f32 for bf16: rounding it would spoil the difference
// above); the weights are recomputed.  Work and memory are proportional to the events that exist: 4·N·Ds·Σ_r
// T_r C_r operations.  A candidate's result has the same bits whatever other candidates share its request
// (in bf16 on a device: among calls with more candidates than requests, and among the others).
//
// Throws when shapes or dtypes disagree, or when offsets are not as check_offsets() (core/jagged.h) demands.
// On a device a head may be at most 1024 wide in bf16, 512 in f32 and 256 in f64.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

Tensor attend(const Tensor& u, const Tensor& h, const Tensor& history_offsets,
              const Tensor& candidate_offsets);  // -> [C, N, Ds]

namespace kernel {

// Which rows of h and of u belong to each of `requests` requests.
struct RequestOffsets {
  int64_t requests;
  const int64_t* history;
  const int64_t* candidates;
};

// u, y, m, dm, du: batch = C, rows = N, cols = Ds.  h, dh: E rows of N·Ds.  lse: [C, N].  y is the result, m the
// same as summed; an m or lse with null data is not written.
template <class T>
void attend(Cpu, Mat<const T> u, Mat<const T> h, RequestOffsets offsets, Mat<T> y, Mat<acc_t<T>> m,
            acc_t<T>* lse);
template <class T>
void attend(Cuda, Mat<const T> u, Mat<const T> h, RequestOffsets offsets, Mat<T> y, Mat<acc_t<T>> m,
            acc_t<T>* lse);

// A du or dh with null data is not computed.
template <class T>
void attend_backward(Cpu, Mat<const T> u, Mat<const T> h, RequestOffsets offsets, Mat<const acc_t<T>> m,
                     const acc_t<T>* lse, Mat<const T> dm, Mat<T> du, Mat<T> dh);
template <class T>
void attend_backward(Cuda, Mat<const T> u, Mat<const T> h, RequestOffsets offsets, Mat<const acc_t<T>> m,
                     const acc_t<T>* lse, Mat<const T> dm, Mat<T> du, Mat<T> dh);

}  // namespace kernel
}  // namespace mixrec

// One-query-per-head attention over events that go through a feed-forward network first: what MixFormer's heads read
// (eqs 5 and 8), in one op.
//
//   h_t = s_t + z_t W        z_t = silu(gate_t) ⊙ up_t        [gate_t, up_t] = rms_norm(s_t, gain) W_gate_up        W = W_down
//   m[c, n] = Σ_t α_t h_t^n        α = softmax_t(u[c, n] · h_t^n)        h_t^n = h[t, n·Ds : (n + 1)·Ds]        (0 without events)
//
// Two forms give the same numbers.  The plain form is attend(u, residual_ffn(s, …), …).  In the absorbed form the
// product with W moves to the queries, because h is read by this attention alone and linearly: with W_n the columns of
// head n, q_n = W_n u_n and p_n = W_n dm_n (F wide, one row per candidate and head instead of one per event),
//
//   score_t = z_t · q_n + s_t^n · u_n        A_n = Σ α_t z_t        S_n = Σ α_t s_t^n        m_n = A_n W_n + S_n
//   g_t = z_t · p_n + s_t^n · dm_n           D_n = A_n · p_n + S_n · dm_n                     δ_t = α_t (g_t − D_n)
//   du_n = (Σ δ_t z_t) W_n + Σ δ_t s_t^n     dW_n = Σ_requests A_nᵀ dm_n + (Σ δ_t z_t)ᵀ u_n
//   dz_t = Σ_n α_t p_n + δ_t q_n             direct part of ds_t^n = α_t dm_n + δ_t u_n
//
// which saves 6·F·N·Ds of the 18·F·N·Ds operations that an event costs, h, and its gradient.  It is exact as long as z
// is the same for all queries, enters h linearly and h has no other reader.  It costs 12·N·F operations per event and
// 12·N·F·Ds per candidate, so it pays with few candidates per request; choose_form() compares both forms.
//
// There the gain is folded into the weights, rms_norm(s, gain) W_gate_up = ŝ (gain ⊙ W_gate_up), so that the normalised
// rows ŝ are the same for every layer that reads s: they are made once, and one norm backward takes the gradients of all
// layers, which the products that make them add up.
//
// u: [C, N, Ds]; s: [E, N·Ds]; gain [N·Ds]; gate_up [N·Ds, 2F]; down [F, N·Ds]; offsets as in ops/attention/attend.h.
// One dtype, but for a bf16 u and s with f32 parameters as in linear().
//
// The absorbed form is there for requests with one candidate each: on the CPU for every dtype, on a device for bf16 with
// at most 16 heads, Ds a multiple of 16 and F of 8.  It saves s, ŝ, ŝ W_gate_up (over which the backward writes its
// gradient), q, α, A and S.  reference::sequence_attention is the composed twin.
#pragma once

#include "mixrec/core/device.h"
#include "mixrec/core/dtype.h"
#include "mixrec/core/mat.h"
#include "mixrec/core/tensor.h"

#include <utility>

namespace mixrec {

// Events s [E, N·Ds] and, made when it is first asked for, ŝ = rms_norm(s, {}, eps).  Layers that read the same s share
// one of these, in one mode of recording.
class SequenceRows {
 public:
  SequenceRows(Tensor s, double eps = 1e-6) : s_(std::move(s)), eps_(eps) {}  // NOLINT: rows of one layer

  const Tensor& s() const { return s_; }
  double eps() const { return eps_; }
  const Tensor& normed() const;

 private:
  Tensor s_;
  double eps_;
  mutable Tensor normed_;
};

enum class SequenceForm {
  automatic,  // what choose_form() says
  plain,
  absorbed,  // throws where it is not there
};

struct SequenceAttentionOptions {
  // As in ResidualFfnOptions; the absorbed form has nothing to recompute in blocks, so this asks for the plain one.
  bool recompute = false;
  // Every request has exactly one candidate.  Offsets on a device are not read to find out; on the CPU they are, and
  // this is ignored.
  bool one_candidate_each = false;
  SequenceForm form = SequenceForm::automatic;
};

Tensor sequence_attention(const Tensor& u, const SequenceRows& rows, const Tensor& gain,
                          const Tensor& gate_up, const Tensor& down, const Tensor& history_offsets,
                          const Tensor& candidate_offsets,
                          const SequenceAttentionOptions& options = {});  // -> [C, N, Ds]

// What the choice of a form depends on: totals that the host knows.
struct SequenceSizes {
  int64_t requests, events;
  int64_t heads, width, hidden;  // N, Ds, F
};

// The form that is predicted to be faster where both are there: operations and bytes of the parts in which they differ,
// forward and backward, over the rates of the device.
SequenceForm choose_form(const SequenceSizes& sizes, DType dtype, Device device);

namespace kernel {

// Events of R requests with one candidate each.  Everything is dense; history: [R + 1] offsets into the events.
template <class T>
struct SequenceEvents {
  T* gate_up;  // [E, 2F]; the backward leaves its gradient here
  const T* s;  // [E, N·Ds]
  const int64_t* history;
  int64_t requests, events, heads, width, hidden;
};

// What the forward leaves to the backward.  `pitch` is N on the CPU and 16 on a device.
template <class T, class Weight>
struct SequenceState {
  // [E, pitch]: e^(score − the largest score of its request and head); on a device [E, 2, pitch]: in bf16, and what that
  // leaves.
  Weight* weights;
  acc_t<T>* scale;   // [R, pitch]: 1 / Σ weights, 0 without events
  acc_t<T>* sums;    // [R, N, F]: A
  T* rounded;        // A as products read it; null where T is acc_t<T>, or else `sums` may be null
  acc_t<T>* direct;  // [R, N, Ds]: S
};

// u: [R, N, Ds], q: [R, N, F].
template <class T>
void sequence_forward(Cpu, const SequenceEvents<T>& events, const T* u, const T* q,
                      const SequenceState<T, acc_t<T>>& state);
void sequence_forward(Cuda, const SequenceEvents<bfloat16>& events, const bfloat16* u, const bfloat16* q,
                      const SequenceState<bfloat16, bfloat16>& state);

// dm: [R, N, Ds], p: [R, N, F].  Writes the gradient of gate_up, Σ δ z to `sums` [R, N, F], Σ δ s to `direct` [R, N, Ds],
// and the direct part of the gradient of s to ds [E, N·Ds], or adds it there.
template <class T>
void sequence_backward(Cpu, const SequenceEvents<T>& events, const T* u, const T* q, const T* dm, const T* p,
                       const SequenceState<T, acc_t<T>>& state, T* sums, acc_t<T>* direct, T* ds, bool add);
void sequence_backward(Cuda, const SequenceEvents<bfloat16>& events, const bfloat16* u, const bfloat16* q,
                       const bfloat16* dm, const bfloat16* p, const SequenceState<bfloat16, bfloat16>& state,
                       bfloat16* sums, float* direct, bfloat16* ds, bool add);

// y[i, :] = gain[i] w[i, :], dense.  W is T, or float for bfloat16.
template <class T, class W>
void fold_gain(Cpu, Mat<const W> w, const acc_t<T>* gain, T* y);
template <class T, class W>
void fold_gain(Cuda, Mat<const W> w, const acc_t<T>* gain, T* y);
// From the gradient of y: dgain[i] = Σ_j w[i, j] dy[i, j], and dy becomes the gradient of w.
template <class W>
void unfold_gain(Cpu, Mat<const W> w, const acc_t<W>* gain, acc_t<W>* dy, acc_t<W>* dgain);
template <class W>
void unfold_gain(Cuda, Mat<const W> w, const acc_t<W>* gain, acc_t<W>* dy, acc_t<W>* dgain);

}  // namespace kernel
}  // namespace mixrec

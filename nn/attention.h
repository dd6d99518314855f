// Head mixing and one-query-per-head cross attention: the two ways in which MixFormer's heads meet other
// information.
#pragma once

#include "mixrec/nn/ffn.h"
#include "mixrec/nn/norm.h"
#include "mixrec/ops/attention/sequence_attention.h"

namespace mixrec {

// MixFormer eq 3 and, with user heads, eqs 10-11: [B, N, D] -> [B, N, D] without parameters.  Needs N | D.
//
//   out[c, r·D/N + u] = x[r, c·D/N + u] (+ residual);  user heads (c < user_heads) read 0 where item heads (r >=
//   user_heads) would be
struct HeadMixing : Module {
  int64_t user_heads;  // N_U, 0: every head reads every chunk

  explicit HeadMixing(int64_t user_heads = 0) : user_heads(user_heads) {}
  Tensor forward(const Tensor& x, const Tensor& residual = {}) const;
  void visit(Visitor&) {}
};

// MixFormer eq 5, what an event's state goes through in every block:  h_t = SwiGLU(RMSNorm(s_t)) + s_t.
struct SequenceFFN : Module {
  RMSNorm norm;
  SwiGLU ffn;
  bool recompute;  // the backward makes what is inside again, block of rows by block of rows

  SequenceFFN(int64_t width, int64_t hidden, Rng& rng, double norm_eps, const FfnOptions& options,
              bool recompute);
  Tensor forward(const Tensor& s) const;  // [events, width] -> the same
  void visit(Visitor& v) { v.module("norm", norm), v.module("ffn", ffn); }
};

struct CrossAttentionOptions {
  int64_t heads;            // N
  int64_t width;            // D: width of a query
  int64_t event_width;      // d_s: width of an event's slice for one head
  int64_t sequence_hidden;  // F_s
  double norm_eps = 1e-6;
  FfnOptions ffn;
  bool recompute_events = false;  // see SequenceFFN
};

// MixFormer eqs 5-8.  The event states h_t depend on the event alone and are computed once per request:
//
//   (5) h_t = SwiGLU(RMSNorm(s_t)) + s_t ∈ R^{N·d_s}
//   (7) k_t^i = h_t^i W_k^i,  v_t^i = h_t^i W_v^i              h_t^i: slice i of h_t;  W ∈ R^{d_s × D}
//   (8) z_i = Σ_t softmax_t(q_i · k_t^i / √D) v_t^i + q_i      an empty history adds nothing
//
// computed in the order softmax((q W_kᵀ) Hᵀ) H W_v, which never builds K and V, by sequence_attention()
// (ops/attention/sequence_attention.h), which may do without h too.
struct CrossAttention : Module {
  SequenceFFN sequence;
  Tensor key, value;  // [N, d_s, D]

  CrossAttention(const CrossAttentionOptions& options, Rng& rng);

  // q [C, N, D], s [events, N·d_s], shared by the layers that read it; offsets i64 [R + 1] of the requests' events and candidates -> z [C, N, D].
  // `one_candidate_each`: as in SequenceAttentionOptions.
  Tensor forward(const Tensor& q, const SequenceRows& s, const Tensor& history_offsets,
                 const Tensor& candidate_offsets, bool one_candidate_each = false) const;
  void visit(Visitor& v) { sequence.visit(v), v.parameter("key", key), v.parameter("value", value); }
};

}  // namespace mixrec

#include "mixrec/nn/attention.h"

#include "mixrec/nn/init.h"
#include "mixrec/ops/ffn/residual_ffn.h"
#include "mixrec/ops/head_mixing.h"
#include "mixrec/ops/matmul.h"

#include <cmath>

namespace mixrec {

Tensor HeadMixing::forward(const Tensor& x, const Tensor& residual) const {
  return head_mixing(x, user_heads, residual);
}

SequenceFFN::SequenceFFN(int64_t width, int64_t hidden, Rng& rng, double norm_eps, const FfnOptions& options,
                         bool recompute)
    : norm(width, norm_eps), ffn(width, hidden, rng, options), recompute(recompute) {}

Tensor SequenceFFN::forward(const Tensor& s) const {
  return residual_ffn(s, norm.gain, ffn.gate_up, ffn.down, {.eps = norm.eps, .recompute = recompute});
}

CrossAttention::CrossAttention(const CrossAttentionOptions& o, Rng& rng)
    : sequence(o.heads * o.event_width, o.sequence_hidden, rng, o.norm_eps, o.ffn, o.recompute_events),
      key(weight_parameter({o.heads, o.event_width, o.width}, rng)),
      value(weight_parameter({o.heads, o.event_width, o.width}, rng)) {}

Tensor CrossAttention::forward(const Tensor& q, const SequenceRows& s, const Tensor& history_offsets,
                               const Tensor& candidate_offsets, bool one_candidate_each) const {
  const double scale = 1 / std::sqrt(static_cast<double>(key.dim(2)));
  const Tensor u = per_head_matmul(q, key, {.transpose_w = true, .scale = scale});
  const Tensor m = sequence_attention(
      u, s, sequence.norm.gain, sequence.ffn.gate_up, sequence.ffn.down, history_offsets, candidate_offsets,
      {.recompute = sequence.recompute, .one_candidate_each = one_candidate_each});
  return per_head_matmul(m, value, {.residual = q});
}

}  // namespace mixrec

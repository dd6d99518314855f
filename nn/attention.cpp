#include "mixrec/nn/attention.h"

#include "mixrec/nn/init.h"
#include "mixrec/ops/attention/cross_attention.h"
#include "mixrec/ops/ffn/residual_ffn.h"
#include "mixrec/ops/head_mixing.h"

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

Tensor CrossAttention::forward(const Tensor& q, const Tensor& h, const Tensor& history_offsets,
                               const Tensor& candidate_offsets) const {
  return cross_attention(q, key, value, h, history_offsets, candidate_offsets, q);
}

}  // namespace mixrec

#include "mixrec/nn/attention.h"

#include "mixrec/nn/init.h"
#include "mixrec/ops/cross_attention.h"
#include "mixrec/ops/head_mixing.h"

namespace mixrec {

Tensor HeadMixing::forward(const Tensor& x) const { return head_mixing(x, user_heads); }

CrossAttention::CrossAttention(const CrossAttentionOptions& o, Rng& rng)
    : norm(o.heads * o.event_width, o.norm_eps),
      ffn(o.heads * o.event_width, o.sequence_hidden, rng, o.ffn),
      key(weight_parameter({o.heads, o.event_width, o.width}, rng)),
      value(weight_parameter({o.heads, o.event_width, o.width}, rng)) {}

Tensor CrossAttention::events(const Tensor& s) const { return ffn.forward(norm.forward(s)) + s; }

Tensor CrossAttention::forward(const Tensor& q, const Tensor& h, const Tensor& history_offsets,
                               const Tensor& candidate_offsets) const {
  return cross_attention(q, key, value, h, history_offsets, candidate_offsets) + q;
}

}  // namespace mixrec

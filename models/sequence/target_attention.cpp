#include "mixrec/models/sequence/target_attention.h"

#include "mixrec/core/error.h"
#include "mixrec/nn/init.h"
#include "mixrec/ops/attention/cross_attention.h"

namespace mixrec {

void TargetAttentionOptions::visit(OptionVisitor& v) {
  v.number("width", width, between(1, 65536), "D: of queries, keys and values");
  v.number("out", out, between(0, 65536), "width of the result; 0 = of the candidate's part of an event");
}

TargetAttention::TargetAttention(const SequenceInput& input, const TargetAttentionOptions& o, Rng& rng)
    : history_(input.history),
      query_(input.target_width(), o.width, rng, {.bias = false}),
      output_(o.width, o.out > 0 ? o.out : input.target_width(), rng, {.bias = false}),
      key_(weight_parameter({1, input.of().width, o.width}, rng)),
      value_(weight_parameter({1, input.of().width, o.width}, rng)) {}

Tensor TargetAttention::forward(const Inputs& in, Pass&) const {
  const Inputs::History& history = in.history(history_);
  const Tensor q = query_.forward(history.target);
  const int64_t rows = q.dim(0), width = q.dim(1);
  const Tensor z = cross_attention(q.reshape({rows, 1, width}), key_, value_, history.events, history.offsets,
                                   in.offsets());
  return output_.forward(z.reshape({rows, width}));
}

SequenceEntry target_attention_entry() {
  return sequence_entry<TargetAttention, TargetAttentionOptions>("target_attention",
                                                                 "attention whose query is the candidate");
}

}  // namespace mixrec

// Attention with the candidate as its query, as the stacked models of the MixFormer paper have it ("TA").
//
//   q = target W_q,   k_t = e_t W_k,   v_t = e_t W_v                     ∈ R^D
//   y = (Σ_t softmax_t(q · k_t / √D) v_t) W_o                            an empty history gives 0
//
// target holds the candidate's values of the columns that events begin with.  K and V are never built: W_k goes to
// the query's side and W_v behind the sum (ops/attention/cross_attention.h).
#pragma once

#include "mixrec/models/sequence/sequence.h"

namespace mixrec {

struct TargetAttentionOptions {
  int64_t width = 32;  // D
  int64_t out = 0;     // width of y; 0: of the target

  void visit(OptionVisitor& v);
};

// [C, out].
struct TargetAttention : Module {
  // Throws when the candidates have none of the events' columns.
  TargetAttention(const SequenceInput& input, const TargetAttentionOptions& options, Rng& rng);
  Tensor forward(const Inputs& in, Pass& pass) const;
  int64_t width() const { return output_.weight.dim(1); }
  void visit(Visitor& v) {
    v.module("query", query_), v.parameter("key", key_), v.parameter("value", value_),
        v.module("output", output_);
  }

 private:
  size_t history_;
  Linear query_, output_;
  Tensor key_, value_;  // [1, width of an event, D]
};

}  // namespace mixrec

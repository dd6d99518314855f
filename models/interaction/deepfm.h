// DeepFM: a factorisation machine and a deep tower on the same embeddings.
//
//   logit_k = b_k + Σ_i w_ik[value of feature i] + Σ_{i<j} ⟨v_i, v_j⟩ + y_k(deep([e_1, …, e_F]))       eqs 1-4
//
// Guo et al., IJCAI 2017, https://arxiv.org/abs/1703.04247.  v_i is e_i, or its projection where features have several
// widths; deep reads flat(), and y_k are the task heads.  The paper's tower has ReLU ("activation"), ours
// SiLU.
#pragma once

#include "mixrec/models/interaction/fm.h"
#include "mixrec/nn/tower.h"

namespace mixrec {

struct DeepFm : Module {
  DeepFm(const InteractionInput& input, const TowerOptions& options, Rng& rng)
      : fm_(input, {}, rng), deep_(input.shape.flat_width(), options, rng) {}
  static void ask(const TowerOptions&, int64_t tasks, InputOptions& of) { Fm::ask({}, tasks, of); }
  Interaction forward(const Inputs& in, Pass& pass) const {
    return {.x = deep_.forward(in.flat(), pass), .logits = fm_.forward(in, pass).logits};
  }
  int64_t width() const { return deep_.out(); }
  void visit(Visitor& v) { fm_.visit(v), v.module("deep", deep_); }

 private:
  Fm fm_;
  Tower deep_;
};

}  // namespace mixrec

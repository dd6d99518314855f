// Logistic regression and the factorisation machine.
//
//   logistic regression   logit_k = b_k + Σ_i w_ik[value of feature i]
//   FM                    the same + Σ_{i<j} ⟨v_i, v_j⟩,   Σ_{i<j} ⟨v_i, v_j⟩ = ½ Σ_d ((Σ_i v_id)² - Σ_i v_id²)
//
// Rendle, ICDM 2010.  The pairs' term is one number for all tasks.  Both give logits and nothing for heads to read.
#pragma once

#include "mixrec/models/interaction/interaction.h"

namespace mixrec {

struct NoOptions {
  void visit(OptionVisitor&) {}
};

struct LogisticRegression : Module {
  LogisticRegression(const InteractionInput& input, const NoOptions&, Rng& rng);
  static void ask(const NoOptions&, int64_t tasks, InputOptions& of) { of.first_order = tasks; }
  Interaction forward(const Inputs& in, Pass& pass) const;
  int64_t width() const { return 0; }
  void visit(Visitor& v) { v.parameter("bias", bias); }

  Tensor bias;  // [tasks]
};

struct Fm : Module {
  Fm(const InteractionInput& input, const NoOptions& options, Rng& rng) : linear_(input, options, rng) {}
  static void ask(const NoOptions&, int64_t tasks, InputOptions& of) {
    of.first_order = tasks, of.fields = true;
  }
  Interaction forward(const Inputs& in, Pass& pass) const;
  int64_t width() const { return 0; }
  void visit(Visitor& v) { linear_.visit(v); }

 private:
  LogisticRegression linear_;
};

// Σ_{i<j} ⟨v_i, v_j⟩ of fields [C, F, d] -> f32 [C, 1].
Tensor pairwise_products(const Tensor& fields);

}  // namespace mixrec

// DCN V2: layers that multiply with the input, beside or below a deep tower.
//
// Wang et al., WWW 2021, https://arxiv.org/abs/2008.13535.  x_0 ∈ R^d is flat(), layer l of `layers`:
//
//   rank 0                 x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l                                 eq 1, W_l [d, d]
//   rank r, one expert     x_{l+1} = x_0 ⊙ (U_l V_lᵀ x_l + b_l) + x_l                            eq 2, U_l, V_l [d, r]
//   rank r, K experts      x_{l+1} = x_0 ⊙ (Σ_e G_e(x_l) U_e g(C_e g(V_eᵀ x_l)) + b_l) + x_l     eqs 3-4, g = tanh
//
// G is a softmax over experts.  b_l stands outside the sum of eq 3, as Σ_e G_e = 1.  Stacked: x = deep(x_L);
// parallel: x = [x_L, deep(x_0)]; no deep widths: x = x_L.  The paper's towers have ReLU ("activation"), ours SiLU.
#pragma once

#include "mixrec/models/interaction/interaction.h"
#include "mixrec/nn/tower.h"

namespace mixrec {

struct DcnV2Options {
  int64_t layers = 3, rank = 0, experts = 4;
  std::string compose = "stacked";
  TowerOptions deep = {};

  void visit(OptionVisitor& v);
};

struct DcnV2 : Module {
  DcnV2(const InteractionInput& input, const DcnV2Options& options, Rng& rng);
  Interaction forward(const Inputs& in, Pass& pass) const;
  int64_t width() const { return deep_.size() == 0 || stacked_ ? deep_.out() : width_ + deep_.out(); }
  void visit(Visitor& v);

 private:
  // Experts side by side: V in the columns of `down`, U in the rows of `up`.
  struct Layer : Module {
    Tensor weight;    // [d, d], or undefined
    Tensor down, up;  // [d, K r], [K r, d]
    Tensor middle;    // [K, r, r]
    Tensor gate;      // [d, K]
    Tensor bias;      // [d]

    Tensor product(const Tensor& x) const;  // what x_0 is multiplied with
    void visit(Visitor& v);
  };

  int64_t width_;
  bool stacked_;
  std::vector<Layer> layers_;
  Tower deep_;
};

}  // namespace mixrec

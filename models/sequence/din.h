// Deep Interest Network: a small network gives each event its weight for each candidate.
//
// Zhou et al., KDD 2018, https://arxiv.org/abs/1706.06978.  For a candidate with target q, and events e_t of which k_t
// are the columns that q has too (the first ones):
//
//   a_t = v · unit([e_t, q, k_t - q, k_t ⊙ q]) + c              the activation unit; hidden layers with Dice (eq 3)
//   y   = Σ_t a_t e_t                                            (eq 2 of its section 4.3) no softmax: Σ_t a_t is how
//                                                                strong the interest is
//   y   = Σ_t softmax_t(a_t) e_t                                 with `softmax`
//
// An empty history gives 0.  INFERRED: difference and product are the features beside the two vectors, as in the
// published code (the paper draws an outer product); columns that the candidate lacks stand in e_t alone.
#pragma once

#include "mixrec/models/sequence/sequence.h"
#include "mixrec/nn/tower.h"

namespace mixrec {

struct DinOptions {
  TowerOptions unit = {.widths = {36}, .activation = "dice"};
  bool softmax = false;

  void visit(OptionVisitor& v) {
    unit.visit(v), v.flag("softmax", softmax, "weights of a candidate's events sum to 1");
  }
};

// [C, width of an event].
struct Din : Module {
  // Throws when the candidates have none of the events' columns.
  Din(const SequenceInput& input, const DinOptions& options, Rng& rng);
  Tensor forward(const Inputs& in, Pass& pass) const;
  int64_t width() const { return width_; }
  void visit(Visitor& v) { v.module("unit", unit_), v.module("score", score_); }

 private:
  size_t history_;
  int64_t width_;
  bool softmax_;
  Tower unit_;
  Linear score_;
};

}  // namespace mixrec

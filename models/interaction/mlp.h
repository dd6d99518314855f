// An MLP on the concatenation of all features, pooled histories and added fields (MixFormer eq 1).
#pragma once

#include "mixrec/models/interaction/interaction.h"
#include "mixrec/nn/tower.h"

namespace mixrec {

// x = tower(e), [C, the last width].
struct Mlp : Module {
  Mlp(const InteractionInput& input, const TowerOptions& options, Rng& rng)
      : tower_(input.shape.flat_width(), options, rng) {}
  Interaction forward(const Inputs& in, Pass& pass) const { return {.x = tower_.forward(in.flat(), pass)}; }
  int64_t width() const { return tower_.out(); }
  void visit(Visitor& v) { tower_.visit(v); }

 private:
  Tower tower_;
};

}  // namespace mixrec

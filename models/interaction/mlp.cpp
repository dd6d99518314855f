#include "mixrec/models/interaction/mlp.h"

namespace mixrec {

InteractionEntry mlp_entry() {
  return interaction_entry<Mlp, TowerOptions>("mlp", "an MLP on all features side by side");
}

}  // namespace mixrec

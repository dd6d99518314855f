#include "mixrec/models/interaction/deepfm.h"

namespace mixrec {

InteractionEntry deepfm_entry() {
  return interaction_entry<DeepFm, TowerOptions>("deepfm", "a factorisation machine beside a deep tower");
}

}  // namespace mixrec

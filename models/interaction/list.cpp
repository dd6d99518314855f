// Every interaction module that a configuration can name: a new one adds its line, twice.
#include "mixrec/models/interaction/interaction.h"

namespace mixrec {

InteractionEntry dcnv2_entry();
InteractionEntry deepfm_entry();
InteractionEntry fm_entry();
InteractionEntry logistic_regression_entry();
InteractionEntry mlp_entry();

const std::vector<InteractionEntry>& interaction_list() {
  static const std::vector<InteractionEntry> list{dcnv2_entry(), deepfm_entry(), fm_entry(),
                                                  logistic_regression_entry(), mlp_entry()};
  return list;
}

}  // namespace mixrec

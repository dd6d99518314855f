// Every sequence module that a configuration can name: a new one adds its line, twice.
#include "mixrec/core/error.h"
#include "mixrec/models/sequence/sequence.h"

namespace mixrec {

SequenceEntry din_entry();
SequenceEntry mean_pooling_entry();
SequenceEntry target_attention_entry();

const std::vector<SequenceEntry>& sequence_list() {
  static const std::vector<SequenceEntry> list{din_entry(), mean_pooling_entry(), target_attention_entry()};
  return list;
}

int64_t SequenceInput::target_width() const {
  MR_CHECK(of().target_width > 0, "history '", of().name,
           "' begins with no feature of the candidates, whose attention would have no query: list an item "
           "feature in "
           "its 'features'");
  return of().target_width;
}

}  // namespace mixrec

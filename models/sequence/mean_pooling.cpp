#include "mixrec/models/sequence/mean_pooling.h"

#include "mixrec/ops/request.h"

namespace mixrec {

Tensor MeanPooling::forward(const Inputs& in, Pass&) const {
  const Inputs::History& history = in.history(history_);
  return segment_mean(history.events, history.offsets);
}

SequenceEntry mean_pooling_entry() {
  return sequence_entry<MeanPooling, MeanPoolingOptions>("mean_pooling",
                                                         "the mean of the events, once per request");
}

}  // namespace mixrec

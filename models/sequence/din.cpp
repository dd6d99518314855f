#include "mixrec/models/sequence/din.h"

#include "mixrec/nn/pairs.h"
#include "mixrec/ops/layout.h"

namespace mixrec {

Din::Din(const SequenceInput& input, const DinOptions& o, Rng& rng)
    : history_(input.history),
      width_(input.of().width),
      softmax_(o.softmax),
      unit_(width_ + 3 * input.target_width(), o.unit, rng),
      score_(unit_.out(), 1, rng) {}

Tensor Din::forward(const Inputs& in, Pass& pass) const {
  const Inputs::History& history = in.history(history_);
  const Pairs pairs(in, history_, pass);
  const Tensor e = pairs.of_events(history.events), q = pairs.of_candidates(history.target);
  const Tensor k = e.narrow(1, 0, q.dim(1));
  Pass still = pass;  // one pair has no statistics: it is taken as in evaluation
  still.training = false;
  const Tensor hidden = unit_.forward(concat({e, q, k - q, k * q}, 1), pairs.size() < 2 ? still : pass);
  const Tensor score = score_.forward(hidden);
  return pairs.weighted_sum(softmax_ ? pairs.softmax(score) : score, history.events);
}

SequenceEntry din_entry() {
  return sequence_entry<Din, DinOptions>("din",
                                         "a network weighs each event for each candidate; a sum of them");
}

}  // namespace mixrec

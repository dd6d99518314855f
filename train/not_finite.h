// Where a NaN came from.
#pragma once

#include "mixrec/models/model.h"

#include <string>

namespace mixrec {

// Runs a batch of the host through the model again, wherever that is, looking at every tensor, and says in one
// clause which is the first that holds a NaN or an infinity (a weight, an input, what an op or a tap of the
// model put out), and which row of the data set it belongs to; "" when all are finite.  `pass` has the random
// position of the first run.
std::string first_not_finite(RankingModel& model, const FeatureSet& spec, const RequestBatch& batch,
                             Pass& pass);

}  // namespace mixrec

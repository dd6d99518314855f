// What a data set must hold for a run: asked before its first step, and asked for exactly what the run will use.
#pragma once

#include "mixrec/data/dataset.h"
#include "mixrec/train/config.h"

#include <string>
#include <vector>

namespace mixrec {

// Throws when there is nothing to train on, to choose by or to test: an empty part, a task whose label does not vary
// in the rows that the optimiser sees, no task that train.select_by can judge on the validation rows, no task that
// can be judged on the test rows.  Validation labels are looked at when there are validation rows, test labels only
// with train.test.
//
// Returns a line for each task that cannot be judged and is therefore left out of the mean over tasks.
std::vector<std::string> check_trainable(const Dataset& data, const TrainConfig& config);

}  // namespace mixrec

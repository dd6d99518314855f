// Requests of a data set as a caller would tell them: the cells of its log, ids and times, before any encoding.
#pragma once

#include "mixrec/data/dataset.h"
#include "mixrec/data/feature_encoder.h"

#include <cstdint>
#include <vector>

namespace mixrec {

// The first requests of a part, in the packed order, until they have `rows` candidates; candidates in the order of the
// packed rows.  Cells are read from the log's files once more.  Histories hold the events that a model fitted on
// `trained_on` sees, as ids, times and signals.
std::vector<ScoreRequest> raw_requests(const Dataset& data, Split split, TrainedOn trained_on, int64_t rows);

}  // namespace mixrec

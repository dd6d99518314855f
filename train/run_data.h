// The data that a run is asked about: found, and encoded as the run was trained.
#pragma once

#include "mixrec/data/dataset.h"
#include "mixrec/train/run_record.h"

#include <functional>
#include <string>
#include <vector>

namespace mixrec {

// The folder to look at: `data` when it is given; else the first of the folder as seen from the run and its absolute path
// that holds what the run was trained on; else the first of them that is there.  Throws, naming both, when neither is.
std::string find_run_data(const RunFolder& folder, const RunRecord& record, const Config& config,
                          const std::string& data);

// The run's schema for another folder.  What the folder's own schema.json says of files (names, separators, columns)
// holds for it; all else is the run's, and differences are told to `report`.  A folder that says otherwise what its
// columns mean (their names, units of time, signals) and holds other data than the run was trained on is refused.
Schema run_schema(const RunFolder& folder, const RunRecord& record, const Config& config,
                  const std::string& path, const std::function<void(const std::string&)>& report);

// Opens `path` with the run's schema and encoders; `options` say who is told of it.
Dataset open_run_data(const RunFolder& folder, const RunRecord& record, const Config& config,
                      const std::string& path, PrepareOptions options = {});

// "item: 12.5 % of its values are unknown to the run, 0 % in training": one sentence for every feature of whose values
// in the part another share is unknown than in the training part, by more than a thousandth.
std::vector<std::string> unknown_values(const Dataset& data, Split split, TrainedOn trained_on);

}  // namespace mixrec

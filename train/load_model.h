// The model of a run with the weights that the run chose.
#pragma once

#include "mixrec/data/dataset.h"
#include "mixrec/models/model.h"
#include "mixrec/train/config.h"
#include "mixrec/train/run_record.h"

#include <memory>
#include <vector>

namespace mixrec {

// With fresh weights; `own_models` are looked at before the library's.
std::unique_ptr<RankingModel> build_model(const Config& config, const FeatureSet& spec,
                                          const std::vector<ModelEntry>& own_models);

struct LoadedModel {
  std::unique_ptr<RankingModel> model;
  TrainedOn trained_on = TrainedOn::training_part;
};

// Throws when the run has not chosen any weights yet, or when they are another run's.
LoadedModel load_model(const RunFolder& folder, const RunRecord& record, const Config& config,
                       const FeatureSet& spec, Device device, const std::vector<ModelEntry>& own_models);

// Which rows the run's weights were fitted on.
TrainedOn trained_on(const RunFolder& folder);

}  // namespace mixrec

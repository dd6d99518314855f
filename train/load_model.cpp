#include "mixrec/train/load_model.h"

#include "mixrec/core/error.h"
#include "mixrec/models/list.h"
#include "mixrec/train/checkpoint.h"

#include <filesystem>

namespace mixrec {

namespace {

TrainedOn trained_on(const Scalars& scalars) {
  const auto found = scalars.find("trained_on");
  return found != scalars.end() && found->second == "whole_period" ? TrainedOn::whole_period
                                                                   : TrainedOn::training_part;
}

void check_chosen(const RunFolder& folder) {
  MR_CHECK(std::filesystem::exists(folder.best_path()), folder.path(), " holds no best.safetensors yet: the ",
           "run has not evaluated its first step; continue it with mixrec train --out ", folder.path(),
           " --resume");
}

}  // namespace

std::unique_ptr<RankingModel> build_model(const Config& config, const FeatureSet& spec,
                                          const std::vector<ModelEntry>& own_models) {
  Rng rng(derive_seed(static_cast<uint64_t>(config.train.seed), "initial weights"));
  return find_model(config.model.name, own_models).build(spec, config.model.options.text, rng);
}

LoadedModel load_model(const RunFolder& folder, const RunRecord& record, const Config& config,
                       const FeatureSet& spec, Device device, const std::vector<ModelEntry>& own_models) {
  check_chosen(folder);
  record.check(load_scalars(folder.best_path()), folder.best_path());
  LoadedModel loaded{build_model(config, spec, own_models)};
  const Scalars scalars = load_tensors(folder.best_path(), named_tensors(loaded.model->parameters()));
  to_device(loaded.model->parameters(), device);
  loaded.trained_on = trained_on(scalars);
  return loaded;
}

TrainedOn trained_on(const RunFolder& folder) {
  check_chosen(folder);
  return trained_on(load_scalars(folder.best_path()));
}

}  // namespace mixrec

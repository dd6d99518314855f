#include "mixrec/models/list.h"

#include "mixrec/core/error.h"
#include "mixrec/models/interaction/mlp.h"
#include "mixrec/models/unified/mixformer.h"
#include "mixrec/models/unified/ui_mixformer.h"

namespace mixrec {

const std::vector<ModelEntry>& model_list() {
  static const std::vector<ModelEntry> models{
      model_entry<MixFormer, MixFormerOptions>(
          "mixformer", "MixFormer: head mixing, per-head FFNs, attention over the history"),
      model_entry<UiMixFormer, UiMixFormerOptions>(
          "ui_mixformer", "MixFormer with user heads that never read the candidate: once per request"),
      model_entry<MlpModel, MlpModelOptions>("mlp", "MLP on all features and the mean-pooled history"),
      model_entry<LogisticRegression, LogisticRegressionOptions>("logistic_regression",
                                                                 "one weight a feature value"),
  };
  return models;
}

const ModelEntry& find_model(const std::string& name, const std::vector<ModelEntry>& own) {
  std::vector<std::string> names;
  for (const auto* list : {&own, &model_list()}) {
    for (const ModelEntry& entry : *list) {
      if (entry.name == name) return entry;
      names.push_back(entry.name);
    }
  }
  const std::string near = nearest_name(name, names);
  std::string all;
  for (const std::string& known : names) all += (all.empty() ? "" : ", ") + known;
  MR_FAIL("no model is named '", name, "'", near.empty() ? "" : ", did you mean '" + near + "'?",
          " Models: ", all);
}

}  // namespace mixrec

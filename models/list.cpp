#include "mixrec/models/list.h"

#include "mixrec/core/error.h"
#include "mixrec/models/mlp.h"
#include "mixrec/models/stack.h"
#include "mixrec/models/unified/mixformer.h"
#include "mixrec/models/unified/ui_mixformer.h"

#include <cstdlib>
#include <cxxabi.h>

namespace mixrec {

std::string detail::type_name(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(type.name(), nullptr, nullptr, &status), std::free);
  const std::string full = status == 0 ? text.get() : type.name();
  // Of a template the arguments stay; of what it lies in nothing does.
  const size_t scope = full.substr(0, full.find('<')).rfind("::");
  return scope == std::string::npos ? full : full.substr(scope + 2);
}

const std::vector<ModelEntry>& model_list() {
  static const std::vector<ModelEntry> models{
      model_entry<MixFormer, MixFormerOptions>(
          "mixformer", "MixFormer: head mixing, per-head FFNs, attention over the history"),
      model_entry<UiMixFormer, UiMixFormerOptions>(
          "ui_mixformer", "MixFormer with user heads that never read the candidate: once per request"),
      model_entry<MlpModel, MlpModelOptions>("mlp", "MLP on all features and the mean-pooled history"),
      model_entry<LogisticRegressionModel, LogisticRegressionOptions>("logistic_regression",
                                                                      "one weight a feature value"),
      stack_entry("stack", "any sequence module with any interaction module, stacked or in parallel", {}),
      stack_entry("din", "DIN: a network weighs each event for each candidate, then an MLP",
                  {.sequence = {"din"}}),
      stack_entry("dcnv2", "DCN V2: cross layers and a deep tower on features and mean-pooled histories",
                  {.interaction = {"dcnv2"}}),
      stack_entry("deepfm", "a factorisation machine and a deep tower on the same embeddings",
                  {.interaction = {"deepfm"}, .field_width = 16}),
      stack_entry("fm", "a factorisation machine on features and mean-pooled histories",
                  {.interaction = {"fm"}, .field_width = 16}),
  };
  return models;
}

const ModelEntry& find_model(const std::string& name, const std::vector<ModelEntry>& own) {
  return find_entry<ModelEntry>("model", name, {&own, &model_list()});
}

}  // namespace mixrec

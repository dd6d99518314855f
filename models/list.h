// Every model that a configuration can name.
#pragma once

#include "mixrec/models/model.h"

#include <vector>

namespace mixrec {

const std::vector<ModelEntry>& model_list();

// The entry of that name among `own` and the bundled models; throws with a suggestion when there is none.
const ModelEntry& find_model(const std::string& name, const std::vector<ModelEntry>& own = {});

}  // namespace mixrec

// The data set that a configuration names.
#pragma once

#include "mixrec/data/dataset.h"
#include "mixrec/train/config.h"

#include <functional>
#include <string>

namespace mixrec {

// The schema for config.path.  A single config.schema is taken as it is; of several it is the folder's own
// schema.json or else the first whose files the folder has; without any, the bundled ones are tried so.
// config.overrides are merged over it (RFC 7396: null removes a key).
Schema open_schema(const DataConfig& config);

// Prepares the folder when needed, or `again`; `report` is told what is done, `progress` how far it is.
Dataset open_data(const DataConfig& config, const std::function<void(const std::string&)>& report = {},
                  bool again = false,
                  const std::function<void(const std::string& stage, double share)>& progress = {});

}  // namespace mixrec

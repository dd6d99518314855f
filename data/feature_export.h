// How the features of a data set lie in a folder of their own; data/feature_encoder.h uses them.
//
//   index.json           every other file with its bytes, lines and hash
//   encoders.json        what was counted (data/encoders/encoders.h): table sizes, edges, means and deviations
//   vocabulary.T.txt     texts of a table's rows 1, 2, …, one a line
//   item_values.F.txt    what training rows say of items (data/packing/packing_item_values.cpp)
//   schema.json          the schema: rules of tasks, shares of negatives that training keeps, …
//   features.json        the same as features and histories are made by it, defaults filled in
//   users.txt items.txt  their ids, one a line, and
//   feature.F            what features say of them, in this order, as in the packed form (data/packing/packing_encode.cpp)
//
// In format 1 there is neither index.json, encoders.json nor schema.json, and a vocabulary ends with the last value that
// the model knows.
#pragma once

#include "mixrec/data/packing/packed_data.h"

#include <string>
#include <vector>

namespace mixrec {

struct ExportedFeature {
  FeatureRule rule;
  Keyed by = Keyed::row;
  bool of_entity = false;       // the user's or item's own id: no table is needed
  int64_t vocabulary = -1;      // number of its file
  std::vector<double> numbers;  // edges; or mean, deviation and, of rates, the rate of an unknown value

  // Whether it is looked up in a table of users or items.
  bool is_stored() const { return by <= Keyed::item && !of_entity; }
};

struct ExportedHistory {
  HistorySpec spec;
  std::vector<size_t> features;      // numbers of the item features its events have, the first columns
  std::vector<std::string> signals;  // the next columns
  bool gap = false, position = false;
};

struct FeatureExport {
  static constexpr int kVersion = 2;

  int64_t version = kVersion;

  std::string user_column, item_column;
  std::string time_unit, time_format;  // both "": the order of rows
  double utc_offset_hours = 0;
  // What a request sees of its own day: `day` where days are those of the times, else only events before its time
  // are known to be those that training shows (exports from before this was noted say `time`).
  Snapshot snapshot = Snapshot::time;
  std::vector<ExportedFeature> features;
  std::vector<ExportedHistory> histories;
  std::vector<TaskSpec> tasks;
  int64_t vocabularies = 0;
};

// Reads FOLDER/features.json.  Throws when it is damaged, of a newer version, or does not add up: a number of a feature,
// a vocabulary or a history that is not there.
FeatureExport read_feature_export(const std::string& folder);

// Throws when the schema makes features or histories by other rules than `features`, which lie in `folder`.
void check_same_rules(const FeatureExport& features, const Schema& schema, const std::string& folder);

// The encoders of a run's folder: of a format 1 folder those that its features.json implies.
Encoders read_run_encoders(const std::string& folder);

}  // namespace mixrec

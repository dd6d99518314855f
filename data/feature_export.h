// How the features of a data set lie in a folder of their own; data/feature_encoder.h uses them.
//
//   features.json        the rules of features and histories, tasks, table sizes, edges, means and deviations
//   vocabulary.T.txt     texts of table T's rows 1, 2, …, one a line: those that the model knows
//   users.txt items.txt  their ids, one a line, and
//   feature.F            what features say of them, in this order, as in the packed form (data/packing/packing_encode.cpp)
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
  static constexpr int kVersion = 1;

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

FeatureExport read_feature_export(const std::string& path);

}  // namespace mixrec

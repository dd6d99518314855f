// What a data set looks like to a model: plain types that `data` fills in and `nn` and `models` read.
//
// A model never sees file names, columns or vocabularies, only features with table sizes, histories and
// tasks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mixrec {

// Which side of the decoupling a feature belongs to (MixFormer section 1.3: user heads, item heads).
enum class FeatureGroup : uint8_t { user, item, context, event };

// How often a feature is stored in a RequestBatch: once per request, once per candidate, once per history
// event. User features are per request, item features per candidate, event features per event; a context
// feature is either.
enum class FeatureScope : uint8_t { request, candidate, event };

enum class FeatureKind : uint8_t {
  categorical,  // one table row per cell
  list,         // any number of table rows per cell, averaged (genres)
  numeric,      // one standardised f32 per cell
};

// Row 0 of every table is the unknown row: values outside the vocabulary map to it.
inline constexpr int64_t kUnknownRow = 0;

struct FeatureSpec {
  std::string name;
  FeatureGroup group = FeatureGroup::user;
  FeatureScope scope = FeatureScope::request;
  FeatureKind kind = FeatureKind::categorical;
  // Features of one table name share one table; "" is a table of its own, named as the feature.
  std::string table = {};
  int64_t rows = 0;    // rows of that table, the unknown row included; 0 for numeric features
  int64_t width = 16;  // d_i: embedding width in eq 1; equal for all features of one table

  const std::string& table_name() const { return table.empty() ? name : table; }
  bool operator==(const FeatureSpec&) const = default;
};

// One behaviour sequence: what an event consists of, oldest event first.
struct HistorySpec {
  std::string name;
  int64_t max_length = 0;             // the newest max_length events are kept
  std::vector<FeatureSpec> features;  // scope event: item id, item side features, signals, time gap, position

  bool operator==(const HistorySpec&) const = default;
};

struct TaskSpec {
  std::string name;
  double loss_weight = 1.0;
  // Share w of negatives that the training rows keep; predictions are corrected by p' / (p' + (1 - p') / w).
  double kept_negatives = 1.0;
  // Labels of at least this much are positive where rows are ranked (AUC); without it, labels of 1 against labels of 0.
  std::optional<double> positive_from = std::nullopt;

  bool operator==(const TaskSpec&) const = default;
};

struct FeatureSet {
  std::vector<FeatureSpec> features;  // all but event features, in the order of eq 1's concatenation
  std::vector<HistorySpec> histories;
  std::vector<TaskSpec> tasks;

  bool operator==(const FeatureSet&) const = default;
};

}  // namespace mixrec

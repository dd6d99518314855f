// What a packed data set says about itself: where it came from, and what was counted while it was made.
#pragma once

#include "mixrec/data/fingerprint.h"

#include <cstdint>
#include <string>
#include <vector>

namespace mixrec {

// `train` is fitted while hyperparameters are chosen on `validation`; `refit` is both together, the whole
// training period, and `all` every row.
enum class Split : uint8_t { train, validation, test, refit, all };
const char* split_name(Split split);

// One embedding table.
struct TableInfo {
  std::string name;
  int64_t rows = 0;  // the unknown row included
  int64_t rows_training =
      0;  // rows that the training part without validation knows; higher ones are unknown to it
};

struct TaskStats {
  int64_t rows = 0;                  // labelled rows: neither an empty label, masked nor of weight 0
  double weight = 0, positives = 0;  // sums of weights, and of weight times label

  double rate() const { return weight > 0 ? positives / weight : 0; }
};

// How many of the log's users or items a joined table or a source of a history has too.
struct JoinStats {
  std::string key, file;  // of the schema, as tables.items; its first file
  std::string what;       // "users" or "items"
  int64_t found = 0, of = 0;

  double share() const { return of > 0 ? static_cast<double>(found) / static_cast<double>(of) : 1; }
};

struct SplitStats {
  int64_t rows = 0, requests = 0;
  std::string first_day, last_day;  // "" when the log has no dates
  std::vector<TaskStats> tasks;
};

struct Manifest {
  static constexpr int kVersion = 6;

  std::string packed_key;
  Fingerprint content;          // of the files it was made from
  std::string encoders;         // id of the encoders that it was encoded with
  bool given_encoders = false;  // they are not its own: PACKED/encoders does not exist
  int64_t rows_read = 0, rows_filtered = 0, duplicates = 0;
  int64_t rows = 0, requests = 0, users = 0, items = 0;
  SplitStats splits[3];  // train, validation, test
  std::vector<TableInfo> tables;
  std::vector<int64_t> feature_rows;              // parallel to the schema's features; 0: numeric
  std::vector<std::vector<int64_t>> signal_rows;  // per history and signal
  std::vector<int64_t> event_counts;              // per history
  std::vector<JoinStats> joins;
  std::vector<std::string> warnings;  // what is likely not meant, one sentence each
};

void write_manifest(const Manifest& manifest, const std::string& path);
// Of another version: an empty manifest.
Manifest read_manifest(const std::string& path);

}  // namespace mixrec

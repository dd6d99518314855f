// A first look at a data set: what is in it, and what is likely to bite.
#pragma once

#include "mixrec/data/dataset.h"

#include <string>
#include <vector>

namespace mixrec {

struct InspectedColumn {
  std::string name;       // of the log
  int64_t distinct = 0;   // different cells in the sampled rows
  double missing = 0;     // share of empty cells, of all rows
  bool constant = false;  // one value in all rows
  bool input = false;     // a feature reads it
  bool label = false;     // a label, mask or weight reads it
  bool key = false;       // it says whose, of what or when a row is
  bool coded = false;     // a vocabulary or a hash reads it: its numbers have no order
  double auc = 0.5;       // of this column alone against the task below: how well it ranks that label
  std::string task;
  // A column that has one value in 90 % of the rows: odds of a label where it has another, over those
  // elsewhere.
  double odds_ratio = 1;
  std::string odds_task;
};

struct InspectedFeature {
  std::string name, group, kind;
  int64_t rows = 0;                            // of its table; 0: numeric
  double unknown_train = 0, unknown_test = 0;  // share of cells that read as unknown
};

struct InspectedHistory {
  std::string name;
  int64_t events = 0;
  // Lengths over a split's requests at the shares 0, .1, .25, .5, .75, .9, 1; and the share of empty ones.
  std::vector<int64_t> train_lengths, test_lengths;
  double train_empty = 0, test_empty = 0;
};

struct InspectedUsers {
  std::string task;
  int64_t users = 0, both_classes = 0;  // in the test part: UAUC counts only users with both
};

struct InspectReport {
  std::string name;
  Manifest manifest;
  std::vector<std::string> tasks;
  int64_t log_users = 0, log_items = 0;  // in the rows of the data set, whatever tables and histories name
  std::vector<std::string> duplicate_key;
  int64_t repeated_rows = 0;    // rows equal to an earlier one in every cell
  int64_t repeated_events = 0;  // rows equal to an earlier one in user, item and time
  std::vector<InspectedColumn> columns;
  std::vector<InspectedFeature> features;
  std::vector<InspectedHistory> histories;
  std::vector<InspectedUsers> users;
  std::vector<std::string> warnings;  // one sentence each, most serious first

  std::string text() const;
  std::string json() const;
};

// Reads the log once more, for what the packed form no longer holds.  `folder` is the data folder.
InspectReport inspect(const Dataset& data, const std::string& folder);

namespace detail {

// Fills columns, repeated_rows and repeated_events from the log's files.  `kept` says, by row over all files, which
// ones are in the data set.
void inspect_columns(const Schema& schema, const std::string& folder, const std::vector<bool>& kept,
                     InspectReport& report);

}  // namespace detail

}  // namespace mixrec

// What turns values into a model's inputs and was learned from the data that it was trained on: vocabularies, edges,
// means and deviations, smoothing of rates, sizes of tables, what training rows say of items ("item_values"), and where
// the parts of the log begin.
//
// A packed form holds the encoders that were counted while it was made (PACKED/encoders); a run holds a copy.  Other
// data is packed with them:
//
//   Dataset::open(schema, "next-week", {.encoders = "runs/a/encoders"});
//
// Then values that are not in a vocabulary read as row 0, numbers are standardised with the same moments, every table has
// the size that the model was built for, and items have the "item_values" of then.
#pragma once

#include "mixrec/data/dictionary.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mixrec {

struct Encoders {
  static constexpr int64_t kFormat = 2;

  struct Feature {
    std::string name;
    // Bucket edges; or mean and deviation; rates: and the logit of an unknown value, and the share that smooths.
    std::vector<double> numbers;
    double unknown = 0;  // share of its values in the training part that have no row of their own
    std::string
        item_values;  // hash of the file of its "item_values"; "": it has none, or an earlier release wrote it
  };
  struct Table {
    std::string name;
    int64_t rows = 0;           // the unknown row included
    int64_t rows_training = 0;  // rows that the training part without validation knows
    int64_t vocabulary = -1;    // number of its file; -1: none is needed
  };
  // First day, and first time in milliseconds, of a part that follows another in time; INT64_MAX: it has none.
  struct Beginning {
    int64_t day = INT64_MAX, time = INT64_MAX;

    bool reached(int64_t a_day, int64_t a_time) const { return a_day >= day || a_time >= time; }
  };

  std::vector<Feature> features;
  std::vector<Table> tables;
  std::vector<std::vector<int64_t>> signal_rows;  // per history and signal
  std::optional<Beginning> validation, test;      // absent in format 1

  std::string id;      // hash of all of it, vocabularies included; set by write and read
  std::string folder;  // where the vocabularies lie
  int64_t format = kFormat;

  const Feature* find_feature(const std::string& name) const;
  const Table* find_table(const std::string& name) const;
  // Texts of the rows 1, 2, … of a table.  Throws when its file is not as it was when the encoders were read.
  Dictionary vocabulary(const Table& table) const;
  std::string vocabulary_file(const Table& table) const;
  // Of the feature with this number; data/packing/packing_item_values.cpp says what is in it.
  static std::string item_values_file(const std::string& folder, size_t feature);
};

// Writes encoders.json and the index beside vocabularies and item values, which lie in `folder` already; sets id, folder
// and the hashes of item values.
void write_encoders(Encoders& encoders, const std::string& folder);

// Reads and checks the encoders of a packed form or a run.  Throws, naming the file, when one is damaged or was
// edited, and when a newer release wrote them.
Encoders read_encoders(const std::string& folder);

// Texts, one a line; line breaks and backslashes inside are escaped.
std::string escaped_line(std::string_view text);
Dictionary parse_lines(std::string_view lines);
void for_each_line(std::string_view lines, const std::function<void(const std::string&)>& take);

}  // namespace mixrec

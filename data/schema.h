// What a data set is, without C++: one JSON file names the files, columns, labels, features, histories and
// the split. docs/schema.md explains every key; a complete one:
//
//   { "log":       { "files": "ratings.dat", "separator": "::", "columns": ["user", "movie", "rating", "time"],
//                    "user": "user", "item": "movie", "time": "time" },
//     "tables":    { "users":  { "file": "users.dat", "separator": "::",
//                                "columns": ["user", "gender", "age", "job", "zip"] },
//                    "movies": { "file": "movies.dat", "separator": "::", "columns": ["movie", "title", "genres"] } },
//     "tasks":     { "liked": "rating >= 4" },
//     "features":  { "user":    [ "user", "users.gender", "users.age", "users.job" ],
//                    "item":    [ { "column": "movie", "min_count": 5 }, { "column": "movies.genres", "list": "|" } ],
//                    "context": [ { "column": "time", "part": "hour" } ] },
//     "histories": { "rated": { "length": 64, "from": [ { "log": true, "signals": { "liked": "rating >= 4" } } ],
//                               "features": [ "movie", "genres" ], "gap": true, "position": true } },
//     "split":     { "by": "date", "test_days": 30, "validation_days": 15 } }
#pragma once

#include "mixrec/core/feature_spec.h"
#include "mixrec/data/csv_reader.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

// How a cell becomes a point in time: seconds, milliseconds... since 1970, or a strptime-like format
// (data/time_format.h).
struct TimeColumn {
  std::string column;
  std::string unit = "s";             // s, ms, us, ns, day
  std::string format;                 // not empty: text in this format, `unit` unused
  int first_year = 0, last_year = 0;  // where its times must lie; 0: in plausible years
};

enum class Encoding : uint8_t { vocabulary, hash, quantiles, buckets, numeric };

// A number that histories give about an item's, a user's or any of its features' past: the smoothed logit of
// the share of events with `signal` true, over the events that lie before the log.
//   logit((true + k p) / (all + k)),  p = the share over all events
struct RateRule {
  std::string history, key, signal;
  double k = 20;
};

// How many of the request's history events agree with the candidate in the item feature `key` (and have
// `signal` true, when given): rows 1 .. cap + 1 of a table of its own.
struct MatchRule {
  std::string history, key, signal;
  int64_t cap = 10;
};

struct FeatureRule {
  FeatureSpec spec;    // rows are counted when the data set is prepared
  std::string joined;  // table the column is in; "" is the log
  std::string column;
  Encoding encoding = Encoding::vocabulary;
  int64_t min_count = 1;       // vocabulary: rarer values share the unknown row
  double unknown_rate = 0;     // share of training cells that read as unknown, so that its row is trained
  int64_t buckets = 0;         // hash and quantiles: how many
  std::vector<double> edges;   // buckets: a value v is in the bucket of the last edge <= v
  bool log1p = false;          // numeric: sign(x) log(1 + |x|) before it is standardised
  std::string list_separator;  // kind list: between the elements of a cell
  std::vector<std::string> missing_texts;  // cells that mean the same as an empty one
  // Stands for an empty cell; without it a missing cell has a row of its own.
  std::optional<std::string> missing;
  // "first" or "last": what is stored of an item is what the oldest or newest training row says of it, "": what each row
  // says of its own.
  std::string item_values;
  std::string part;  // of a time column: "hour" or "weekday"; "" takes the cell
  std::optional<RateRule> rate;
  std::optional<MatchRule> matches;

  bool is_missing(std::string_view cell) const {
    return cell.empty() || std::find(missing_texts.begin(), missing_texts.end(), cell) != missing_texts.end();
  }
};

// A small whole number that events carry, 0 to 253: an expression over the row, or a list beside the items.
struct SignalRule {
  std::string name;
  std::string expression;                     // rows: evaluated per row; sequences: the column
  std::optional<std::string> list_separator;  // sequences: "" is one character an event
};

// Where the events of a history come from.
struct EventSource {
  bool log = false;  // the log itself: a row is an event of all later requests of its user
  // Otherwise its own files, all of whose events lie before the log: rows like the log's, or (items_separator
  // given) one row a user with a list of items, oldest first.
  std::vector<std::string> files;
  CsvFormat format;
  std::string user, item;
  std::optional<std::string> items_separator;
  std::optional<TimeColumn> time;  // rows: of the event; sequences: a list beside the items
  std::string times_separator;
  std::string where;
  std::vector<SignalRule> signals;
};

struct HistoryRule {
  std::string name;
  int64_t length = 64;
  std::vector<EventSource> sources;
  std::vector<std::string> features;  // names of item features, whose tables events share
  std::vector<std::string> signals;   // names over all sources, in order
  bool gap = false;                   // log2 buckets of the seconds between event and request
  bool position = false;              // 1 = newest
  int64_t width = 16;                 // of signals, gap and position
};

struct TaskRule {
  TaskSpec spec;
  std::string label;   // expression with a value in [0, 1]
  std::string mask;    // expression; false: this label does not count
  std::string weight;  // expression, >= 0
};

struct JoinedTable {
  std::string name;
  std::vector<std::string> files;
  CsvFormat format;
  std::string key;  // its column that equals the log's user or item
  bool of_user = true;
};

enum class SplitBy : uint8_t { date, fraction, column, files, random };

struct SplitRule {
  SplitBy by = SplitBy::date;
  std::string test_from, validation_from;      // date: first days, "2022-05-03"
  int64_t test_days = 0, validation_days = 0;  // date: counted from the end
  double test = 0;  // fraction: of the rows, the newest; random: of the rows or users
  double validation =
      0;  // fraction: of the rows before those; column and files: of the training rows, the newest; random: as test
  std::string column;                                                     // column: its values decide
  std::vector<std::string> train_values, validation_values, test_values;  // column: values; files: file names
  // random: a row's part is decided by a hash of its cells, or of its user, and the seed.
  uint64_t seed = 1;
  bool of_users = false;
};

// What a request sees of its own day: nothing (its history ends the day before) or all that happened before
// it.
enum class Snapshot : uint8_t { day, time };

struct Schema {
  std::string name;
  std::vector<std::string> files;
  CsvFormat format;
  std::string user, item;
  std::optional<TimeColumn> time;  // without one, the order of the rows is the time
  std::optional<TimeColumn> date;  // day of the row; default: the day of `time`
  double utc_offset_hours = 0;
  std::string request;  // rows of one user, day and request are one request; default: by `snapshot`
  std::vector<std::string> duplicates;  // key columns: of equal rows the first is kept
  std::string where;                    // expression: other rows are not part of the data set
  std::string weight;                   // expression: sample weight of a row
  std::vector<JoinedTable> tables;
  std::vector<TaskRule> tasks;
  std::vector<FeatureRule> features;
  std::vector<HistoryRule> histories;
  SplitRule split;
  Snapshot snapshot = Snapshot::day;
  bool outside_files = false;  // files may lie outside the data folder
  bool freeze = true;          // no event after the last training row enters any history

  // The whole schema as one line of JSON.
  std::string json;
  // All that decides the packed form, as one line of JSON: equal texts, equal packed forms.
  std::string packed_key;

  // Every file the schema names, in order.
  std::vector<std::string> source_files() const;
};

// Both throw on unknown keys (with a suggestion), wrong types and contradictions; the message names the place
// in the text, as in "schema.json: features.item[2].min_count: ...".
Schema parse_schema(const std::string& json, const std::string& called = "schema");
Schema load_schema(const std::string& path);

// The schema for a data folder: its own schema.json, else the first of `candidates` whose files the folder
// all has. Throws, saying what each candidate lacks, when there is none.
std::string find_schema_file(const std::string& folder, const std::vector<std::string>& candidates = {});
Schema find_schema(const std::string& folder, const std::vector<std::string>& candidates = {});

// The schemas that come with the program (examples/configs/*/schema*.json beside it): candidates for a folder
// that is named without any configuration.
std::vector<std::string> bundled_schemas();

namespace detail {

// Names that one part of a schema takes from another; throws where one is not there.
void check_names(const Schema& schema, const std::string& called);

}  // namespace detail

}  // namespace mixrec

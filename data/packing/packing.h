// How `prepare` works inside; nothing here is needed to use a data set.
//
//   read_tables   user and item tables -> one raw number per user or item and column
//   read_log      the log, once        -> row records, spilled into bucket files by user
//   place_split   drops duplicates; when validation and test begin
//   read_events   history files        -> event records, spilled the same way
//   group         bucket by bucket in memory: split, group into requests, merge events;
//   counts encode        counts -> vocabularies, edges, moments; raw numbers -> rows of tables
//
// Memory holds the dictionaries, the tables and one bucket; never the log.
#pragma once

#include "mixrec/data/dictionary.h"
#include "mixrec/data/encoders/encoders.h"
#include "mixrec/data/encodings.h"
#include "mixrec/data/expression.h"
#include "mixrec/data/packing/manifest.h"
#include "mixrec/data/packing/packed_files.h"
#include "mixrec/data/schema.h"

#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace mixrec::packing {

inline constexpr int64_t kBeforeAll = INT64_MIN;  // time of events that have none
inline constexpr int32_t kDayBeforeAll = INT32_MIN;

// Where the cells of a feature are kept.
enum class Place : uint8_t { user, item, request, candidate };

// How often a value occurs in the training part, and in the validation rows that a refit adds to it.
struct Counts {
  uint64_t train = 0, validation = 0;
};

// Mean and deviation of a stream of weighted numbers, by Welford's updates, which lose nothing when the mean is large
// and the deviation small; the wide exponent keeps squares of tiny and huge deviations from vanishing.
class MomentSum {
 public:
  void add(double value, double weight = 1);
  double mean() const { return static_cast<double>(mean_); }
  bool constant() const { return squares_ <= 0; }
  // Of the population; 1 when all values are equal, for nothing else divides by zero.
  double deviation() const;

 private:
  long double weight_ = 0, mean_ = 0, squares_ = 0;
};

// One feature that is read from a column.  Its cells are kept raw until all are counted: numbers as they are read
// (f64, NaN: missing), anything else as a whole number: in a dictionary (lists: of the whole cell), a hash bucket, an
// hour or a weekday.
struct Column {
  const FeatureRule* rule = nullptr;
  Place place = Place::candidate;
  bool of_entity = false;             // the user's or item's own id
  Dictionary* values = nullptr;       // vocabulary: shared by the features of one table
  std::unique_ptr<Dictionary> cells;  // lists: whole cells
  bool from_log = false;              // item: what the log's rows say of it, by rule->item_values
  size_t slot = 0;                    // request, candidate: index among the record's numbers or ids
  std::vector<uint32_t> side;         // user, item: raw id by entity
  std::vector<double> side_numbers;   // the same of numbers
  std::vector<Counts> counts;         // request, candidate: by raw id
  MomentSum moments;                  // numeric: over training rows

  bool is_number() const { return rule->encoding >= Encoding::quantiles; }
  bool is_list() const { return rule->spec.kind == FeatureKind::list; }
  // Raw id or number of the cell that the reader is at, or of a missing cell.
  uint32_t id(const CsvReader& reader, size_t cell) { return id_of(reader.cell(cell)); }
  uint32_t id_of(std::string_view text);
  uint32_t missing_id() { return rule->part.empty() ? id_of("") : 0; }
  double number(const CsvReader& reader, size_t cell) const;
  double missing_number() const;
  double number_of_id(std::string_view text) const;  // of a user's or item's id that is read as a number
  // Whether its cells are in the records of rows.
  bool in_rows() const { return !rule->rate && !rule->matches && (place >= Place::request || from_log); }
};

struct RowHead {
  int64_t time;
  uint64_t row, duplicate, request;
  uint32_t user, item;
  int32_t day;
  uint32_t events;  // bit h: the row is an event of history h
  uint32_t given;   // bit i: the row has a value for the column from_log i
  Split split;
};

// Which users and items of a file the log has too: a joined table, or a source of a history.
struct JoinedIds {
  std::string key, file;  // of the schema; the first file
  std::vector<bool> users, items;
  bool has_users = false, has_items = false;

  static void add(std::vector<bool>& ids, uint32_t id) {
    if (ids.size() <= id) ids.resize(std::max<size_t>(id + 1, 2 * ids.size()));
    ids[id] = true;
  }
};

struct EventHead {
  int64_t time;
  uint64_t order;
  uint32_t user, item;
  int32_t day;
};

// Offsets inside a row record: head, raw numbers (f64), raw ids (u32), labels, weights (f32), signals (u8).
struct RowLayout {
  size_t numbers = 0, ids = 0, tasks = 0, signals = 0;

  size_t bytes() const { return (signal_at() + signals + 7) / 8 * 8; }
  size_t number_at() const { return sizeof(RowHead); }
  size_t id_at() const { return number_at() + 8 * numbers; }
  size_t label_at() const { return id_at() + 4 * ids; }
  size_t weight_at() const { return label_at() + 4 * tasks; }
  size_t signal_at() const { return weight_at() + 4 * tasks; }
};

// The times that one column gives over all its files.
struct TimeRange {
  double least = std::numeric_limits<double>::infinity(), most = -least;  // as given, in the unit
  int64_t first = INT64_MAX, last = INT64_MIN;                            // milliseconds
  std::string first_place, first_text;  // of the earliest time before the plausible years
};

struct Packing {
  // With `given` encoders nothing is counted: values get the rows and numbers that these say.
  Packing(const Schema& schema, std::string data_folder, std::string out_folder,
          const Encoders* given = nullptr);

  const Schema& schema;
  std::string data, out;
  const Encoders* given;
  Encoders encoders;  // written by encode(): the given ones, or those that were counted
  Manifest manifest;

  Dictionary users, items;
  std::map<std::string, std::unique_ptr<Dictionary>>
      dictionaries;             // by table name, but users' and items' own
  std::vector<Column> columns;  // parallel to schema.features; features that are not read have no values
  RowLayout layout;
  std::vector<size_t> log_signal_at;  // per history: first signal in the row record
  uint32_t buckets = 1;
  int64_t rows_read = 0;
  // Of the rows of the data set, without duplicates.
  int32_t last_day = kDayBeforeAll, first_day = INT32_MAX;
  TimeRange time_range, date_range;
  std::vector<int64_t> times;  // fraction splits and cut-off validation: of every row that may be cut

  // When the validation and test parts begin, for splits in order of time.
  Encoders::Beginning validation, test;

  // By entity: rows of the training part; by item and history: events from files.
  std::vector<Counts> user_rows, item_rows, item_events;
  std::vector<bool> users_seen, items_seen;  // in any part of the log
  std::vector<JoinedIds> joined;
  // By history, signal and entity: events from files with the signal known, and true.
  struct Rate {
    uint64_t all = 0, yes = 0;
  };
  std::vector<std::vector<std::vector<Rate>>> item_rates, user_rates;

  // See PrepareOptions; may be empty.
  std::function<void(const std::string& stage, double share)> progress;
  bool labels_optional = false;  // see PrepareOptions
  // Whether the expression reads a column that the file lacks, and may lack.
  bool lacks(const std::string& expression, const CsvReader& reader) const;
  void tick(const std::string& stage, double share) const {
    if (progress) progress(stage, share);
  }

  // Throws when the file lies outside the data folder and the schema does not allow that.
  std::string data_path(const std::string& file) const;
  std::string out_path(const std::string& file) const { return out + "/" + file; }
  std::string row_bucket(uint32_t bucket) const { return out_path("spill-rows-" + std::to_string(bucket)); }
  std::string event_bucket(size_t history, uint32_t bucket) const {
    return out_path("spill-events-" + std::to_string(history) + "-" + std::to_string(bucket));
  }
  // Counts a row of the data set for place_split.
  void place(const RowHead& head);
  Split split_of(int64_t day, int64_t time) const {
    return test.reached(day, time)         ? Split::test
           : validation.reached(day, time) ? Split::validation
                                           : Split::train;
  }
};

// Says now and then how far a file has been read.
class Ticks {
 public:
  Ticks(const Packing& packing, const std::string& file) : packing_(packing), stage_("reading " + file) {}

  // After each row.
  void operator()(const CsvReader& reader) {
    if (rows_++ % 4096 != 0) return;
    packing_.tick(stage_, reader.bytes() > 0
                              ? static_cast<double>(reader.bytes_read()) / static_cast<double>(reader.bytes())
                              : -1);
  }

 private:
  const Packing& packing_;
  std::string stage_;
  uint64_t rows_ = 0;
};

void read_tables(Packing& packing);
void read_log(Packing& packing);
void place_split(Packing& packing);
void read_events(Packing& packing);
void group(Packing& packing);
void encode(Packing& packing);

// The values of items that feature f's training rows gave: keeps them beside the encoders, or takes the given ones, and
// then items that these do not know have none.
void write_item_values(Packing& packing, size_t f);
void take_item_values(Packing& packing, size_t f);

// Edges that cut the training rows into equal shares. Equal values never part: where a share ends inside a value, the
// cut goes before or after it, to the nearer side, so there may be fewer edges, but one at least when values differ.
std::vector<double> quantile_edges(std::vector<std::pair<double, uint64_t>> counted, int64_t buckets);

// The product of the weights of a row and of a task, which must survive as f32; throws with the reader's place.
float sample_weight(double of_row, double of_task, const CsvReader& reader, const std::string& task);

// The cell of an id; throws when it is empty.
std::string_view key_text(const CsvReader& reader, size_t cell, const char* what);
// Signals are small whole numbers; 0 in a record means that the event has none.
uint8_t signal_row(double value, const CsvReader& reader, const SignalRule& signal);
// Index of each of a source's signals among the history's.
std::vector<size_t> signal_places(const HistoryRule& history, const EventSource& source);

// Writes manifest.joins and manifest.warnings: what is likely not meant.  Throws where nothing of a joined file matches.
void check_joins(Packing& packing);
void warn(Packing& packing);

// The part of a row by a random split: the same for the same text and seed.
Split random_split(const SplitRule& rule, uint64_t hash);

// Reads a point in time, in milliseconds, and its day.  A time beyond the last year that is believed is an error at its
// line: most often its unit is another one.
class TimeReader {
 public:
  TimeReader(const TimeColumn& rule, const CsvReader& reader, double utc_offset_hours, TimeRange& range,
             std::string_view key);
  int64_t milliseconds(const CsvReader& reader) const;
  int32_t day(int64_t milliseconds) const;
  size_t cell() const { return cell_; }
  // Of a text in the unit; throws with the reader's place.
  int64_t parse(std::string_view text, const CsvReader& reader) const;
  // Milliseconds to add for local time.
  int64_t offset() const { return offset_; }

 private:
  [[noreturn]] void refuse(std::string_view text, double value, const CsvReader& reader) const;

  TimeColumn rule_;
  size_t cell_;
  int64_t offset_, earliest_, latest_;
  TimeRange* range_;
};

// Looks at all times of a column together: throws when they lie before the plausible years and another unit would move
// them there, and when single ones do.  Numbers that lie near 1970 whatever the unit count from another moment, which is
// allowed.  `key` says where the schema has them.
void check_times(const TimeColumn& rule, const TimeRange& range, const std::string& key);

// The bytes of a file that packing wrote for itself; the file is removed.
std::vector<char> take_file(const std::string& path);

}  // namespace mixrec::packing

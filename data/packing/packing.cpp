#include "mixrec/data/packing/packing.h"

#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"
#include "mixrec/data/time_format.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

namespace mixrec::packing {

namespace {

// Bucket files of about this size are grouped in memory.
constexpr int64_t kBucketBytes = 64 << 20;

Place place_of(const FeatureRule& rule, const Schema& schema) {
  const FeatureSpec& spec = rule.spec;
  const bool entity = rule.joined.empty() && rule.part.empty();
  if (spec.group == FeatureGroup::user &&
      (!rule.joined.empty() || rule.rate || (entity && rule.column == schema.user)))
    return Place::user;
  if (spec.group == FeatureGroup::item && (!rule.joined.empty() || rule.rate || !rule.item_values.empty() ||
                                           (entity && rule.column == schema.item)))
    return Place::item;
  return spec.scope == FeatureScope::request ? Place::request : Place::candidate;
}

// Whether the encoders are of this schema: every feature finds what it is encoded with.
void check_given(const Encoders& given, const Schema& schema) {
  const auto check = [&](bool fits, const std::string& what) {
    MR_CHECK(fits, "the encoders in ", given.folder, " are of another schema: ", what);
  };
  for (const FeatureRule& rule : schema.features) {
    const std::string& name = rule.spec.name;
    if (rule.matches || !rule.part.empty()) continue;
    const Encoders::Feature* feature = given.find_feature(name);
    check(feature != nullptr, "they have no feature '" + name + "'");
    const size_t count = feature->numbers.size();
    const bool numeric = rule.spec.kind == FeatureKind::numeric;
    check(!numeric || (rule.rate ? count >= 3 : count == 2), "'" + name + "' is not a number to them");
    if (numeric) continue;
    const Encoders::Table* table = given.find_table(rule.spec.table_name());
    check(table != nullptr, "they have no table '" + rule.spec.table_name() + "'");
    const int64_t expected = rule.encoding == Encoding::hash ? 1 + rule.buckets
                             : rule.encoding == Encoding::vocabulary
                                 ? table->rows
                                 : kFirstBucketRow + static_cast<int64_t>(count) + 1;
    check((table->vocabulary >= 0) == (rule.encoding == Encoding::vocabulary) && table->rows == expected,
          "the table '" + rule.spec.table_name() + "' was made by another rule");
  }
  check(given.signal_rows.size() == schema.histories.size(), "they have other histories");
  for (size_t h = 0; h < schema.histories.size(); ++h)
    check(given.signal_rows[h].size() == schema.histories[h].signals.size(),
          "the history '" + schema.histories[h].name + "' has other signals");
}

}  // namespace

void MomentSum::add(double value, double weight) {
  if (weight == 0 || std::isnan(value)) return;
  weight_ += weight;
  const long double from_mean = value - mean_;
  mean_ += from_mean * (weight / weight_);
  squares_ += weight * from_mean * (value - mean_);
}

double MomentSum::deviation() const {
  if (squares_ <= 0) return 1;
  return static_cast<double>(std::sqrt(squares_ / weight_));
}

Packing::Packing(const Schema& the_schema, std::string data_folder, std::string out_folder,
                 const Encoders* the_given)
    : schema(the_schema),
      data(std::move(data_folder)),
      out(std::move(out_folder)),
      given(the_given),
      columns(schema.features.size()) {
  if (given) check_given(*given, schema);
  for (size_t f = 0; f < columns.size(); ++f) {
    Column& column = columns[f];
    column.rule = &schema.features[f];
    column.place = place_of(*column.rule, schema);
    const FeatureRule& rule = *column.rule;
    if (rule.rate || rule.matches) continue;
    column.of_entity = rule.joined.empty() && rule.part.empty() &&
                       ((column.place == Place::user && rule.column == schema.user) ||
                        (column.place == Place::item && rule.column == schema.item));
    column.from_log = !rule.item_values.empty();
    if (column.in_rows()) column.slot = column.is_number() ? layout.numbers++ : layout.ids++;
    if (column.is_list()) column.cells = std::make_unique<Dictionary>();
    if (column.of_entity && rule.encoding == Encoding::vocabulary && !column.is_list())
      column.values = column.place == Place::user ? &users : &items;
  }
  // A feature that names an entity's table shares the entity's dictionary.
  std::map<std::string, Dictionary*> tables;
  for (const auto& column : columns)
    if (column.values) tables[column.rule->spec.table_name()] = column.values;
  for (auto& column : columns) {
    const FeatureRule& rule = *column.rule;
    if (column.values || rule.rate || rule.matches || rule.encoding != Encoding::vocabulary ||
        !rule.part.empty())
      continue;
    auto& shared = tables[rule.spec.table_name()];
    if (!shared) shared = (dictionaries[rule.spec.table_name()] = std::make_unique<Dictionary>()).get();
    column.values = shared;
  }
  layout.tasks = schema.tasks.size();
  for (const auto& history : schema.histories) {
    log_signal_at.push_back(layout.signals);
    layout.signals += history.signals.size();
  }
  int64_t bytes = 0;
  for (const auto& file : schema.files) bytes += InputFile::estimated_bytes(data_path(file));
  buckets = static_cast<uint32_t>(std::min<int64_t>(bytes / kBucketBytes + 1, 512));
}

uint32_t Column::id_of(std::string_view text) {
  if (rule->is_missing(text)) text = rule->missing ? std::string_view(*rule->missing) : "";
  if (is_list()) return cells->add(text);
  if (rule->encoding == Encoding::hash) return hash_row(text, rule->buckets);
  return values->add(text);
}

double Column::missing_number() const {
  double value = std::numeric_limits<double>::quiet_NaN();
  MR_CHECK(
      !rule->missing || parse_number(*rule->missing, value), "feature '", rule->spec.name,
      "': its \"missing\" value '", rule->missing.value_or(""),
      "' is not a number; it stands for an empty cell, and a list, as [\"NA\"], names cells that mean one");
  return value;
}

double Column::number_of_id(std::string_view text) const {
  double value = 0;
  MR_CHECK(parse_number(text, value), "feature '", rule->spec.name, "': '", printable(text),
           "' is not a number");
  MR_CHECK(rule->encoding != Encoding::numeric || fits_f32(value), "feature '", rule->spec.name, "': '",
           printable(text), "' is beyond the numbers that a model computes with (3.4e38)");
  return value;
}

double Column::number(const CsvReader& reader, size_t cell) const {
  if (rule->is_missing(reader.cell(cell))) return missing_number();
  const double value = reader.number(cell);
  MR_CHECK(rule->encoding != Encoding::numeric || fits_f32(value), reader.place(cell), ": '",
           printable(reader.cell(cell)), "' is beyond the numbers that a model computes with (3.4e38); ",
           "if it stands for a missing value, leave the cell empty");
  return value;
}

std::string Packing::data_path(const std::string& file) const {
  namespace fs = std::filesystem;
  const std::string path = data + "/" + file;
  std::error_code error;
  const fs::path inside = fs::canonical(data, error), real = fs::canonical(path, error);
  if (error || schema.outside_files) return path;
  MR_CHECK(std::mismatch(inside.begin(), inside.end(), real.begin(), real.end()).first == inside.end(),
           "the file '", file, "' lies outside the data folder ", data, " (", real.string(),
           "); \"outside_files\": true in the schema allows that");
  return path;
}

Split random_split(const SplitRule& rule, uint64_t hash) {
  const double at = static_cast<double>(hash >> 11) * 0x1p-53;
  return at < rule.test ? Split::test : at < rule.test + rule.validation ? Split::validation : Split::train;
}

void Packing::place(const RowHead& head) {
  const SplitRule& split = schema.split;
  first_day = std::min(first_day, head.day);
  last_day = std::max(last_day, head.day);
  const bool cut_by_time =
      split.by == SplitBy::fraction ||
      ((split.by == SplitBy::column || split.by == SplitBy::files) && split.validation > 0);
  if (cut_by_time && head.split == Split::train) times.push_back(head.time);
}

namespace {

constexpr int64_t kDayMilliseconds = 86'400'000;

// Numbers of days often count from the log's own beginning: 1970 is as good as any year.
int first_year(const TimeColumn& rule) { return rule.first_year ? rule.first_year : kFirstYear; }
int last_year(const TimeColumn& rule) { return rule.last_year ? rule.last_year : kLastYear; }

}  // namespace

bool Packing::lacks(const std::string& expression, const CsvReader& reader) const {
  if (!labels_optional || expression.empty()) return false;
  const std::vector<std::string> asked = expression_columns(expression), &there = reader.columns();
  return std::any_of(asked.begin(), asked.end(), [&](const std::string& name) {
    return std::find(there.begin(), there.end(), name) == there.end();
  });
}

float sample_weight(double of_row, double of_task, const CsvReader& reader, const std::string& task) {
  const double weight = of_row * of_task;
  MR_CHECK(of_row >= 0 && of_task >= 0, reader.place(), ": the weight of '", task, "' is negative");
  MR_CHECK(fits_f32(weight), reader.place(), ": the weight of '", task, "' is too large (", weight,
           "); the largest is 3.4e38");
  MR_CHECK((static_cast<float>(weight) > 0) == (of_row > 0 && of_task > 0), reader.place(),
           ": the weight of '", task, "' is too small (", weight, "); the least above 0 is 1.4e-45");
  return static_cast<float>(weight);
}

TimeReader::TimeReader(const TimeColumn& rule, const CsvReader& reader, double utc_offset_hours,
                       TimeRange& range, std::string_view key)
    : rule_(rule),
      cell_(reader.column(rule.column, key)),
      offset_(counts_from_utc(rule.format) ? std::llround(utc_offset_hours * 3'600'000) : 0),
      earliest_(days_from_civil(first_year(rule), 1, 1) * kDayMilliseconds),
      latest_(days_from_civil(last_year(rule) + 1, 1, 1) * kDayMilliseconds - 1),
      range_(&range) {}

int64_t TimeReader::parse(std::string_view text, const CsvReader& reader) const {
  int64_t milliseconds = 0;
  double value = 0;
  if (!rule_.format.empty()) {
    MR_CHECK(parse_time(text, rule_.format, milliseconds), reader.place(cell_), ": '", printable(text),
             "' is no time of the form ", rule_.format);
  } else {
    MR_CHECK(parse_number(text, value), reader.place(cell_), ": '", printable(text), "' is no time in ",
             rule_.unit);
    if (!to_milliseconds(value, rule_.unit, milliseconds)) refuse(text, value, reader);
  }
  if (milliseconds > latest_) refuse(text, value, reader);
  if (milliseconds < range_->first) {
    range_->first = milliseconds, range_->least = value;
    if (milliseconds < earliest_) range_->first_place = reader.place(cell_), range_->first_text = text;
  }
  if (milliseconds > range_->last) range_->last = milliseconds, range_->most = value;
  return milliseconds;
}

void TimeReader::refuse(std::string_view text, double value, const CsvReader& reader) const {
  const std::string unit = rule_.format.empty() ? plausible_unit(value, value, rule_.unit) : "";
  int64_t milliseconds = 0;
  std::string day = "no day of the years 1 to 9999";
  if (rule_.format.empty() ? to_milliseconds(value, rule_.unit, milliseconds)
                           : parse_time(text, rule_.format, milliseconds))
    day = day_text(day_of(milliseconds));
  MR_FAIL(reader.place(cell_), ": '", printable(text), "'", rule_.format.empty() ? " in " + rule_.unit : "",
          " is ", day, ", outside the years ", first_year(rule_), " to ", last_year(rule_),
          unit.empty() ? "; \"years\" beside the time's column allows others"
                       : "; the time's column needs " + unit);
}

void check_times(const TimeColumn& rule, const TimeRange& range, const std::string& key) {
  if (range.first > range.last || range.first_place.empty()) return;
  const std::string years = concat_message("the years ", first_year(rule), " to ", last_year(rule));
  const bool all_before = !in_years(range.last, first_year(rule), last_year(rule));
  const std::string unit = rule.format.empty() ? plausible_unit(range.least, range.most, rule.unit) : "";
  MR_CHECK(!all_before || unit.empty(), key, ": the times of the column '", rule.column, "' in ", rule.unit,
           " run from ", day_text(day_of(range.first)), " to ", day_text(day_of(range.last)), ", before ",
           years, "; with ", unit, " they lie within them");
  // From another beginning, and only if nothing says otherwise.
  const bool own_beginning = all_before && rule.format.empty() && rule.first_year == 0 && range.first >= 0;
  MR_CHECK(own_beginning, range.first_place, ": '", printable(range.first_text), "' is ",
           day_text(day_of(range.first)), ", outside ", years,
           "; leave rows without a time out by \"where\", or allow other \"years\" beside the ",
           "time's column");
}

int64_t TimeReader::milliseconds(const CsvReader& reader) const { return parse(reader.cell(cell_), reader); }

int32_t TimeReader::day(int64_t milliseconds) const {
  return static_cast<int32_t>(day_of(milliseconds + offset_));
}

std::vector<char> take_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  MR_CHECK(in, "cannot open ", path, ": ", std::strerror(errno));
  std::vector<char> bytes(static_cast<size_t>(in.tellg()));
  in.seekg(0);
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  MR_CHECK(in, "cannot read ", path, ": ", std::strerror(errno));
  in.close();
  std::filesystem::remove(path);
  return bytes;
}

}  // namespace mixrec::packing

// The first reading: tables into memory, the log into bucket files.
#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"
#include "mixrec/data/packing/packing.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace mixrec::packing {

namespace {

template <class T>
void put(std::vector<T>& cells, uint32_t at, T value, T otherwise) {
  if (cells.size() <= at) cells.resize(at + 1, otherwise);
  cells[at] = value;
}

// How messages call a feature that asks for a column.
std::string feature_key(const FeatureRule& rule) { return "the feature '" + rule.spec.name + "'"; }

void read_table(Packing& packing, const JoinedTable& table) {
  Dictionary& entities = table.of_user ? packing.users : packing.items;
  std::vector<int64_t> line_of;
  JoinedIds& ids = packing.joined.emplace_back();
  ids.key = "tables." + table.name, ids.file = table.files.front();
  (table.of_user ? ids.has_users : ids.has_items) = true;
  for (const auto& file : table.files) {
    CsvReader reader(packing.data_path(file), table.format);
    const size_t key = reader.column(table.key, "tables." + table.name + ".key");
    std::vector<std::pair<Column*, size_t>> cells;
    for (auto& column : packing.columns)
      if (column.rule->joined == table.name && !column.rule->rate && !column.rule->matches)
        cells.emplace_back(&column, reader.column(column.rule->column, feature_key(*column.rule)));
    Ticks ticks(packing, file);
    while (reader.next()) {
      ticks(reader);
      const uint32_t entity = entities.add(key_text(reader, key, "key"));
      if (line_of.size() <= entity) line_of.resize(entity + 1);
      MR_CHECK(line_of[entity] == 0, reader.place(key), ": the key '", reader.cell(key),
               "' is already on line ", line_of[entity]);
      line_of[entity] = reader.line();
      JoinedIds::add(table.of_user ? ids.users : ids.items, entity);
      for (auto& [column, cell] : cells) {
        if (column->is_number()) {
          put(column->side_numbers, entity, column->number(reader, cell), column->missing_number());
        } else {
          put(column->side, entity, column->id(reader, cell), column->missing_id());
        }
      }
    }
  }
}

// Reads one row of the log into a record.
class RowReader {
 public:
  RowReader(Packing& packing, const std::string& file, size_t file_index)
      : packing_(packing),
        schema_(packing.schema),
        reader_(packing.data_path(file), packing.schema.format),
        ticks_(packing, file),
        user_(reader_.column(schema_.user, "log.user")),
        item_(reader_.column(schema_.item, "log.item")) {
    if (schema_.time)
      time_.emplace(*schema_.time, reader_, schema_.utc_offset_hours, packing.time_range, "log.time");
    if (schema_.date)
      date_.emplace(*schema_.date, reader_, schema_.utc_offset_hours, packing.date_range, "log.date");
    if (!schema_.request.empty()) request_ = reader_.column(schema_.request, "log.request");
    if (!schema_.where.empty()) where_.emplace(schema_.where, reader_, "log.where");
    const bool weighted = !packing.lacks(schema_.weight, reader_);
    if (!schema_.weight.empty() && weighted) weight_.emplace(schema_.weight, reader_, "log.weight");
    for (const auto& name : schema_.duplicates) duplicate_.push_back(reader_.column(name, "log.duplicates"));
    for (auto& column : packing.columns)
      if (column.in_rows())
        cells_.emplace_back(&column, reader_.column(column.rule->column, feature_key(*column.rule)));
    for (const auto& task : schema_.tasks) {
      tasks_.emplace_back();
      if (weighted && !packing.lacks(task.label, reader_) && !packing.lacks(task.mask, reader_) &&
          !packing.lacks(task.weight, reader_))
        tasks_.back().emplace(task, reader_);
    }
    for (size_t h = 0; h < schema_.histories.size(); ++h)
      for (const auto& source : schema_.histories[h].sources)
        if (source.log && !packing.lacks(source.where, reader_))
          sources_.emplace_back(packing, h, source, reader_);
    if (schema_.split.by == SplitBy::column) split_ = reader_.column(schema_.split.column, "split.column");
    if (schema_.split.by == SplitBy::files) file_split_ = named_split(schema_.files[file_index]);
  }

  // Reads the next row into `record`; false at the end.  Sets `keep` to whether the row belongs to the data
  // set.
  bool next(std::vector<char>& record, bool& keep) {
    if (!reader_.next()) return false;
    ticks_(reader_);
    keep = !where_ || (*where_)(reader_) != 0;
    if (keep) fill(record);
    return true;
  }

 private:
  struct Task {
    Task(const TaskRule& rule, const CsvReader& reader)
        : name(rule.spec.name), label(rule.label, reader, "tasks." + name) {
      if (!rule.mask.empty()) mask.emplace(rule.mask, reader, "tasks." + name + ".where");
      if (!rule.weight.empty()) weight.emplace(rule.weight, reader, "tasks." + name + ".weight");
    }
    std::string name;
    Expression label;
    std::optional<Expression> mask, weight;
  };

  struct Source {
    Source(const Packing& packing, size_t history, const EventSource& source, const CsvReader& reader)
        : history(history), signals(&source.signals) {
      const std::string from = "histories." + packing.schema.histories[history].name + ".from";
      if (!source.where.empty()) where.emplace(source.where, reader, from + ".where");
      for (const size_t place : signal_places(packing.schema.histories[history], source))
        places.push_back(packing.log_signal_at[history] + place);
      for (const auto& signal : source.signals) {
        rules.emplace_back();
        if (!packing.lacks(signal.expression, reader))
          rules.back().emplace(signal.expression, reader, from + ".signals." + signal.name);
      }
    }
    size_t history;
    const std::vector<SignalRule>* signals;
    std::optional<Expression> where;
    std::vector<size_t> places;
    std::vector<std::optional<Expression>> rules;
  };

  void fill(std::vector<char>& record) {
    const RowLayout& layout = packing_.layout;
    record.assign(layout.bytes(), 0);
    RowHead head{};
    head.row = static_cast<uint64_t>(packing_.rows_read);
    head.user = packing_.users.add(key_text(reader_, user_, "user"));
    head.item = packing_.items.add(key_text(reader_, item_, "item"));
    head.time = time_ ? time_->milliseconds(reader_) : static_cast<int64_t>(head.row);
    if (date_) {
      head.day = date_->day(date_->milliseconds(reader_));
    } else if (time_) {
      head.day = time_->day(head.time);
    }
    if (request_) head.request = hash_text(reader_.cell(*request_));
    for (const size_t cell : duplicate_) head.duplicate = hash_text(reader_.cell(cell), head.duplicate + 1);
    if (schema_.split.by == SplitBy::random) {
      uint64_t hash = hash_text(reader_.cell(user_), schema_.split.seed);
      for (size_t c = 0; !schema_.split.of_users && c < reader_.cells().size(); ++c)
        hash = hash_text(reader_.cell(c), hash + 1);
      file_split_ = random_split(schema_.split, hash);
    }
    head.split = split_ ? named_split(std::string(reader_.cell(*split_))) : file_split_;

    auto* numbers = reinterpret_cast<double*>(record.data() + layout.number_at());
    auto* ids = reinterpret_cast<uint32_t*>(record.data() + layout.id_at());
    uint32_t from_log = 0;
    for (auto& [column, cell] : cells_) {
      if (column->from_log)
        head.given |= uint32_t{!column->rule->is_missing(reader_.cell(cell))} << from_log++;
      if (column->is_number()) {
        numbers[column->slot] = column->number(reader_, cell);
      } else {
        ids[column->slot] = column->rule->part.empty() ? column->id(reader_, cell) : part(*column, head);
      }
    }
    labels(record);
    for (const auto& source : sources_) {
      if (source.where && source.where->value_or_missing(reader_).value_or(0) == 0) continue;
      head.events |= 1u << source.history;
      for (size_t s = 0; s < source.rules.size(); ++s)
        if (const auto value = source.rules[s] ? source.rules[s]->value_or_missing(reader_) : std::nullopt)
          record[layout.signal_at() + source.places[s]] =
              static_cast<char>(signal_row(*value, reader_, (*source.signals)[s]));
    }
    std::memcpy(record.data(), &head, sizeof head);
  }

  void labels(std::vector<char>& record) {
    auto* label = reinterpret_cast<float*>(record.data() + packing_.layout.label_at());
    auto* weight = reinterpret_cast<float*>(record.data() + packing_.layout.weight_at());
    for (size_t t = 0; t < tasks_.size(); ++t) {
      if (!tasks_[t]) continue;
      const Task& task = *tasks_[t];
      // An empty cell in any of them is no label: the row stays, its weight is 0.
      if (task.mask && task.mask->value_or_missing(reader_).value_or(0) == 0) continue;
      const std::optional<double> value = task.label.value_or_missing(reader_);
      const std::optional<double> of_row = weight_ ? weight_->value_or_missing(reader_) : 1;
      const std::optional<double> of_task = task.weight ? task.weight->value_or_missing(reader_) : 1;
      if (!value || !of_row || !of_task) continue;
      MR_CHECK(*value >= 0 && *value <= 1, reader_.place(), ": the label '", task.name, "' is ", *value,
               "; it must lie between 0 and 1");
      label[t] = static_cast<float>(*value);
      weight[t] = sample_weight(*of_row, *of_task, reader_, task.name);
    }
  }

  // Row 1 + hour of the day or weekday (0 = Monday) of the row's time.
  uint32_t part(const Column& column, const RowHead& head) const {
    MR_CHECK(schema_.time && column.rule->column == schema_.time->column, "feature '", column.rule->spec.name,
             "': only log.time has an hour and a weekday");
    if (column.rule->part == "weekday") return weekday_row(time_->day(head.time));
    return hour_row(head.time + time_->offset());
  }

  Split named_split(const std::string& value) const {
    const SplitRule& rule = schema_.split;
    const auto among = [&](const auto& values) {
      return std::find(values.begin(), values.end(), value) != values.end();
    };
    if (among(rule.train_values)) return Split::train;
    if (among(rule.validation_values)) return Split::validation;
    MR_CHECK(among(rule.test_values),
             rule.by == SplitBy::files ? "the log file '" : reader_.place(*split_) + ": '", printable(value),
             "' belongs to none of split.train, split.validation and split.test");
    return Split::test;
  }

  Packing& packing_;
  const Schema& schema_;
  CsvReader reader_;
  Ticks ticks_;
  size_t user_, item_;
  std::optional<TimeReader> time_, date_;
  std::optional<size_t> request_, split_;
  std::optional<Expression> where_, weight_;
  std::vector<size_t> duplicate_;
  std::vector<std::pair<Column*, size_t>> cells_;
  std::vector<std::optional<Task>> tasks_;
  std::vector<Source> sources_;
  Split file_split_ = Split::train;
};

}  // namespace

void read_tables(Packing& packing) {
  for (const auto& table : packing.schema.tables) read_table(packing, table);
}

void read_log(Packing& packing) {
  std::vector<FileWriter> files;
  for (uint32_t b = 0; b < packing.buckets; ++b) files.emplace_back(packing.row_bucket(b));
  std::vector<char> record;
  for (size_t f = 0; f < packing.schema.files.size(); ++f) {
    RowReader reader(packing, packing.schema.files[f], f);
    bool keep = false;
    for (; reader.next(record, keep); ++packing.rows_read) {
      if (!keep) {
        ++packing.manifest.rows_filtered;
        continue;
      }
      RowHead head;
      std::memcpy(&head, record.data(), sizeof head);
      // Which rows are duplicates is known when all are read.
      if (packing.schema.duplicates.empty()) packing.place(head);
      files[head.user % packing.buckets].write(record.data(), record.size());
    }
  }
  for (auto& file : files) file.close(false);
  if (packing.schema.time) check_times(*packing.schema.time, packing.time_range, "log.time");
  if (packing.schema.date) check_times(*packing.schema.date, packing.date_range, "log.date");
  MR_CHECK(packing.rows_read > packing.manifest.rows_filtered, packing.schema.files.front(),
           packing.rows_read > 0          ? ": log.where leaves no row"
           : packing.schema.format.header ? ": there is no row under the header"
                                          : " is empty: it has no row (the schema names its columns)");
}

}  // namespace mixrec::packing

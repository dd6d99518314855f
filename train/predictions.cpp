#include "mixrec/train/predictions.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/csv_reader.h"
#include "mixrec/data/packing/packed_files.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <stdlib.h>
#include <vector>

namespace mixrec {

namespace {

namespace fs = std::filesystem;

// Buckets of rows are files that are open together.
constexpr int64_t kMostBuckets = 256;

// A folder that is removed at the end, whatever happens.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::string& beside) {
    std::string pattern = beside + ".rows-XXXXXX";
    MR_CHECK(::mkdtemp(pattern.data()), "cannot make a folder beside ", beside, " for rows in between");
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::string operator/(int64_t number) const { return path_ + "/" + std::to_string(number); }

 private:
  std::string path_;
};

// Takes probabilities in any order of rows and gives them back in the log's: rows are spilled into files by their
// number, and one file at a time is in memory.
class InLogOrder {
 public:
  InLogOrder(const std::string& beside, int64_t rows, size_t tasks, int64_t rows_at_once)
      : scratch_(beside), tasks_(tasks), width_(std::max(rows_at_once, rows / kMostBuckets + 1)) {
    for (int64_t bucket = 0; bucket * width_ < rows; ++bucket)
      files_.emplace_back(scratch_ / bucket, size_t{1} << 14);
  }

  void add(int64_t row, const float* probabilities) {
    FileWriter& file = files_.at(static_cast<size_t>(row / width_));
    file.append(row);
    file.write(probabilities, tasks_ * sizeof(float));
  }

  void close() {
    for (FileWriter& file : files_) file.close(false);
  }

  // Of the row, `tasks` numbers; nullptr when it was not added.  Rows are asked for in rising order.
  const float* find(int64_t row) {
    if (row / width_ != loaded_) load(row / width_);
    const float* found = values_.data() + static_cast<size_t>(row % width_) * tasks_;
    return std::isnan(*found) ? nullptr : found;
  }

 private:
  void load(int64_t bucket) {
    loaded_ = bucket;
    values_.assign(static_cast<size_t>(width_) * tasks_, std::numeric_limits<float>::quiet_NaN());
    if (static_cast<size_t>(bucket) >= files_.size()) return;
    const std::string bytes = read_text_file(scratch_ / bucket);
    const size_t record = sizeof(int64_t) + tasks_ * sizeof(float);
    for (size_t at = 0; at + record <= bytes.size(); at += record) {
      int64_t row = 0;
      std::memcpy(&row, bytes.data() + at, sizeof row);
      std::memcpy(values_.data() + static_cast<size_t>(row % width_) * tasks_, bytes.data() + at + sizeof row,
                  tasks_ * sizeof(float));
    }
    fs::remove(scratch_ / bucket);
  }

  ScratchFolder scratch_;
  const size_t tasks_;
  const int64_t width_;
  std::vector<FileWriter> files_;
  std::vector<float> values_;
  int64_t loaded_ = -1;
};

std::string heading(const Schema& schema, const std::vector<TaskSpec>& tasks) {
  std::string text = "row,user,item";
  if (schema.time || schema.date) text += ",time";
  if (!schema.request.empty()) text += ",request";
  for (const TaskSpec& task : tasks) text += "," + csv_field(task.name);
  return text + "\n";
}

// Columns of one file of the log that a line repeats.
std::vector<size_t> repeated_columns(const Schema& schema, const CsvReader& reader) {
  std::vector<size_t> columns{reader.column(schema.user), reader.column(schema.item)};
  if (schema.time || schema.date)
    columns.push_back(reader.column(schema.time ? schema.time->column : schema.date->column));
  if (!schema.request.empty()) columns.push_back(reader.column(schema.request));
  return columns;
}

void check_unchanged(const Dataset& data, const std::string& folder, int64_t rows_read) {
  const Schema& schema = data.schema();
  const auto changed = differences(data.fingerprint(), content_of(schema, folder));
  const std::string file =
      changed.empty() ? schema.files.front() : changed.front().substr(0, changed.front().find(": "));
  MR_CHECK(changed.empty() && rows_read == data.manifest().rows_read, file,
           " has changed since the data set was prepared: its rows no longer belong to these predictions; "
           "ask again");
}

}  // namespace

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) quoted.append(c == '"' ? 2 : 1, c);
  return quoted + "\"";
}

int64_t write_predictions(RankingModel& model, const Dataset& data, const std::string& folder, Split split,
                          const std::string& out, const PredictionOptions& options) {
  const Schema& schema = data.schema();
  const size_t tasks = data.spec().tasks.size();
  AtomicFile file(out);
  InLogOrder predicted(out, data.manifest().rows_read, tasks, options.rows_at_once);
  std::vector<float> probabilities(tasks);
  for_each_prediction(model, data, split, options.evaluate,
                      [&](const RequestBatch& batch, std::span<const float> logits) {
                        for (size_t c = 0; c < batch.row.size(); ++c) {
                          for (size_t t = 0; t < tasks; ++t)
                            probabilities[t] = probability(logits[c * tasks + t]);
                          predicted.add(batch.row[c], probabilities.data());
                        }
                      });
  predicted.close();
  std::string text = heading(schema, data.spec().tasks);
  int64_t row = 0, written = 0;
  for (const std::string& name : schema.files) {
    CsvReader reader(folder + "/" + name, schema.format);
    const std::vector<size_t> columns = repeated_columns(schema, reader);
    for (; reader.next(); ++row) {
      const float* found = predicted.find(row);
      if (!found) continue;
      text += csv_field(concat_message(name, ":", reader.line()));
      for (const size_t column : columns) text += "," + csv_field(reader.cell(column));
      for (size_t t = 0; t < tasks; ++t) {
        char digits[32];
        text += ',';
        text.append(digits, std::to_chars(digits, digits + sizeof digits, found[t]).ptr);
      }
      text += "\n";
      ++written;
      if (text.size() > (size_t{1} << 16)) file.write(text), text.clear();
    }
  }
  file.write(text);
  check_unchanged(data, folder, row);
  MR_CHECK(written == data.stats(split).rows, out, ": ", written, " lines for ", data.stats(split).rows,
           " rows");
  file.commit();
  return written;
}

}  // namespace mixrec

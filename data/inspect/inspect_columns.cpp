// What inspect learns from the log's own cells: repeated rows, constant columns, columns that look like
// outcomes.
#include "mixrec/core/metrics.h"
#include "mixrec/data/dictionary.h"
#include "mixrec/data/expression.h"
#include "mixrec/data/inspect/inspect.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <unordered_map>

namespace mixrec::detail {

namespace {

constexpr size_t kSample = 200'000;   // rows that a column is judged by
constexpr size_t kFewValues = 1'000;  // columns of no more values are scored by each value's label rate
constexpr double kNearlyAll = 0.9;
constexpr size_t kFewRows = 30;
constexpr double kPriorRows = 20;  // smoothing of that rate

struct Sample {
  std::vector<std::vector<uint64_t>> hashes;  // by column: of the cell
  std::vector<std::vector<double>> numbers;   // by column; empty as soon as a cell is no number
  std::vector<std::vector<float>> labels;     // by task; below 0: masked
};

// AUC; 0.5 when a class is missing.
double rank_auc(const std::vector<double>& scores, const std::vector<float>& labels) {
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < scores.size(); ++i)
    if (labels[i] >= 0) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return scores[a] < scores[b]; });
  RankSum ranks;
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    double tied_positives = 0, tied_negatives = 0;
    for (; end < order.size() && scores[order[end]] == scores[order[begin]]; ++end)
      (labels[order[end]] > 0.5f ? tied_positives : tied_negatives) += 1;
    ranks.add(tied_positives, tied_negatives);
  }
  const double auc = ranks.auc();
  return std::isnan(auc) ? 0.5 : auc;
}

// Which half of the rows a row is in.  Hashed: shown and clicked rows may alternate.
size_t half_of(size_t row) { return (row * 0x9E3779B97F4A7C15u) >> 63; }

// Scores each row by the label rate of its cell's value among the other half of the rows.
std::vector<double> value_rates(const std::vector<uint64_t>& cells, const std::vector<float>& labels) {
  struct Count {
    double all = 0, yes = 0;
  };
  std::unordered_map<uint64_t, Count> halves[2];
  Count whole;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (labels[i] < 0) continue;
    Count& count = halves[half_of(i)][cells[i]];
    count.all += 1, count.yes += labels[i];
    whole.all += 1, whole.yes += labels[i];
  }
  const double prior = whole.all > 0 ? whole.yes / whole.all : 0;
  std::vector<double> scores(cells.size());
  for (size_t i = 0; i < cells.size(); ++i) {
    const auto found = halves[1 - half_of(i)].find(cells[i]);
    const Count count = found == halves[1 - half_of(i)].end() ? Count{} : found->second;
    scores[i] = (count.yes + kPriorRows * prior) / (count.all + kPriorRows);
  }
  return scores;
}

void judge(const Sample& sample, size_t c, const std::vector<std::string>& tasks, InspectedColumn& column) {
  const std::set<uint64_t> distinct(sample.hashes[c].begin(), sample.hashes[c].end());
  column.distinct = static_cast<int64_t>(distinct.size());
  if (distinct.size() < 2) return;  // a constant ranks nothing
  for (size_t t = 0; t < tasks.size(); ++t) {
    std::vector<double> scores;
    // The number of an id or a code says nothing by its size.
    if (!sample.numbers[c].empty() && !column.coded) {
      const double auc = rank_auc(sample.numbers[c], sample.labels[t]);
      scores.push_back(std::max(auc, 1 - auc));
    }
    // Below 0.5 the rates of one half do not hold for the other: noise, whose opposite is no outcome.
    if (distinct.size() <= kFewValues)
      scores.push_back(rank_auc(value_rates(sample.hashes[c], sample.labels[t]), sample.labels[t]));
    for (const double score : scores)
      if (score > column.auc) column.auc = score, column.task = tasks[t];
  }
}

// Columns that are nearly always the same: does a label follow the rows where they are not?
void judge_rare(const Sample& sample, size_t c, const std::vector<std::string>& tasks,
                InspectedColumn& column) {
  const auto& cells = sample.hashes[c];
  std::unordered_map<uint64_t, size_t> counts;
  for (const uint64_t cell : cells) ++counts[cell];
  const auto common = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
  if (common == counts.end() ||
      static_cast<double>(common->second) < kNearlyAll * static_cast<double>(cells.size()) ||
      cells.size() - common->second < kFewRows)
    return;
  for (size_t t = 0; t < tasks.size(); ++t) {
    double yes[2] = {0.5, 0.5}, no[2] = {0.5, 0.5};
    for (size_t i = 0; i < cells.size(); ++i)
      if (sample.labels[t][i] >= 0) (sample.labels[t][i] > 0.5f ? yes : no)[cells[i] != common->first] += 1;
    const double ratio = (yes[1] / no[1]) / (yes[0] / no[0]);
    if (ratio > column.odds_ratio) column.odds_ratio = ratio, column.odds_task = tasks[t];
  }
}

struct Labels {
  Labels(const Schema& schema, const CsvReader& reader) {
    for (const auto& task : schema.tasks) {
      rules.emplace_back(task.label, reader);
      masks.emplace_back();
      if (!task.mask.empty()) masks.back().emplace(task.mask, reader);
    }
  }
  float operator()(size_t t, const CsvReader& reader) const {
    return masks[t] && (*masks[t])(reader) == 0
               ? -1
               : static_cast<float>(rules[t].value_or_missing(reader).value_or(-1));
  }
  std::vector<Expression> rules;
  std::vector<std::optional<Expression>> masks;
};

int64_t repeats(std::vector<uint64_t>& hashes) {
  std::sort(hashes.begin(), hashes.end());
  return hashes.end() - std::unique(hashes.begin(), hashes.end());
}

std::set<std::string> columns_of_labels(const Schema& schema) {
  std::set<std::string> names;
  for (const auto& task : schema.tasks)
    for (const auto& rule : {task.label, task.mask, task.weight})
      if (!rule.empty())
        for (auto& name : expression_columns(rule)) names.insert(std::move(name));
  return names;
}

// A column that nobody reads may hold what is not UTF-8: it is not asked for.
size_t place_of(const CsvReader& reader, const std::string& name) {
  const auto& columns = reader.columns();
  const auto found = std::find(columns.begin(), columns.end(), name);
  return found == columns.end() ? reader.column(name) : static_cast<size_t>(found - columns.begin());
}

bool is_key(const Schema& schema, const std::string& name) {
  return name == schema.user || name == schema.item || name == schema.request ||
         (schema.time && name == schema.time->column) || (schema.date && name == schema.date->column);
}

}  // namespace

void inspect_columns(const Schema& schema, const std::string& folder, const std::vector<bool>& kept,
                     InspectReport& report) {
  const int64_t stride = std::max<int64_t>(1, report.manifest.rows / static_cast<int64_t>(kSample));
  const size_t tasks = schema.tasks.size();
  Sample sample;
  sample.labels.resize(tasks);
  std::vector<uint64_t> first, whole_rows, events;
  std::vector<int64_t> missing;
  std::vector<bool> not_a_number;
  int64_t row = 0;  // of the data set
  size_t line = 0;
  for (const auto& file : schema.files) {
    CsvReader reader(folder + "/" + file, schema.format);
    const Labels labels(schema, reader);
    const size_t width = reader.columns().size();
    if (report.columns.empty()) {
      for (const auto& name : reader.columns()) report.columns.emplace_back().name = name;
      for (auto& column : report.columns) column.constant = true;
      sample.hashes.resize(width), sample.numbers.resize(width);
      first.resize(width), missing.resize(width), not_a_number.resize(width);
    }
    // Files of one log may order their columns differently.
    std::vector<size_t> places;
    for (const auto& column : report.columns) places.push_back(place_of(reader, column.name));
    std::vector<size_t> key{reader.column(schema.user), reader.column(schema.item)};
    if (schema.time) key.push_back(reader.column(schema.time->column));
    for (; reader.next(); ++line) {
      // Rows that log.where or log.duplicates drop are not looked at.
      if (line >= kept.size() || !kept[line]) continue;
      uint64_t whole = 0, event = 0;
      for (const size_t cell : key) event = hash_text(reader.cell(cell), event + 1);
      const bool sampled = row % stride == 0;
      for (size_t c = 0; c < places.size(); ++c) {
        const std::string_view cell = reader.cell(places[c]);
        const uint64_t hash = hash_text(cell);
        whole = hash_text(cell, whole + 1);
        if (row == 0) first[c] = hash;
        report.columns[c].constant = report.columns[c].constant && hash == first[c];
        missing[c] += cell.empty();
        if (!sampled) continue;
        sample.hashes[c].push_back(hash);
        double number = 0;
        if (!not_a_number[c] && !parse_number(cell, number))
          not_a_number[c] = true, sample.numbers[c].clear();
        if (!not_a_number[c]) sample.numbers[c].push_back(number);
      }
      whole_rows.push_back(whole), events.push_back(event);
      for (size_t t = 0; sampled && t < tasks; ++t) sample.labels[t].push_back(labels(t, reader));
      ++row;
    }
  }
  report.repeated_rows = repeats(whole_rows);
  report.repeated_events = schema.time ? repeats(events) : 0;

  const auto of_labels = columns_of_labels(schema);
  std::vector<std::string> names;
  for (const auto& task : schema.tasks) names.push_back(task.spec.name);
  for (size_t c = 0; c < report.columns.size(); ++c) {
    InspectedColumn& column = report.columns[c];
    column.missing = static_cast<double>(missing[c]) / static_cast<double>(std::max<int64_t>(row, 1));
    column.label = of_labels.count(column.name) > 0;
    for (const auto& feature : schema.features)
      if (feature.joined.empty() && feature.column == column.name) {
        column.input = true;
        column.coded = column.coded || (feature.encoding <= Encoding::hash && feature.part.empty());
      }
    column.key = is_key(schema, column.name);
    judge(sample, c, names, column);
    judge_rare(sample, c, names, column);
  }
}

}  // namespace mixrec::detail

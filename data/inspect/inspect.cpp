#include "mixrec/data/inspect/inspect.h"

#include "mixrec/core/error.h"
#include "mixrec/data/batch_builder.h"
#include "mixrec/data/loader.h"
#include "mixrec/data/packing/packed_data.h"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace mixrec {

namespace {

// A column of the row itself that ranks a label this well is rarely known before the label is.
constexpr double kOutcomeAuc = 0.85;
// Odds of the label where a column that is nearly always the same is not.
constexpr double kOutcomeOdds = 4;
constexpr double kManyUnknown = 0.5;

std::vector<int64_t> quantiles(std::vector<int64_t>& lengths) {
  std::sort(lengths.begin(), lengths.end());
  std::vector<int64_t> at;
  for (const double share : {0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0})
    at.push_back(
        lengths.empty() ? 0 : lengths[static_cast<size_t>(share * static_cast<double>(lengths.size() - 1))]);
  return at;
}

void inspect_histories(const PackedData& data, InspectReport& report) {
  for (size_t h = 0; h < data.histories.size(); ++h) {
    InspectedHistory history;
    history.name = data.spec.histories[h].name;
    history.events = data.manifest.event_counts[h];
    for (const Split split : {Split::train, Split::test}) {
      const bool test = split == Split::test;
      std::vector<int64_t> lengths;
      for (uint32_t r = 0; r < data.request_split.size(); ++r)
        if (data.request_split[r] == static_cast<uint8_t>(split))
          lengths.push_back(
              history_events(data, h, r, test ? TrainedOn::whole_period : TrainedOn::training_part));
      const auto empty = static_cast<double>(std::count(lengths.begin(), lengths.end(), 0));
      (test ? history.test_empty : history.train_empty) =
          lengths.empty() ? 0 : empty / static_cast<double>(lengths.size());
      (test ? history.test_lengths : history.train_lengths) = quantiles(lengths);
    }
    report.histories.push_back(std::move(history));
  }
}

// Shares of unknown cells, as batches show them to a model.
void inspect_features(const Dataset& data, InspectReport& report) {
  constexpr const char* kGroups[] = {"user", "item", "context", "event"};
  constexpr const char* kKinds[] = {"categorical", "list", "numeric"};
  const auto& features = data.spec().features;
  for (const auto& spec : features)
    report.features.push_back({spec.name, kGroups[static_cast<int>(spec.group)],
                               kKinds[static_cast<int>(spec.kind)], spec.rows, 0, 0});
  for (const Split split : {Split::train, Split::test}) {
    std::vector<double> cells(features.size(), 0), unknown(features.size(), 0);
    Loader loader(data, split,
                  {.batch_size = 4096, .shuffle = Shuffle::none, .trained_on = TrainedOn::whole_period});
    while (const auto batch = loader.next())
      for (size_t f = 0; f < features.size(); ++f) {
        if (!batch->features[f].ids.defined()) continue;
        const Tensor& ids = batch->features[f].ids;
        cells[f] += static_cast<double>(ids.numel());
        unknown[f] += static_cast<double>(
            std::count(ids.data<int64_t>(), ids.data<int64_t>() + ids.numel(), kUnknownRow));
      }
    for (size_t f = 0; f < features.size(); ++f)
      (split == Split::train ? report.features[f].unknown_train : report.features[f].unknown_test) =
          cells[f] > 0 ? unknown[f] / cells[f] : 0;
  }
}

void inspect_users(const PackedData& data, InspectReport& report) {
  for (size_t t = 0; t < data.spec.tasks.size(); ++t) {
    std::vector<uint8_t> seen(static_cast<size_t>(data.manifest.users),
                              0);  // bit 0: negative, bit 1: positive
    for (uint32_t r = 0; r < data.request_split.size(); ++r) {
      if (data.request_split[r] != static_cast<uint8_t>(Split::test)) continue;
      for (uint64_t row = data.request_rows[r]; row < data.request_rows[r + 1]; ++row)
        if (data.weights[t][row] > 0) seen[data.request_user[r]] |= data.labels[t][row] > 0.5f ? 2 : 1;
    }
    const auto users = static_cast<int64_t>(seen.size()) - std::count(seen.begin(), seen.end(), 0);
    report.users.push_back({data.spec.tasks[t].name, users, std::count(seen.begin(), seen.end(), 3)});
  }
}

// What makes a column look like an outcome of its row, or "".
std::string outcome_because(const InspectedColumn& column) {
  if (column.label || column.key) return "";
  std::ostringstream why;
  why.precision(3);
  if (column.auc >= kOutcomeAuc) {
    why << "alone it ranks " << column.task << " with an AUC of " << column.auc;
  } else if (column.odds_ratio >= kOutcomeOdds) {
    why << "where it is set, the odds of " << column.odds_task << " are " << column.odds_ratio
        << " times as high";
  } else if (column.name.starts_with("is_") && column.distinct == 2) {
    why << "its name says feedback";
  }
  return why.str();
}

void warn_of_outcomes(InspectReport& report) {
  std::string others;
  for (const auto& column : report.columns) {
    const std::string why = outcome_because(column);
    if (why.empty()) continue;
    if (column.input)
      report.warnings.push_back(concat_message("'", column.name,
                                               "' is an INPUT and looks like an outcome of its row: ", why,
                                               "; remove it from the features unless it is known before"));
    else
      others += concat_message(others.empty() ? "" : ", ", column.name, " (", why, ")");
  }
  if (!others.empty())
    report.warnings.push_back("columns that look like outcomes of their row, rightly no inputs: " + others);
}

std::string percent(double share) { return concat_message(std::lround(100 * share), " %"); }

void warn(const Dataset& data, InspectReport& report) {
  auto& out = report.warnings;
  warn_of_outcomes(report);
  for (const auto& column : report.columns)
    if (column.label && column.input)
      out.push_back("'" + column.name + "' is read by a label and is an INPUT; remove it from the features");
  const auto& manifest = report.manifest;
  out.insert(out.end(), manifest.warnings.begin(), manifest.warnings.end());
  if (report.repeated_events > 0)
    out.push_back(
        std::to_string(report.repeated_events) + " rows repeat an earlier (user, item, time)" +
        (data.schema().duplicates.empty() ? "; name these columns in log.duplicates to drop them" : ""));
  for (size_t t = 0; t < report.tasks.size(); ++t)
    for (const Split split : {Split::train, Split::test}) {
      const double rate = data.stats(split).tasks[t].rate();
      if (rate == 0 || rate == 1)
        out.push_back("the label '" + report.tasks[t] + "' has one class in the " + split_name(split) +
                      " part");
    }
  for (const auto& feature : report.features)
    if (feature.rows == 2 && feature.kind != "numeric")
      out.push_back("the feature '" + feature.name + "' has a single value");
  for (const auto& feature : report.features)
    if (feature.unknown_test > kManyUnknown)
      out.push_back("'" + feature.name + "' is unknown in " + percent(feature.unknown_test) +
                    " of the test cells");
  for (const auto& history : report.histories)
    if (history.test_empty > kManyUnknown)
      out.push_back("the history '" + history.name + "' is empty in " + percent(history.test_empty) +
                    " of the test requests");
}

}  // namespace

InspectReport inspect(const Dataset& data, const std::string& folder) {
  InspectReport report;
  report.name = data.schema().name;
  report.manifest = data.manifest();
  report.duplicate_key = data.schema().duplicates;
  for (const auto& task : data.spec().tasks) report.tasks.push_back(task.name);
  for (int s = 0; s < 3; ++s) report.manifest.splits[s] = data.stats(static_cast<Split>(s));
  const PackedData& packed = data.packed();
  std::vector<bool> kept(static_cast<size_t>(report.manifest.rows_read)),
      users(static_cast<size_t>(report.manifest.users)), items(static_cast<size_t>(report.manifest.items));
  for (size_t r = 0; r < packed.row_number.size(); ++r)
    kept.at(static_cast<size_t>(packed.row_number[r])) = true;
  for (size_t r = 0; r < packed.row_item.size(); ++r) items.at(packed.row_item[r]) = true;
  for (size_t r = 0; r < packed.request_user.size(); ++r) users.at(packed.request_user[r]) = true;
  report.log_users = std::count(users.begin(), users.end(), true);
  report.log_items = std::count(items.begin(), items.end(), true);
  detail::inspect_columns(data.schema(), folder, kept, report);
  inspect_features(data, report);
  inspect_histories(data.packed(), report);
  inspect_users(data.packed(), report);
  warn(data, report);
  return report;
}

}  // namespace mixrec

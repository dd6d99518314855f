// How a report of inspect reads: as text for people, as JSON for programs.
#include "mixrec/core/error.h"
#include "mixrec/data/inspect/inspect.h"

#include <algorithm>
#include <cstdio>
#include <iomanip>
#include <sstream>

namespace mixrec {

namespace {

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%", 100 * share);
  return text;
}

std::string with_commas(int64_t value) {
  std::string text = std::to_string(value);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<size_t>(at), 1, ',');
  return text;
}

// A cell of a table: left-aligned, two spaces between columns.
struct Cell {
  std::string text;
  int width;
};
std::ostream& operator<<(std::ostream& out, const Cell& cell) {
  return out << std::left << std::setw(cell.width) << cell.text << "  ";
}

template <class Value, class One>
std::string joined(const std::vector<Value>& values, const char* between, const One& one) {
  std::ostringstream out;
  out.precision(6);
  bool first = true;
  for (const auto& value : values) {
    if (!first) out << between;
    first = false;
    one(out, value);
  }
  return out.str();
}

constexpr auto kPlain = [](std::ostream& out, const auto& value) { out << value; };

std::string quoted(const std::string& text) {
  std::ostringstream out;
  out << '"';
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      out << code;
    } else {
      if (c == '"' || c == '\\') out << '\\';
      out << c;
    }
  }
  out << '"';
  return out.str();
}

void write_parts(std::ostream& out, const InspectReport& report) {
  out << Cell{"part", 10} << Cell{"rows", 12} << Cell{"requests", 12} << Cell{"days", 24};
  for (const auto& task : report.tasks) out << Cell{task, 10};
  for (int s = 0; s < 3; ++s) {
    const SplitStats& part = report.manifest.splits[s];
    std::ostringstream days;
    if (!part.first_day.empty()) days << part.first_day << " .. " << part.last_day;
    out << "\n"
        << Cell{split_name(static_cast<Split>(s)), 10} << Cell{with_commas(part.rows), 12}
        << Cell{with_commas(part.requests), 12} << Cell{days.str(), 24};
    for (const auto& task : part.tasks) out << Cell{percent(task.rate()), 10};
  }
  out << "\n\n";
}

void write_features(std::ostream& out, const InspectReport& report) {
  out << Cell{"feature", 24} << Cell{"group", 8} << Cell{"kind", 12} << Cell{"table rows", 11}
      << Cell{"unknown: train", 14} << "test\n";
  for (const auto& feature : report.features) {
    out << Cell{feature.name, 24} << Cell{feature.group, 8} << feature.kind;
    if (feature.rows > 0)
      out << std::string(14 - std::min<size_t>(feature.kind.size(), 13), ' ')
          << Cell{with_commas(feature.rows), 11} << Cell{percent(feature.unknown_train), 14}
          << percent(feature.unknown_test);
    out << "\n";
  }
}

}  // namespace

std::string InspectReport::text() const {
  std::ostringstream out;
  out << (name.empty() ? "data" : name) << ": " << with_commas(manifest.rows_read) << " rows, "
      << with_commas(log_users) << " users, " << with_commas(log_items) << " items\n";
  if (manifest.rows_filtered)
    out << "  filtered  " << with_commas(manifest.rows_filtered) << " rows by log.where\n";
  if (!duplicate_key.empty())
    out << "  dropped   " << with_commas(manifest.duplicates) << " duplicates of ("
        << joined(duplicate_key, ", ", kPlain) << ")\n";
  out << "  repeated  " << with_commas(repeated_rows) << " whole rows, " << with_commas(repeated_events)
      << " of (user, item, time)\n\n";
  for (const auto& join : manifest.joins)
    out << "  " << join.key << " (" << join.file << ") has " << percent(join.share()) << " of the log's "
        << join.what << ": " << with_commas(join.found) << " of " << with_commas(join.of) << "\n";
  if (!manifest.joins.empty()) out << "\n";
  write_parts(out, *this);
  write_features(out, *this);
  for (const auto& history : histories)
    out << "\nhistory " << history.name << ": " << with_commas(history.events)
        << " events; lengths at 0, 10, 25, 50, 75, 90, 100 % of the requests:\n  train  "
        << joined(history.train_lengths, " ", kPlain) << "  (" << percent(history.train_empty)
        << " empty)\n  test   " << joined(history.test_lengths, " ", kPlain) << "  ("
        << percent(history.test_empty) << " empty)\n";
  out << "\nusers in test\n";
  for (const auto& one : users)
    out << "  " << one.task << ": " << with_commas(one.users) << ", of whom "
        << with_commas(one.users - one.both_classes) << " have a single class and "
        << with_commas(one.both_classes) << " count for UAUC\n";
  std::vector<std::string> constant;
  for (const auto& column : columns)
    if (column.constant) constant.push_back(column.name);
  if (!constant.empty()) out << "\nconstant columns: " << joined(constant, ", ", kPlain) << "\n";
  out << (warnings.empty() ? "\nno warnings\n" : "\nwarnings\n");
  for (const auto& warning : warnings) out << "  - " << warning << "\n";
  return out.str();
}

std::string InspectReport::json() const {
  std::ostringstream out;
  out.precision(6);
  out << "{\"name\": " << quoted(name) << ", \"rows_read\": " << manifest.rows_read
      << ", \"rows_filtered\": " << manifest.rows_filtered << ", \"duplicates\": " << manifest.duplicates
      << ", \"repeated_rows\": " << repeated_rows << ", \"repeated_events\": " << repeated_events
      << ", \"users\": " << log_users << ", \"items\": " << log_items << ",\n \"parts\": {";
  for (int s = 0; s < 3; ++s) {
    const SplitStats& part = manifest.splits[s];
    out << (s ? ", " : "") << quoted(split_name(static_cast<Split>(s))) << ": {\"rows\": " << part.rows
        << ", \"requests\": " << part.requests << ", \"first_day\": " << quoted(part.first_day)
        << ", \"last_day\": " << quoted(part.last_day) << ", \"label_rates\": {";
    for (size_t t = 0; t < tasks.size(); ++t)
      out << (t ? ", " : "") << quoted(tasks[t]) << ": " << part.tasks[t].rate();
    out << "}}";
  }
  out << "},\n \"columns\": ["
      << joined(columns, ",\n  ",
                [](std::ostream& to, const InspectedColumn& column) {
                  to << "{\"name\": " << quoted(column.name) << ", \"distinct\": " << column.distinct
                     << ", \"missing\": " << column.missing << std::boolalpha
                     << ", \"constant\": " << column.constant << ", \"input\": " << column.input
                     << ", \"label\": " << column.label << ", \"auc\": " << column.auc
                     << ", \"task\": " << quoted(column.task) << ", \"odds_ratio\": " << column.odds_ratio
                     << "}";
                })
      << "],\n \"features\": ["
      << joined(features, ",\n  ",
                [](std::ostream& to, const InspectedFeature& feature) {
                  to << "{\"name\": " << quoted(feature.name) << ", \"group\": " << quoted(feature.group)
                     << ", \"kind\": " << quoted(feature.kind) << ", \"rows\": " << feature.rows
                     << ", \"unknown_train\": " << feature.unknown_train
                     << ", \"unknown_test\": " << feature.unknown_test << "}";
                })
      << "],\n \"histories\": ["
      << joined(histories, ", ",
                [](std::ostream& to, const InspectedHistory& history) {
                  to << "{\"name\": " << quoted(history.name) << ", \"events\": " << history.events
                     << ", \"train_lengths\": [" << joined(history.train_lengths, ", ", kPlain)
                     << "], \"test_lengths\": [" << joined(history.test_lengths, ", ", kPlain)
                     << "], \"train_empty\": " << history.train_empty
                     << ", \"test_empty\": " << history.test_empty << "}";
                })
      << "],\n \"users\": ["
      << joined(users, ", ",
                [](std::ostream& to, const InspectedUsers& one) {
                  to << "{\"task\": " << quoted(one.task) << ", \"users\": " << one.users
                     << ", \"both_classes\": " << one.both_classes << "}";
                })
      << "],\n \"joins\": ["
      << joined(manifest.joins, ", ",
                [](std::ostream& to, const JoinStats& one) {
                  to << "{\"key\": " << quoted(one.key) << ", \"file\": " << quoted(one.file)
                     << ", \"what\": " << quoted(one.what) << ", \"found\": " << one.found
                     << ", \"of\": " << one.of << "}";
                })
      << "],\n \"warnings\": ["
      << joined(warnings, ", ", [](std::ostream& to, const std::string& one) { to << quoted(one); })
      << "]}\n";
  return out.str();
}

}  // namespace mixrec

#include "mixrec/data/schema_parts.h"

#include "mixrec/core/error.h"
#include "mixrec/data/expression.h"
#include "mixrec/data/time_format.h"

#include <algorithm>

namespace mixrec {

SplitRule detail::read_split(JsonObject in) {
  SplitRule split;
  const std::string by = in.choice("by", "date", {"date", "fraction", "column", "files", "random"});
  if (by == "date") {
    split.test_from = in.text("test_from", "");
    split.validation_from = in.text("validation_from", "");
    split.test_days = in.integer("test_days", 0, 1);
    split.validation_days = in.integer("validation_days", 0, 0);
    MR_CHECK(split.test_from.empty() != (split.test_days == 0), in.place(), ": give test_from or test_days");
    MR_CHECK(split.validation_from.empty() || split.validation_days == 0, in.place(),
             ": give validation_from or validation_days, not both");
    for (const auto* key : {"test_from", "validation_from"})
      if (in.has(key)) parse_day(in.text(key), in.at(key));
    MR_CHECK(split.test_from.empty() || split.validation_from.empty() ||
                 parse_day(split.validation_from, "") < parse_day(split.test_from, ""),
             in.at("validation_from"), ": must lie before test_from, '", split.test_from, "'");
  } else if (by == "fraction" || by == "random") {
    split.by = by == "fraction" ? SplitBy::fraction : SplitBy::random;
    if (by == "random") {
      split.seed = static_cast<uint64_t>(in.integer("seed", 1, 0));
      split.of_users = in.choice("of", "rows", {"rows", "users"}) == "users";
    }
    split.test = in.number("test", 0.1);
    split.validation = in.number("validation", 0.1);
    MR_CHECK(split.test > 0 && split.validation >= 0 && split.test + split.validation < 1, in.place(),
             ": test and validation are fractions with a sum below 1");
  } else {
    split.by = by == "column" ? SplitBy::column : SplitBy::files;
    if (by == "column") split.column = in.text("column");
    split.train_values = in.texts("train");
    split.validation_values = in.texts("validation");
    split.test_values = in.texts("test");
    MR_CHECK(!split.train_values.empty() && !split.test_values.empty(), in.place(),
             ": needs 'train' and 'test'");
    split.validation = in.number("validation_fraction", split.validation_values.empty() ? 0.1 : 0);
    MR_CHECK(split.validation >= 0 && split.validation < 1, in.at("validation_fraction"),
             ": must be in [0, 1)");
  }
  in.finish();
  return split;
}

void detail::check_expressions(const Schema& schema, const std::string& called) {
  const auto check = [&](const std::string& text, const std::string& key) {
    if (text.empty()) return;
    for (const auto& name : expression_columns(text)) {
      const size_t dot = name.find('.');
      for (const auto& table : schema.tables)
        MR_CHECK(dot == std::string::npos || name.substr(0, dot) != table.name, called, ".", key, ": '", name,
                 "' is a column of the table '", table.name,
                 "'; expressions read the log's columns only: write the column into the log");
    }
  };
  check(schema.where, "log.where");
  check(schema.weight, "log.weight");
  for (const auto& task : schema.tasks) {
    check(task.label, "tasks." + task.spec.name);
    check(task.mask, "tasks." + task.spec.name + ".where");
    check(task.weight, "tasks." + task.spec.name + ".weight");
  }
  for (const auto& history : schema.histories)
    for (const auto& source : history.sources) {
      if (source.items_separator) continue;
      check(source.where, "histories." + history.name + ".from.where");
      for (const auto& signal : source.signals)
        check(signal.expression, "histories." + history.name + ".from.signals." + signal.name);
    }
}

}  // namespace mixrec

// What a log that was read without an error still shows to be wrong: ids that match nothing, lists that are written in
// another way, parts that are empty or out of order.
#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"
#include "mixrec/data/packing/packing.h"
#include "mixrec/data/time_format.h"

#include <algorithm>
#include <cmath>

namespace mixrec::packing {

namespace {

constexpr double kFew = 0.5;  // of the log's ids that a joined file has

std::string percent(double share) { return concat_message(std::lround(100 * share), " %"); }

JoinStats join_of(const JoinedIds& ids, const std::vector<bool>& joined, const std::vector<bool>& seen,
                  const char* what) {
  JoinStats stats{ids.key, ids.file, what, 0, 0};
  for (size_t id = 0; id < seen.size(); ++id) {
    stats.of += seen[id];
    stats.found += seen[id] && id < joined.size() && joined[id];
  }
  return stats;
}

// The first id of each side, for a message.
std::string example(const Dictionary& texts, const std::vector<bool>& ids) {
  const auto first = static_cast<size_t>(std::find(ids.begin(), ids.end(), true) - ids.begin());
  return first < ids.size() ? concat_message("'", printable(texts.text(static_cast<uint32_t>(first))), "'")
                            : "none";
}

void warn_of_list(const Column& column, std::vector<std::string>& out) {
  const std::string name = concat_message("the list feature '", column.rule->spec.name, "' ");
  const std::string& separator = column.rule->list_separator;
  size_t filled = 0, literals = 0, single = 0;
  std::string example;
  constexpr std::string_view kOthers[] = {"|", ";", ",", "\t", " "};
  size_t with_other[std::size(kOthers)] = {};
  for (uint32_t c = 0; c < column.cells->size(); ++c) {
    const std::string_view cell = column.cells->text(c);
    if (cell.empty()) continue;
    ++filled;
    if ((cell.front() == '[' && cell.back() == ']') || (cell.front() == '{' && cell.back() == '}') ||
        (cell.front() == '(' && cell.back() == ')')) {
      ++literals;
      if (example.empty()) example = printable(cell, 60);
    }
    const bool one = cell.find(separator) == std::string_view::npos;
    single += one;
    for (size_t s = 0; one && s < std::size(kOthers); ++s)
      with_other[s] += cell.find(kOthers[s]) != std::string_view::npos;
  }
  if (filled == 0) return out.push_back(name + "is empty in every row"), void();
  if (2 * literals > filled)
    return out.push_back(
               name + "has cells that look like Python or JSON lists (" + example +
               "): brackets and quotes become parts of its values; write plain values with a separator"),
           void();
  if (single < filled || filled < 2) return;
  for (size_t s = 0; s < std::size(kOthers); ++s)
    if (2 * with_other[s] > filled)
      return out.push_back(name + "has one element in every cell, and most cells hold '" +
                           (kOthers[s] == "\t" ? "\\t" : std::string(kOthers[s])) + "': is the separator '" +
                           separator + "' the right one?"),
             void();
}

void warn_of_feature(const Packing& packing, size_t f, std::vector<std::string>& out) {
  const Column& column = packing.columns[f];
  const FeatureRule& rule = *column.rule;
  if (rule.rate || rule.matches) return;
  if (column.is_list()) return warn_of_list(column, out);
  const bool bucketed = rule.encoding == Encoding::quantiles || rule.encoding == Encoding::buckets;
  if (packing.given) return;  // counted elsewhere
  if (bucketed && packing.manifest.feature_rows[f] <= kFirstBucketRow + 1)
    out.push_back("the feature '" + rule.spec.name +
                  "' has a single bucket: its training rows hold one value, so that it says nothing");
  if (rule.encoding == Encoding::numeric && column.moments.constant())
    out.push_back("the number '" + rule.spec.name +
                  "' has one value in the training rows, so that it says nothing");
}

void warn_of_parts(const Packing& packing, std::vector<std::string>& out) {
  const Schema& schema = packing.schema;
  const SplitRule& split = schema.split;
  const auto& parts = packing.manifest.splits;
  const bool asked = split.validation > 0 || split.validation_days > 0 || !split.validation_from.empty() ||
                     !split.validation_values.empty();
  if (asked && parts[1].rows == 0 && parts[0].rows > 0)
    out.push_back(split.by == SplitBy::fraction ? "the split asks for validation rows and gets none: too "
                                                  "many rows share the time at which they would begin"
                                                : "the split asks for validation rows and gets none");
  const bool by_rows = split.by == SplitBy::files || split.by == SplitBy::column;
  if (by_rows && split.validation > 0 && !schema.time)
    out.push_back(
        "the log has no time: the validation part is the last rows of the training files, which may be of a "
        "few users; "
        "name log.time, or give split.validation");
  const std::string trained_until = std::max(parts[0].last_day, parts[1].last_day);
  if (by_rows && !parts[2].last_day.empty() && parts[2].last_day < trained_until)
    out.push_back("the test part ends on " + parts[2].last_day + ", before the training part does (" +
                  trained_until + "): it asks the model about its own past");
  const bool own_beginning = schema.time && schema.time->format.empty() && schema.time->unit != "day" &&
                             !packing.time_range.first_place.empty() && schema.time->first_year == 0;
  if (own_beginning)
    out.push_back("the times lie in " + day_text(day_of(packing.time_range.first)) + " to " +
                  day_text(day_of(packing.time_range.last)) +
                  ": if they count from another moment, hours and weekdays mean nothing");
}

}  // namespace

void check_joins(Packing& packing) {
  const auto look = [&](const JoinedIds& ids, const std::vector<bool>& joined, const std::vector<bool>& seen,
                        const Dictionary& texts, const char* what) {
    const JoinStats stats = join_of(ids, joined, seen, what);
    packing.manifest.joins.push_back(stats);
    // Other data than a run was trained on may be of new users and items alone.
    MR_CHECK(stats.found > 0 || stats.of == 0 || packing.given, ids.key, ": none of the log's ", stats.of,
             " ", what, " is in ", ids.file, " (the log has ", example(texts, seen), ", the file ",
             example(texts, joined), "): do both write ids in the same way?");
    if (stats.share() < kFew)
      packing.manifest.warnings.push_back(concat_message(ids.key, ": only ", percent(stats.share()),
                                                         " of the log's ", what, " (", stats.found, " of ",
                                                         stats.of, ") are in ", ids.file));
  };
  for (const JoinedIds& ids : packing.joined) {
    if (ids.has_users) look(ids, ids.users, packing.users_seen, packing.users, "users");
    if (ids.has_items) look(ids, ids.items, packing.items_seen, packing.items, "items");
  }
}

void warn(Packing& packing) {
  auto& out = packing.manifest.warnings;
  for (size_t f = 0; f < packing.columns.size(); ++f) warn_of_feature(packing, f, out);
  warn_of_parts(packing, out);
}

}  // namespace mixrec::packing

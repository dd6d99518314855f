#include "mixrec/train/report.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/core/files/json_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

namespace mixrec {

namespace {

using nlohmann::json;

// A path or a message may hold bytes that are no text, and JSON may not.
std::string quoted(const std::string& text) {
  return json(is_utf8(text) ? text : printable(text, text.size())).dump();
}

// The shortest text that reads back as the same number.
std::string number(double value) { return std::isfinite(value) ? json(value).dump() : "null"; }

// "ndcg@10_requests": how many lists its mean is over.
std::string lists_key(const MetricName& name) { return name.text + (name.by_user ? "_users" : "_requests"); }

// Every number of BinaryMetrics that a report holds, under its name: the metrics that were asked for, with the number of
// users or requests behind each, and always the rows and their mean label.
template <class M, class V>
void visit_metrics(M& m, V&& v) {
  const auto asked = [&](MetricKind kind) {
    return std::any_of(m.names.begin(), m.names.end(), [&](const MetricName& n) { return n.kind == kind; });
  };
  for (const MetricName& name : m.names) {
    if (name.of_lists() || name.kind == MetricKind::request_auc) continue;
    v(name.text, *const_cast<BinaryMetrics&>(m).field(name));
    if (name.kind == MetricKind::uauc) v("uauc_users", m.user.used);
  }
  v("rows", m.rows), v("mean_label", m.mean_label);
  if (asked(MetricKind::uauc))
    v("uauc_skipped", m.user.skipped), v("uauc_by_impressions", m.user.by_impressions);
  if (asked(MetricKind::request_auc))
    v("request_auc", m.request.mean), v("request_auc_requests", m.request.used);
  for (auto& list : m.lists) v(list.name.text, list.mean), v(lists_key(list.name), list.used);
}

}  // namespace

JsonLine& JsonLine::add(const std::string& key, int64_t value) {
  return add_json(key, std::to_string(value));
}
JsonLine& JsonLine::add(const std::string& key, double value) { return add_json(key, number(value)); }
JsonLine& JsonLine::add(const std::string& key, const std::string& text) {
  return add_json(key, quoted(text));
}
JsonLine& JsonLine::add_json(const std::string& key, const std::string& json) {
  if (body_.size() > 1) body_ += ',';
  body_.append(quoted(key)).append(":").append(json);
  return *this;
}

std::string metrics_json(const BinaryMetrics& metrics) {
  JsonLine line;
  visit_metrics(metrics, [&](const std::string& name, auto value) { line.add(name, value); });
  return line.text();
}

std::string metrics_json(const std::vector<TaskSpec>& tasks, const std::vector<BinaryMetrics>& metrics) {
  JsonLine line;
  for (size_t t = 0; t < metrics.size(); ++t) line.add_json(tasks[t].name, metrics_json(metrics[t]));
  return line.text();
}

std::vector<BinaryMetrics> parse_metrics(const std::vector<TaskSpec>& tasks,
                                         const std::vector<MetricName>& names, const std::string& text) {
  const json all = parse_json_text<json>(text, "the metrics of a checkpoint");
  std::vector<BinaryMetrics> metrics;
  for (const TaskSpec& task : tasks) {
    if (!all.contains(task.name)) continue;
    const json& one = all[task.name];
    BinaryMetrics& read = metrics.emplace_back();
    read.names = names;
    for (const MetricName& name : names)
      if (name.of_lists()) read.lists.push_back({name});
    visit_metrics(read, [&]<class T>(const std::string& name, T& value) {
      if (one.contains(name) && !one[name].is_null())
        value = one[name];
      else if constexpr (std::is_same_v<T, double>)
        value = std::numeric_limits<double>::quiet_NaN();
    });
  }
  return metrics;
}

namespace {

std::string decimals(double value, int digits) {
  if (!std::isfinite(value)) return "-";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

}  // namespace

std::string missing_because(const TaskSpec& task, const BinaryMetrics& m) {
  if (m.rows == 0) return "no label of the part counts";
  for (const MetricName& name : m.names) {
    if (!std::isnan(m.value(name))) continue;
    const bool graded = name.kind == MetricKind::ndcg || name.kind == MetricKind::calibration ||
                        name.kind == MetricKind::normalised_entropy;
    if (m.fractional > 0 && !task.positive_from && !graded)
      return "labels lie between 0 and 1 and the task has no positive_from";
    if (m.positives == 0) return "no row is positive";
    if (m.positives == m.rows) return "all rows are positive";
    return name.kind == MetricKind::uauc ? "no user has both classes" : "no request has both classes";
  }
  return "";
}

std::string metric_number(const BinaryMetrics& m, const MetricName& name) {
  return decimals(m.value(name), name.kind == MetricKind::calibration ? 3 : 4);
}

std::string metrics_text(const TaskSpec& task, const BinaryMetrics& m) {
  std::string text = task.name;
  text.resize(std::max<size_t>(text.size(), 12), ' ');
  for (const MetricName& name : m.names) {
    text += "  " + metric_label(name) + " " + metric_number(m, name);
    if (name.kind == MetricKind::uauc) text += concat_message(" (", m.user.used, " users)");
  }
  text += concat_message("  ", m.rows, " rows");
  const std::string why = missing_because(task, m);
  return why.empty() ? text : text + " (" + why + ")";
}

bool read_simulated_bounds(const std::string& folder, SimulatedBounds& bounds) {
  const std::string path = folder + "/bounds.json";
  if (folder.empty() || !std::filesystem::exists(path)) return false;
  try {
    const json all = parse_json_text<json>(read_text_file(path), path);
    bounds.task = all.at("task");
    bounds.floor_auc = all.at("test").at("floor_auc");
    bounds.bayes_auc = all.at("test").at("bayes_auc");
  } catch (const json::exception& error) {
    MR_FAIL(path, ": ", error.what());
  }
  return true;
}

}  // namespace mixrec

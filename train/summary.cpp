#include "mixrec/train/summary.h"

#include "mixrec/train/progress.h"
#include "mixrec/train/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace mixrec {

namespace {

std::string decimals(double value, int count) {
  if (!std::isfinite(value)) return "-";
  char text[40];
  std::snprintf(text, sizeof text, "%.*f", count, value);
  return text;
}

std::string cell(std::string text, size_t width) {
  text.resize(std::max(text.size(), width), ' ');
  return text + "  ";
}

// The metrics that have a column: those that were asked for, of the default set the four that most look at.
std::vector<MetricName> columns(std::vector<MetricName> names) {
  const std::vector<std::string>& usual = default_metrics();
  const bool all =
      names.size() >= usual.size() &&
      std::equal(usual.begin(), usual.end(), names.begin(),
                 [](const std::string& text, const MetricName& name) { return text == name.text; });
  if (all)
    std::erase_if(names, [](const MetricName& name) {
      return name.kind == MetricKind::normalised_entropy || name.kind == MetricKind::request_auc;
    });
  return names;
}

// One line per task.
std::string metrics_table(const std::vector<TaskSpec>& tasks, const std::vector<BinaryMetrics>& test) {
  size_t width = 4;
  for (const TaskSpec& task : tasks) width = std::max(width, task.name.size());
  std::string text = cell("test", width);
  const auto column = [](const MetricName& name) { return std::max<size_t>(6, metric_label(name).size()); };
  const std::vector<MetricName> shown = columns(test.front().names);
  for (const MetricName& name : shown) text += cell(metric_label(name), column(name));
  text += "rows\n";
  for (size_t t = 0; t < test.size(); ++t) {
    const BinaryMetrics& m = test[t];
    text += cell(tasks[t].name, width);
    for (const MetricName& name : shown) text += cell(metric_number(m, name), column(name));
    text += std::to_string(m.rows) + "\n";
    if (const std::string why = missing_because(tasks[t], m); !why.empty()) text += "  " + why + "\n";
  }
  return text;
}

std::string bounds_text(const SimulatedBounds& bounds, double auc) {
  const std::string text = "The log is simulated: for " + bounds.task + ", popularity alone has AUC " +
                           decimals(bounds.floor_auc, 4) + ", the true\nprobabilities " +
                           decimals(bounds.bayes_auc, 4) + ".  ";
  const double share = bounds.share(auc);
  if (!(share > 0)) return text + "The model is no better than popularity.\n";
  return text + "The model came " + decimals(100 * share, 0) + " % of the way from one to the other.\n";
}

}  // namespace

std::string summary_text(const Config& config, const std::vector<TaskSpec>& tasks, const FitResult& result,
                         const std::string& out) {
  std::string text = config.model.name + ", " + count_text(static_cast<double>(result.parameters)) +
                     " parameters: " + std::to_string(result.steps) + " steps, " +
                     count_text(result.samples_per_second) + " samples/s, " + clock_text(result.seconds) +
                     " in all\n";
  if (!result.test.empty()) text += metrics_table(tasks, result.test);
  SimulatedBounds bounds;
  if (read_simulated_bounds(config.data.path, bounds))
    for (size_t t = 0; t < result.test.size(); ++t)
      if (tasks[t].name == bounds.task && std::isfinite(result.test[t].auc))
        text += bounds_text(bounds, result.test[t].auc);
  if (!out.empty())
    text += "In " + out +
            ":\n"
            "  result.json        this result, also the one line on stdout\n"
            "  best.safetensors   the chosen weights, which eval, predict and score read\n"
            "  config.json        the configuration;  metrics.jsonl, events.*: its course\n";
  text.pop_back();
  return text;
}

}  // namespace mixrec

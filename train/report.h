// The JSON that a run leaves: lines of metrics.jsonl, and result.json.
#pragma once

#include "mixrec/core/feature_spec.h"
#include "mixrec/core/metrics.h"

#include <string>
#include <utility>
#include <vector>

namespace mixrec {

// One flat object; NaN and infinity become null.
class JsonLine {
 public:
  JsonLine& add(const std::string& key, int64_t value);
  JsonLine& add(const std::string& key, double value);
  JsonLine& add(const std::string& key, const std::string& text);
  JsonLine& add_json(const std::string& key, const std::string& json);  // an object, as it is
  std::string text() const { return body_ + "}"; }

 private:
  std::string body_ = "{";
};

// {"auc":…,"uauc":…,"uauc_users":…,"log_loss":…,"normalised_entropy":…,"calibration":…,"rows":…,…}
std::string metrics_json(const BinaryMetrics& metrics);
// {"is_click":{…},…}
std::string metrics_json(const std::vector<TaskSpec>& tasks, const std::vector<BinaryMetrics>& metrics);
// What the two above wrote, back again; `names` says which metrics.  NaN stands for what the text does not hold.
std::vector<BinaryMetrics> parse_metrics(const std::vector<TaskSpec>& tasks,
                                         const std::vector<MetricName>& names, const std::string& json);

// The value as a person reads it: "0.7481", "-" where the rows do not determine it.
std::string metric_number(const BinaryMetrics& metrics, const MetricName& name);

// "is_click  AUC .7481  UAUC .6353 (4321 users)  log loss .5870  NE .912  calibration 1.003  request AUC .7012
// 35755 rows", in one line and of the metrics that were asked for; "-" stands for a metric that the rows do not determine, and the line then ends with the reason.
std::string metrics_text(const TaskSpec& task, const BinaryMetrics& metrics);
// That reason; "" where every metric is determined.
std::string missing_because(const TaskSpec& task, const BinaryMetrics& metrics);

// What a simulated log says of its test rows.
struct SimulatedBounds {
  std::string task;
  double floor_auc = 0;  // of the popularity alone
  double bayes_auc = 0;  // of the true probabilities

  // 0 at the floor, 1 at the bound.
  double share(double auc) const { return (auc - floor_auc) / (bayes_auc - floor_auc); }
};

// Reads FOLDER/bounds.json; false when the folder has none.
bool read_simulated_bounds(const std::string& folder, SimulatedBounds& bounds);

}  // namespace mixrec

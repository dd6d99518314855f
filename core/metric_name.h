// The metrics by name, as train.metrics and train.select_by write them.
//
//   auc  uauc  request_auc  log_loss  normalised_entropy  calibration  rmse  mae
//   ndcg@k  mrr  hr@k                 in the list of each request, mean over requests
//   user_ndcg@k  user_mrr  user_hr@k  in the list of all rows of each user, mean over users
//
// core/metrics.h says what they are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mixrec {

enum class MetricKind {
  auc,
  uauc,
  request_auc,
  log_loss,
  normalised_entropy,
  calibration,
  rmse,
  mae,
  ndcg,
  mrr,
  hr,
};

struct MetricName {
  MetricKind kind = MetricKind::auc;
  int64_t k = 0;         // of ndcg and hr: how far down the list is looked at, 1 to kMostListK
  bool by_user = false;  // of ndcg, mrr and hr: one list per user and not per request
  std::string text;      // the name itself

  bool operator==(const MetricName& other) const { return text == other.text; }
  bool of_lists() const { return kind >= MetricKind::ndcg; }
};

constexpr int64_t kMostListK = 1'000'000;

// Throws on a name that is none of the above, on a k out of range, and on a k that is not written plainly (`@05`).
// `what` names the option in the message.
MetricName parse_metric(const std::string& text, const std::string& what);

// Larger is better: the value, the value with a minus (log loss, normalised entropy, RMSE, MAE), or for the
// calibration, which is best at 1, -|log value|.
double goodness(MetricKind kind, double value);

// For people: "AUC", "NE", "NDCG@10", "user MRR".
std::string metric_label(const MetricName& name);

// What is computed where nothing else is asked for.
const std::vector<std::string>& default_metrics();

// `names` in their order, each once; throws as parse_metric.
std::vector<MetricName> parse_metrics_list(const std::vector<std::string>& names, const std::string& what);

}  // namespace mixrec

// Metrics of a task with labels y in [0, 1]: ranking (AUC, UAUC, NDCG, MRR, HR), probability (log loss, normalised
// entropy, RMSE, MAE) and calibration.
//
//   AUC   = P(score of a positive > score of a negative), ties count one half; exact, by rank sum
//   UAUC  = mean over users of the AUC inside the user; users with a single class have none and are skipped
//   log loss = mean of -y log p - (1 - y) log(1 - p)
//   NE    = log loss / entropy of the mean label  (He et al., ADKDD 2014, eq 1): below 1 beats the constant
//   calibration = sum of predicted probabilities / sum of labels
//   RMSE  = root of the mean of (p - y)^2,  MAE = mean of |p - y|
//   NDCG@k, MRR, HR@k = mean over requests, or over users, of the value in the list (core/list_metrics.h: ties are
//           averaged over all their orders); lists without a positive have none and are skipped, not counted as 0
//
// With weights w, every pair of a positive i and a negative j counts w_i w_j, every row w_i, and in NDCG, MRR and HR
// every list the mean weight of its rows.  Accumulation is in f64.  A metric that the rows do not determine is NaN.
#pragma once

#include "mixrec/core/metric_name.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace mixrec {

// The AUC of rows that come in groups of equal scores, from the lowest score to the highest.  Every AUC of the
// library is computed here.
class RankSum {
 public:
  // The weights of one group's positives and negatives.
  void add(double positives, double negatives) {
    wins_ += positives * (negatives_ + 0.5 * negatives);
    positives_ += positives;
    negatives_ += negatives;
  }
  // NaN when only one class was added.
  double auc() const {
    return positives_ > 0 && negatives_ > 0 ? wins_ / (positives_ * negatives_)
                                            : std::numeric_limits<double>::quiet_NaN();
  }

 private:
  double wins_ = 0, positives_ = 0, negatives_ = 0;
};

struct GroupedAuc {
  double mean = 0;            // unweighted over groups with both classes; NaN when there is none
  double by_impressions = 0;  // the same, each group weighted by its number of rows
  int64_t used = 0, skipped = 0;
};

// NDCG@k, MRR or HR@k over lists.
struct ListMean {
  MetricName name;
  double mean = 0;  // over lists that have a value, by the mean weight of their rows; NaN when there is none
  int64_t used = 0, skipped = 0;
};

struct CalibrationBin {
  int64_t rows = 0;
  double predicted = 0, observed = 0;  // mean probability and mean label, weighted
};

struct BinaryMetrics {
  // What was asked for, and is reported.
  std::vector<MetricName> names = parse_metrics_list(default_metrics(), "metrics");
  int64_t rows = 0;        // rows of positive weight
  int64_t positives = 0;   // rows of these that a ranking counts as positive
  int64_t fractional = 0;  // rows with a label between 0 and 1
  double mean_label = 0;
  // NaN when only one class is present, or labels are fractional and nothing says which are positive.
  double auc = 0;
  GroupedAuc user;     // UAUC
  GroupedAuc request;  // the same inside one request: how well one list is ordered
  double log_loss = 0;
  double normalised_entropy = 0;
  double calibration = 0;
  double rmse = 0, mae = 0;
  std::vector<ListMean> lists;          // those that were asked for, in that order
  std::vector<CalibrationBin> deciles;  // at most ten, by predicted probability; equal scores share a bin

  // Where a metric is; nullptr for a list metric that is not in `lists`, whose value is NaN.
  double* field(const MetricName& name);
  double value(const MetricName& name) const;
};

// Collects rows batch by batch, at 24 bytes per row, 28 once a weight differs from 1.
class BinaryMeter {
 public:
  // Rankings take labels of at least `positive_from` as positive.  Without it labels of 1 are positive, labels of
  // 0 negative, and there is no ranking as soon as a label lies between them.
  explicit BinaryMeter(std::optional<double> positive_from = {}) : positive_from_(positive_from) {}

  // One batch: logits, labels in [0, 1], weights (empty = all 1; rows of weight 0 are left out), users and
  // requests (empty = no such groups; given in every batch or in none).  Throws on a NaN, on another label,
  // on unequal lengths.
  void add(std::span<const float> logits, std::span<const float> labels, std::span<const float> weights = {},
           std::span<const int64_t> users = {}, std::span<const int64_t> requests = {});

  // As if other's batches had been added here, after ours.
  void merge(const BinaryMeter& other);

  int64_t rows() const { return static_cast<int64_t>(logits_.size()); }
  // All of BinaryMetrics; of NDCG, MRR and HR those in `names`.  Groups that were not given leave NaN.
  BinaryMetrics compute(std::span<const MetricName> names = parse_metrics_list(default_metrics(),
                                                                               "metrics")) const;

 private:
  std::optional<double> positive_from_;
  std::vector<float> logits_, labels_;
  std::vector<float> weights_;  // empty while all are 1
  std::vector<int64_t> users_, requests_;
};

// AUC of plain vectors with labels of 0 and 1; NaN when only one class is present.
double auc(std::span<const float> scores, std::span<const float> labels, std::span<const float> weights = {});

}  // namespace mixrec

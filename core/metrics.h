// Metrics of a binary task: ranking (AUC, UAUC), probability (log loss, normalised entropy) and calibration.
//
//   AUC   = P(score of a positive > score of a negative), ties count one half; exact, by rank sum
//   UAUC  = mean over users of the AUC inside the user; users with a single class have none and are skipped
//   NE    = log loss / entropy of the mean label  (He et al., ADKDD 2014, eq 1): below 1 beats the constant
//   calibration = sum of predicted probabilities / sum of labels
//
// With weights w, every pair of a positive i and a negative j counts w_i w_j, every row w_i.  Accumulation is
// in f64.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mixrec {

struct GroupedAuc {
  double mean = 0;            // unweighted over groups with both classes; NaN when there is none
  double by_impressions = 0;  // the same, each group weighted by its number of rows
  int64_t used = 0, skipped = 0;
};

struct CalibrationBin {
  int64_t rows = 0;
  double predicted = 0, observed = 0;  // mean probability and mean label, weighted
};

struct BinaryMetrics {
  int64_t rows = 0;  // rows of positive weight
  double mean_label = 0;
  double auc = 0;      // NaN when only one class is present
  GroupedAuc user;     // UAUC
  GroupedAuc request;  // the same inside one request: how well one list is ordered
  double log_loss = 0;
  double normalised_entropy = 0;
  double calibration = 0;
  std::vector<CalibrationBin> deciles;  // at most ten, by predicted probability; equal scores share a bin
};

// Collects rows batch by batch, at 21 bytes a row, 25 once a weight differs from 1.
class BinaryMeter {
 public:
  // One batch: logits, labels (0 or 1), weights (empty = all 1; rows of weight 0 are left out), users and
  // requests (empty = no such groups; given in every batch or in none).  Throws on a NaN, on another label,
  // on unequal lengths.
  void add(std::span<const float> logits, std::span<const float> labels, std::span<const float> weights = {},
           std::span<const int64_t> users = {}, std::span<const int64_t> requests = {});

  // As if other's batches had been added here, after ours.
  void merge(const BinaryMeter& other);

  int64_t rows() const { return static_cast<int64_t>(logits_.size()); }
  BinaryMetrics compute() const;

 private:
  std::vector<float> logits_;
  std::vector<uint8_t> labels_;
  std::vector<float> weights_;  // empty while all are 1
  std::vector<int64_t> users_, requests_;
};

// AUC of plain vectors; NaN when only one class is present.
double auc(std::span<const float> scores, std::span<const float> labels, std::span<const float> weights = {});

}  // namespace mixrec

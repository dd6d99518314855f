// What the labels of one part of a data set leave to learn from and to judge by.
#pragma once

#include "mixrec/data/dataset.h"

#include <cstdint>
#include <vector>

namespace mixrec {

struct LabelCounts {
  int64_t rows = 0;                // rows whose label counts
  float lowest = 1, highest = 0;   // of their labels
  int64_t fractional = 0;          // labels between 0 and 1
  int64_t positives = 0;           // labels that a ranking counts as positive (TaskSpec::positive_from)
  int64_t users_with_both = 0;     // users with positives and negatives: UAUC is their mean
  int64_t requests_with_both = 0;  // requests with positives and negatives: the request AUC is their mean
  bool ranked = true;              // false: labels are fractional and the task has no positive_from

  bool one_class() const { return lowest >= highest; }
  bool has_auc() const { return ranked && positives > 0 && positives < rows; }
  bool has_uauc() const { return ranked && users_with_both > 0; }
  bool has_request_auc() const { return ranked && requests_with_both > 0; }
};

// One entry per task of data.spec().  `training` counts the rows that the optimiser sees: without the negatives that
// kept_negatives leaves out.  Reads the part's labels once.
std::vector<LabelCounts> count_labels(const Dataset& data, Split split, bool training);

}  // namespace mixrec

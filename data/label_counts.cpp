#include "mixrec/data/label_counts.h"

#include "mixrec/data/batch_builder.h"
#include "mixrec/data/packing/packed_data.h"

#include <algorithm>

namespace mixrec {

namespace {

LabelCounts count_task(const PackedData& data, size_t task, Split split, bool training) {
  const auto positive_from = static_cast<float>(data.spec.tasks[task].positive_from.value_or(1));
  LabelCounts counts;
  bool has_positive = false, has_negative = false;
  uint32_t user = UINT32_MAX;
  // Requests lie user by user in the packed order.
  const auto end_user = [&] {
    counts.users_with_both += has_positive && has_negative;
    has_positive = has_negative = false;
  };
  for (size_t request = 0; request < data.request_split.size(); ++request) {
    if (!data.has(split, static_cast<Split>(data.request_split[request]))) continue;
    if (data.request_user[request] != user) end_user();
    user = data.request_user[request];
    bool request_positive = false, request_negative = false;
    for (uint64_t row = data.request_rows[request]; row < data.request_rows[request + 1]; ++row) {
      if (!(label_weight(data, task, static_cast<uint32_t>(row), training) > 0)) continue;
      const float label = data.labels[task][row];
      const bool positive = label >= positive_from;
      ++counts.rows;
      counts.lowest = std::min(counts.lowest, label);
      counts.highest = std::max(counts.highest, label);
      counts.fractional += label > 0 && label < 1;
      counts.positives += positive;
      (positive ? request_positive : request_negative) = true;
    }
    counts.requests_with_both += request_positive && request_negative;
    has_positive |= request_positive;
    has_negative |= request_negative;
  }
  end_user();
  counts.ranked = counts.fractional == 0 || data.spec.tasks[task].positive_from;
  return counts;
}

}  // namespace

std::vector<LabelCounts> count_labels(const Dataset& data, Split split, bool training) {
  std::vector<LabelCounts> counts;
  for (size_t task = 0; task < data.spec().tasks.size(); ++task)
    counts.push_back(count_task(data.packed(), task, split, training));
  return counts;
}

}  // namespace mixrec

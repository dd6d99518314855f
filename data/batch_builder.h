// Turns row numbers of a packed data set into a RequestBatch.
#pragma once

#include "mixrec/core/request_batch.h"
#include "mixrec/data/dataset.h"

#include <cstdint>
#include <span>

namespace mixrec {

// Rows of a gap table: 0 for events without a time, then 1 + floor(log2(1 + seconds)).
inline constexpr int64_t kGapRows = 36;
int64_t gap_row(int64_t milliseconds);

struct BatchRule {
  TrainedOn trained_on = TrainedOn::training_part;
  bool training = false;   // thins out negatives and forgets cells where a schema asks for it
  uint64_t salt = 0;       // of the epoch: decides which training cells read as unknown
  bool by_request = true;  // neighbouring rows of one request share its user features and histories
};

// Weight of a row's label: 0 where it is masked, or a negative that training leaves out (always the same
// ones).
float label_weight(const PackedData& data, size_t task, uint32_t row, bool training);

// Number of events that request `request` has in history `h`, at most its length.
int64_t history_events(const PackedData& data, size_t h, uint32_t request, TrainedOn trained_on);

// Rows are numbers in the packed order.  Thread-safe.
RequestBatch build_batch(const PackedData& data, std::span<const uint32_t> rows, const BatchRule& rule);

}  // namespace mixrec

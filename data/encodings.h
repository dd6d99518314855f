// From a cell to the number that a model reads, one value at a time: what `prepare` does to a whole log, and
// FeatureEncoder to one request.
#pragma once

#include "mixrec/data/dictionary.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace mixrec {

inline constexpr uint32_t kMissingRow = 1;  // of bucketed numbers
inline constexpr uint32_t kFirstBucketRow = 2;
inline constexpr uint8_t kSignalTrue = 2;  // rows of a signal: 0 absent, 1 + value

// 1 .. buckets
inline uint32_t hash_row(std::string_view text, int64_t buckets) {
  return 1 + static_cast<uint32_t>(hash_text(text) % static_cast<uint64_t>(buckets));
}

// The bucket of the last edge <= value; NaN is a missing cell.
inline uint32_t bucket_row(double value, std::span<const double> edges) {
  if (std::isnan(value)) return kMissingRow;
  return kFirstBucketRow +
         static_cast<uint32_t>(std::upper_bound(edges.begin(), edges.end(), value) - edges.begin());
}

// Whether a number keeps its size as f32, in which models compute.
inline bool fits_f32(double value) { return std::abs(value) <= std::numeric_limits<float>::max(); }

// The number that is standardised: `value`, or sign(value) log(1 + abs(value)).
inline double transformed(double value, bool log1p) {
  return log1p ? std::copysign(std::log1p(std::abs(value)), value) : value;
}
inline float standardised(double value, bool log1p, double mean, double deviation) {
  const double number = transformed(value, log1p);
  return std::isnan(number) ? 0.0f : static_cast<float>((number - mean) / deviation);
}

// Parts of a moment that was moved to local time: its day since 1970; rows 1 + hour and 1 + weekday (0 = Monday).
inline int64_t day_of(int64_t local_milliseconds) {
  constexpr int64_t kDay = 86'400'000;
  return (local_milliseconds >= 0 ? local_milliseconds : local_milliseconds - kDay + 1) / kDay;
}
inline uint32_t hour_row(int64_t local_milliseconds) {
  return 1 + static_cast<uint32_t>(((local_milliseconds / 3'600'000) % 24 + 24) % 24);
}
inline uint32_t weekday_row(int64_t day) { return 1 + static_cast<uint32_t>(((day + 3) % 7 + 7) % 7); }

// Splits a list cell; calls `take(element)` for each; an empty cell has none.
template <class Take>
void for_each_element(std::string_view cell, std::string_view separator, const Take& take) {
  if (cell.empty()) return;
  if (separator.empty()) {
    for (size_t i = 0; i < cell.size(); ++i) take(cell.substr(i, 1));
    return;
  }
  while (true) {
    const size_t end = cell.find(separator);
    take(cell.substr(0, end));
    if (end == std::string_view::npos) return;
    cell.remove_prefix(end + separator.size());
  }
}

}  // namespace mixrec

#include "mixrec/core/list_metrics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace mixrec {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double discount(size_t rank) { return 1 / std::log2(static_cast<double>(rank) + 1); }  // rank from 1

// The end of the run of equal scores that begins at `begin`.
size_t end_of_ties(std::span<const RankedRow> rows, size_t begin) {
  size_t end = begin + 1;
  while (end < rows.size() && rows[end].score == rows[begin].score) ++end;
  return end;
}

struct TiedPositives {
  double before = 0, rows = 0, positives = 0;  // rows above the run; rows and positives of the run
};

// The first run of equal scores with a positive; no positives when there is none.
TiedPositives first_positives(std::span<const RankedRow> rows) {
  for (size_t begin = 0; begin < rows.size();) {
    const size_t end = end_of_ties(rows, begin);
    const auto positives = std::count_if(rows.begin() + static_cast<std::ptrdiff_t>(begin),
                                         rows.begin() + static_cast<std::ptrdiff_t>(end),
                                         [](const RankedRow& r) { return r.positive; });
    if (positives > 0)
      return {static_cast<double>(begin), static_cast<double>(end - begin), static_cast<double>(positives)};
    begin = end;
  }
  return {};
}

}  // namespace

double list_ndcg(std::span<const RankedRow> rows, int64_t k) {
  const size_t top = std::min(rows.size(), static_cast<size_t>(k));
  std::vector<double> gains;
  for (const RankedRow& row : rows) gains.push_back(std::exp2(double{row.label}) - 1);
  double found = 0;
  for (size_t begin = 0; begin < top;) {
    const size_t end = end_of_ties(rows, begin);
    double gain = 0, discounts = 0;
    for (size_t i = begin; i < end; ++i) gain += gains[i];
    for (size_t i = begin; i < std::min(end, top); ++i) discounts += discount(i + 1);
    found += gain / static_cast<double>(end - begin) * discounts;
    begin = end;
  }
  std::sort(gains.begin(), gains.end(), std::greater<>());
  double best = 0;
  for (size_t i = 0; i < top; ++i) best += gains[i] * discount(i + 1);
  return best > 0 ? found / best : kNaN;
}

double list_mrr(std::span<const RankedRow> rows) {
  const auto [before, n, positives] = first_positives(rows);
  if (positives == 0) return kNaN;
  // `first` is the probability that the first positive of the run is its j-th row.
  double mean = 0, first = positives / n;
  for (double j = 1; j <= n - positives + 1; ++j) {
    mean += first / (before + j);
    if (j < n) first *= (n - j - positives + 1) / (n - j);
  }
  return mean;
}

double list_hit(std::span<const RankedRow> rows, int64_t k) {
  const auto [before, n, positives] = first_positives(rows);
  if (positives == 0) return kNaN;
  const double places = static_cast<double>(k) - before;
  if (places <= 0) return 0;
  if (places > n - positives) return 1;
  double missed = 1;  // probability that every place of the run within the first k has a negative
  for (double i = 0; i < places; ++i) missed *= (n - positives - i) / (n - i);
  return 1 - missed;
}

}  // namespace mixrec

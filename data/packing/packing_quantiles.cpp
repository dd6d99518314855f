// Where quantile buckets begin.
#include "mixrec/data/packing/packing.h"

#include <algorithm>
#include <cmath>

namespace mixrec::packing {

namespace {

using Counted = std::vector<std::pair<double, uint64_t>>;

// Each value once, in order.
Counted merged(Counted values) {
  std::sort(values.begin(), values.end());
  size_t last = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    if (values[i].first == values[last].first) {
      values[last].second += values[i].second;
    } else {
      values[++last] = values[i];
    }
  }
  values.resize(std::min(values.size(), last + 1));
  return values;
}

}  // namespace

std::vector<double> quantile_edges(Counted counted, int64_t wanted) {
  const Counted values = merged(std::move(counted));
  const auto buckets = static_cast<double>(wanted);
  uint64_t total = 0, below = 0;
  for (const auto& [_, count] : values) total += count;
  std::vector<double> edges;
  const auto cut_before = [&](size_t i) {
    if (i > 0 && i < values.size() && (edges.empty() || values[i].first > edges.back()))
      edges.push_back(values[i].first);
  };
  double share = 1;  // the end of the next bucket, in buckets
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t above = below + values[i].second;
    while (share < buckets) {
      const double end = share * static_cast<double>(total) / buckets;
      if (end >= static_cast<double>(above)) break;
      const bool nearer_after = static_cast<double>(above) - end < end - static_cast<double>(below);
      cut_before(nearer_after ? i + 1 : i);
      // What remains of the shares inside this value cuts after it or not at all.
      share = nearer_after
                  ? std::max(share + 1,
                             std::ceil(static_cast<double>(above) * buckets / static_cast<double>(total)))
                  : share + 1;
    }
    below = above;
  }
  return edges;
}

}  // namespace mixrec::packing

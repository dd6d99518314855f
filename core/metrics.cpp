#include "mixrec/core/metrics.h"

#include "mixrec/core/error.h"
#include "mixrec/core/list_metrics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

namespace mixrec {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Rows {
  std::span<const float> logits, labels;
  std::span<const float> weights;  // empty = all 1
  float positive_from;             // labels are stored in f32, and compared there

  bool positive(size_t row) const { return labels[row] >= positive_from; }
  size_t size() const { return logits.size(); }
  double weight(size_t row) const { return weights.empty() ? 1.0 : weights[row]; }
};

// An unsigned number that orders as the float does; -0 and 0 are equal.
uint32_t sortable(float value) {
  const auto bits = std::bit_cast<uint32_t>(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Row numbers by rising score, ties by row number.
std::vector<uint32_t> order_by_score(std::span<const float> logits) {
  MR_CHECK(logits.size() <= std::numeric_limits<uint32_t>::max(), "metrics of ", logits.size(),
           " rows: at most 2^32 - 1 fit");
  std::vector<uint64_t> keys(logits.size());
  for (size_t row = 0; row < keys.size(); ++row) keys[row] = uint64_t{sortable(logits[row])} << 32 | row;
  std::sort(keys.begin(), keys.end());
  std::vector<uint32_t> order(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) order[i] = static_cast<uint32_t>(keys[i]);
  return order;
}

// AUC over rows that are already in rising order of score.
double auc_of_ordered(const Rows& rows, std::span<const uint32_t> order) {
  RankSum ranks;
  for (size_t i = 0; i < order.size();) {
    const float score = rows.logits[order[i]];
    double tied_positives = 0, tied_negatives = 0;
    for (; i < order.size() && rows.logits[order[i]] == score; ++i)
      (rows.positive(order[i]) ? tied_positives : tied_negatives) += rows.weight(order[i]);
    ranks.add(tied_positives, tied_negatives);
  }
  return ranks.auc();
}

// Row numbers group by group, by rising score inside each.
struct GroupedRows {
  std::vector<uint32_t> rows;
  std::vector<size_t> ends;  // of each group

  // f(rows of one group) for every group
  template <class F>
  void for_each(F&& f) const {
    size_t begin = 0;
    for (const size_t end : ends) {
      f(std::span(rows).subspan(begin, end - begin));
      begin = end;
    }
  }
};

GroupedRows group_rows(std::span<const uint32_t> order, std::span<const int64_t> groups) {
  std::unordered_map<int64_t, uint32_t> number;
  std::vector<uint32_t> group_of(groups.size());
  GroupedRows result;
  std::vector<size_t>& ends = result.ends;
  for (size_t row = 0; row < groups.size(); ++row) {
    const auto [it, is_new] = number.try_emplace(groups[row], static_cast<uint32_t>(number.size()));
    if (is_new) ends.push_back(0);
    group_of[row] = it->second;
    ++ends[it->second];
  }
  // A counting sort by group keeps the order by score inside each.
  size_t begin = 0;
  for (size_t& end : ends) begin += std::exchange(end, begin);
  result.rows.resize(order.size());
  for (const uint32_t row : order) result.rows[ends[group_of[row]]++] = row;
  return result;
}

GroupedAuc grouped_auc(const Rows& rows, const GroupedRows& groups) {
  GroupedAuc result;
  double sum = 0, weighted_sum = 0, impressions = 0;
  groups.for_each([&](std::span<const uint32_t> group) {
    const double value = auc_of_ordered(rows, group);
    if (std::isnan(value)) {
      ++result.skipped;
      return;
    }
    const auto size = static_cast<double>(group.size());
    ++result.used;
    sum += value;
    weighted_sum += value * size;
    impressions += size;
  });
  result.mean = result.used ? sum / static_cast<double>(result.used) : kNaN;
  result.by_impressions = result.used ? weighted_sum / impressions : kNaN;
  return result;
}

double list_value(const MetricName& name, std::span<const RankedRow> list) {
  switch (name.kind) {
    case MetricKind::ndcg:
      return list_ndcg(list, name.k);
    case MetricKind::mrr:
      return list_mrr(list);
    default:
      return list_hit(list, name.k);
  }
}

// Fills `means`, which have their names, from the lists of one grouping.
void list_means(const Rows& rows, const GroupedRows& groups, bool ranked, std::span<ListMean* const> means) {
  std::vector<double> sums(means.size()), weights(means.size());
  std::vector<RankedRow> list;
  groups.for_each([&](std::span<const uint32_t> group) {
    list.clear();
    double weight = 0;
    for (size_t i = group.size(); i-- > 0;) {
      list.push_back({rows.logits[group[i]], rows.labels[group[i]], rows.positive(group[i])});
      weight += rows.weight(group[i]);
    }
    weight /= static_cast<double>(group.size());
    for (size_t m = 0; m < means.size(); ++m) {
      // The grades of NDCG are the labels themselves; nothing has to say which are positive.
      const bool exists = ranked || means[m]->name.kind == MetricKind::ndcg;
      const double value = exists ? list_value(means[m]->name, list) : kNaN;
      ++(std::isnan(value) ? means[m]->skipped : means[m]->used);
      if (std::isnan(value)) continue;
      sums[m] += weight * value;
      weights[m] += weight;
    }
  });
  for (size_t m = 0; m < means.size(); ++m) means[m]->mean = means[m]->used ? sums[m] / weights[m] : kNaN;
}

GroupedAuc no_groups() { return {kNaN, kNaN, 0, 0}; }

double probability(double logit) { return 1.0 / (1.0 + std::exp(-logit)); }

// -log(1 - p) = log(1 + exp(z)), finite for any finite logit.
double softplus(double z) { return std::max(z, 0.0) + std::log1p(std::exp(-std::abs(z))); }

// A class that the label does not have adds nothing, not even at an infinite logit.
double log_loss_of(double logit, double label) {
  return (label > 0 ? label * softplus(-logit) : 0) + (label < 1 ? (1 - label) * softplus(logit) : 0);
}

std::vector<CalibrationBin> calibration_bins(const Rows& rows, std::span<const uint32_t> order) {
  constexpr size_t kBins = 10;
  std::vector<CalibrationBin> bins(kBins);
  std::vector<double> weights(kBins);
  size_t bin = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const uint32_t row = order[i];
    if (i == 0 || rows.logits[row] != rows.logits[order[i - 1]]) bin = i * kBins / order.size();
    const double weight = rows.weight(row);
    ++bins[bin].rows;
    weights[bin] += weight;
    bins[bin].predicted += weight * probability(rows.logits[row]);
    bins[bin].observed += weight * rows.labels[row];
  }
  for (size_t b = 0; b < kBins; ++b) bins[b].predicted /= weights[b], bins[b].observed /= weights[b];
  std::erase_if(bins, [](const CalibrationBin& b) { return b.rows == 0; });
  return bins;
}

template <class T>
void append(std::vector<T>& to, std::span<const T> from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

void BinaryMeter::add(std::span<const float> logits, std::span<const float> labels,
                      std::span<const float> weights, std::span<const int64_t> users,
                      std::span<const int64_t> requests) {
  const size_t n = logits.size();
  const auto check_length = [n](const char* what, size_t length, bool optional) {
    MR_CHECK(length == n || (optional && length == 0), "metrics: ", n, " logits and ", length, " ", what);
  };
  check_length("labels", labels.size(), false);
  check_length("weights", weights.size(), true);
  check_length("users", users.size(), true);
  check_length("requests", requests.size(), true);
  MR_CHECK(
      logits_.empty() || n == 0 || (users.empty() == users_.empty() && requests.empty() == requests_.empty()),
      "metrics: users and requests are given in every batch or in none");
  for (size_t i = 0; i < n; ++i) {
    const float weight = weights.empty() ? 1.0f : weights[i];
    if (weight == 0) continue;
    MR_CHECK(weight > 0 && std::isfinite(weight), "metrics: weight ", weight, " is not a finite number >= 0");
    MR_CHECK(labels[i] >= 0 && labels[i] <= 1, "metrics: label ", labels[i], " is not in [0, 1]");
    MR_CHECK(!std::isnan(logits[i]), "metrics: a logit is NaN");
    if (weight != 1 && weights_.empty()) weights_.assign(logits_.size(), 1.0f);
    logits_.push_back(logits[i]);
    labels_.push_back(labels[i]);
    if (weight != 1 || !weights_.empty()) weights_.push_back(weight);
    if (!users.empty()) users_.push_back(users[i]);
    if (!requests.empty()) requests_.push_back(requests[i]);
  }
}

void BinaryMeter::merge(const BinaryMeter& other) {
  MR_CHECK(logits_.empty() || other.logits_.empty() ||
               (users_.empty() == other.users_.empty() && requests_.empty() == other.requests_.empty()),
           "metrics: users and requests are given in every part or in none");
  if (!weights_.empty() || !other.weights_.empty()) {
    weights_.resize(logits_.size(), 1.0f);
    append<float>(weights_, other.weights_);
    weights_.resize(logits_.size() + other.logits_.size(), 1.0f);
  }
  append<float>(logits_, other.logits_);
  append<float>(labels_, other.labels_);
  append<int64_t>(users_, other.users_);
  append<int64_t>(requests_, other.requests_);
}

double* BinaryMetrics::field(const MetricName& name) {
  switch (name.kind) {
    case MetricKind::auc:
      return &auc;
    case MetricKind::uauc:
      return &user.mean;
    case MetricKind::request_auc:
      return &request.mean;
    case MetricKind::log_loss:
      return &log_loss;
    case MetricKind::normalised_entropy:
      return &normalised_entropy;
    case MetricKind::calibration:
      return &calibration;
    case MetricKind::rmse:
      return &rmse;
    case MetricKind::mae:
      return &mae;
    default:
      break;
  }
  const auto list =
      std::find_if(lists.begin(), lists.end(), [&](const ListMean& one) { return one.name == name; });
  return list == lists.end() ? nullptr : &list->mean;
}

double BinaryMetrics::value(const MetricName& name) const {
  const double* field = const_cast<BinaryMetrics*>(this)->field(name);
  return field ? *field : kNaN;
}

BinaryMetrics BinaryMeter::compute(std::span<const MetricName> names) const {
  const Rows rows{logits_, labels_, weights_, static_cast<float>(positive_from_.value_or(1))};
  const std::vector<uint32_t> order = order_by_score(rows.logits);
  BinaryMetrics result;
  result.names.assign(names.begin(), names.end());
  result.rows = this->rows();
  double weight = 0, predicted = 0, observed = 0, loss = 0, squares = 0, distances = 0;
  for (size_t row = 0; row < rows.size(); ++row) {
    const double w = rows.weight(row), p = probability(rows.logits[row]), distance = p - rows.labels[row];
    weight += w;
    predicted += w * p;
    squares += w * distance * distance;
    distances += w * std::abs(distance);
    observed += w * rows.labels[row];
    loss += w * log_loss_of(rows.logits[row], rows.labels[row]);
    result.positives += rows.positive(row);
    result.fractional += rows.labels[row] > 0 && rows.labels[row] < 1;
  }
  const double mean = observed / weight;
  const double entropy =
      -(mean * std::log(mean) + (1 - mean) * std::log1p(-mean));  // NaN with a single class
  result.mean_label = mean;
  result.log_loss = loss / weight;
  result.normalised_entropy = result.log_loss / entropy;
  result.calibration = observed > 0 ? predicted / observed : kNaN;
  result.rmse = std::sqrt(squares / weight);
  result.mae = distances / weight;
  const bool ranked = result.fractional == 0 || positive_from_;
  result.auc = ranked ? auc_of_ordered(rows, order) : kNaN;
  for (const MetricName& name : names)
    if (name.of_lists()) result.lists.push_back({name, kNaN, 0, 0});
  const auto judge = [&](std::span<const int64_t> groups, bool by_user) {
    if (groups.empty()) return no_groups();
    const GroupedRows grouped = group_rows(order, groups);
    std::vector<ListMean*> means;
    for (ListMean& list : result.lists)
      if (list.name.by_user == by_user) means.push_back(&list);
    list_means(rows, grouped, ranked, means);
    return ranked ? grouped_auc(rows, grouped) : no_groups();
  };
  result.user = judge(users_, true);
  result.request = judge(requests_, false);
  result.deciles = calibration_bins(rows, order);
  return result;
}

double auc(std::span<const float> scores, std::span<const float> labels, std::span<const float> weights) {
  BinaryMeter meter;
  meter.add(scores, labels, weights);
  return meter.compute().auc;
}

}  // namespace mixrec

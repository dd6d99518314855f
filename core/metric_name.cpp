#include "mixrec/core/metric_name.h"

#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

namespace mixrec {

namespace {

struct Known {
  const char *name, *label;
  MetricKind kind;
  bool has_k, by_user;
};

constexpr Known kKnown[] = {
    {"auc", "AUC", MetricKind::auc, false, false},
    {"uauc", "UAUC", MetricKind::uauc, false, true},
    {"request_auc", "request AUC", MetricKind::request_auc, false, false},
    {"log_loss", "log loss", MetricKind::log_loss, false, false},
    {"normalised_entropy", "NE", MetricKind::normalised_entropy, false, false},
    {"calibration", "calibration", MetricKind::calibration, false, false},
    {"rmse", "RMSE", MetricKind::rmse, false, false},
    {"mae", "MAE", MetricKind::mae, false, false},
    {"ndcg", "NDCG", MetricKind::ndcg, true, false},
    {"mrr", "MRR", MetricKind::mrr, false, false},
    {"hr", "HR", MetricKind::hr, true, false},
    {"user_ndcg", "user NDCG", MetricKind::ndcg, true, true},
    {"user_mrr", "user MRR", MetricKind::mrr, false, true},
    {"user_hr", "user HR", MetricKind::hr, true, true},
};

std::string all_names() {
  std::string names;
  for (const Known& known : kKnown) {
    if (!names.empty()) names += ", ";
    names.append(known.name).append(known.has_k ? "@k" : "");
  }
  return names;
}

// A whole number without sign, spaces or leading zeros.
std::optional<int64_t> plain_number(std::string_view digits) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  const bool whole = error == std::errc() && end == digits.data() + digits.size();
  if (!whole || std::to_string(value) != digits) return {};
  return value;
}

}  // namespace

MetricName parse_metric(const std::string& text, const std::string& what) {
  const size_t at = text.find('@');
  const std::string name = text.substr(0, at);
  const auto* known =
      std::find_if(std::begin(kKnown), std::end(kKnown), [&](const Known& one) { return one.name == name; });
  if (known == std::end(kKnown))
    throw Error(
        concat_message(what, ": there is no metric '", printable(text), "', there are ", all_names()));
  MetricName metric{known->kind, 0, known->by_user, text};
  if (!known->has_k) {
    if (at != std::string::npos)
      throw Error(concat_message(what, ": '", printable(text), "' takes no k, write ", name));
    return metric;
  }
  const auto k = at == std::string::npos ? std::nullopt : plain_number(std::string_view(text).substr(at + 1));
  if (!k || *k < 1 || *k > kMostListK)
    throw Error(concat_message(what, ": '", printable(text), "' needs a k between 1 and ", kMostListK,
                               ", as in ", name, "@10"));
  metric.k = *k;
  return metric;
}

std::string metric_label(const MetricName& name) {
  const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown), [&](const Known& one) {
    return one.kind == name.kind && (!name.of_lists() || one.by_user == name.by_user);
  });
  std::string label = known->label;
  if (known->has_k) label.append(1, '@').append(std::to_string(name.k));
  return label;
}

double goodness(MetricKind kind, double value) {
  switch (kind) {
    case MetricKind::log_loss:
    case MetricKind::normalised_entropy:
    case MetricKind::rmse:
    case MetricKind::mae:
      return -value;
    case MetricKind::calibration:
      return -std::abs(std::log(value));
    default:
      return value;
  }
}

const std::vector<std::string>& default_metrics() {
  static const std::vector<std::string> names = {
      "auc", "uauc", "log_loss", "normalised_entropy", "calibration", "request_auc"};
  return names;
}

std::vector<MetricName> parse_metrics_list(const std::vector<std::string>& names, const std::string& what) {
  std::vector<MetricName> metrics;
  for (const std::string& name : names) {
    MetricName metric = parse_metric(name, what);
    if (std::find(metrics.begin(), metrics.end(), metric) == metrics.end())
      metrics.push_back(std::move(metric));
  }
  return metrics;
}

}  // namespace mixrec

#include "mixrec/core/list_metrics.h"

#include "mixrec/core/error.h"
#include "mixrec/core/metrics.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <fstream>
#include <map>
#include <numeric>
#include <string>

using namespace mixrec;

namespace {

// The integer generator of tests/oracle/metrics.py.
struct Generator {
  uint64_t state;
  uint64_t next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
  }
};

struct Data {
  std::vector<float> logits, labels, weights;
  std::vector<int64_t> groups;
};

Data generate(uint64_t seed, int rows, uint64_t groups, uint64_t levels, bool weighted, bool graded) {
  Generator g{seed};
  Data data;
  for (int i = 0; i < rows; ++i) {
    const double logit = static_cast<double>(g.next() % levels) / static_cast<double>(levels) * 6 - 3;
    data.logits.push_back(static_cast<float>(logit));
    const bool positive = static_cast<double>(g.next() % 100) < 35 + 10 * logit;
    data.labels.push_back(graded ? static_cast<float>(i * 7 % 5) / 4 : positive ? 1.0f : 0.0f);
    data.weights.push_back(weighted ? static_cast<float>(g.next() % 5) / 2 : 1.0f);
    data.groups.push_back(static_cast<int64_t>(g.next() % groups));
  }
  return data;
}

std::vector<MetricName> names(const std::vector<std::string>& texts) {
  return parse_metrics_list(texts, "metrics");
}

constexpr double kPositiveFrom = 0.75;

BinaryMetrics metrics_of(const Data& data, const std::vector<std::string>& lists) {
  BinaryMeter meter(kPositiveFrom);
  meter.add(data.logits, data.labels, data.weights, data.groups, data.groups);
  return meter.compute(names(lists));
}

// A list's metrics from their definition, as the mean over every order of the rows in which no score rises.
struct Judged {
  double ndcg = 0, mrr = 0, hit = 0;
};

Judged over_all_orders(const std::vector<RankedRow>& rows, size_t k) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0);
  Judged sum;
  double orders = 0, ideal = 0;
  const auto dcg = [&] {
    double value = 0;
    for (size_t r = 0; r < std::min(k, rows.size()); ++r)
      value += (std::pow(2.0, double{rows[order[r]].label}) - 1) / std::log2(static_cast<double>(r) + 2);
    return value;
  };
  do {
    ideal = std::max(ideal, dcg());
    const bool falls = std::is_sorted(order.begin(), order.end(),
                                      [&](size_t a, size_t b) { return rows[a].score > rows[b].score; });
    if (!falls) continue;
    ++orders;
    sum.ndcg += dcg();
    for (size_t r = 0; r < rows.size(); ++r) {
      if (!rows[order[r]].positive) continue;
      sum.mrr += 1 / static_cast<double>(r + 1);
      sum.hit += r < k;
      break;
    }
  } while (std::next_permutation(order.begin(), order.end()));
  return {sum.ndcg / orders / ideal, sum.mrr / orders, sum.hit / orders};
}

}  // namespace

TEST_SUITE("list metrics") {
  TEST_CASE("NDCG, MRR, HR, RMSE and MAE equal scikit-learn's and ranx's on random, tied and weighted rows") {
    std::ifstream golden("tests/oracle/list_metrics.txt");
    REQUIRE(golden);
    std::string name;
    int cases = 0;
    for (uint64_t seed; golden >> name >> seed; ++cases) {
      CAPTURE(name);
      int rows, groups, levels, weighted, graded;
      golden >> rows >> groups >> levels >> weighted >> graded;
      double expected[10];
      for (double& value : expected) golden >> value;
      const Data data = generate(seed, rows, groups, levels, weighted, graded);
      for (const std::string by : {"", "user_"}) {
        const BinaryMetrics m = metrics_of(
            data, {by + "ndcg@1", by + "ndcg@3", by + "ndcg@10", by + "mrr", by + "hr@1", by + "hr@3"});
        REQUIRE(m.lists.size() == 6);
        std::vector<double> got;
        for (const ListMean& list : m.lists) got.push_back(list.mean);
        got.push_back(static_cast<double>(m.lists[0].used));
        got.push_back(static_cast<double>(m.lists[3].used));
        got.push_back(m.rmse), got.push_back(m.mae);
        for (size_t i = 0; i < got.size(); ++i) {
          CAPTURE(i);
          CHECK(std::abs(got[i] - expected[i]) <= 1e-12 * std::abs(expected[i]));
        }
        CHECK(m.lists[5].used == m.lists[3].used);
      }
    }
    CHECK(cases == 7);
  }

  TEST_CASE("a list's metrics are the mean over all orders of its tied rows") {
    Generator g{5};
    int undefined = 0;
    for (int trial = 0; trial < 60; ++trial) {
      std::vector<RankedRow> rows(1 + g.next() % 6);
      const uint64_t levels = 1 + g.next() % 4;
      for (RankedRow& row : rows) {
        row.score = static_cast<float>(g.next() % levels);
        row.label = static_cast<float>(g.next() % 4) / 3;
        row.positive = row.label >= 0.5f;
      }
      std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
      const bool positive = std::any_of(rows.begin(), rows.end(), [](const auto& r) { return r.positive; });
      const bool graded = std::any_of(rows.begin(), rows.end(), [](const auto& r) { return r.label > 0; });
      undefined += !graded;
      for (const int64_t k : {1, 2, 4, 100}) {
        CAPTURE(k);
        const Judged expected = over_all_orders(rows, static_cast<size_t>(k));
        CHECK(std::isnan(list_ndcg(rows, k)) == !graded);
        CHECK(std::isnan(list_mrr(rows)) == !positive);
        CHECK(std::isnan(list_hit(rows, k)) == !positive);
        if (graded) CHECK(list_ndcg(rows, k) == doctest::Approx(expected.ndcg).epsilon(1e-12));
        if (!positive) continue;
        CHECK(list_mrr(rows) == doctest::Approx(expected.mrr).epsilon(1e-12));
        CHECK(list_hit(rows, k) == doctest::Approx(expected.hit).epsilon(1e-12));
      }
    }
    CHECK(undefined > 0);
  }

  TEST_CASE("two parts that are merged give the numbers of the whole, lists that were cut included") {
    const Data data = generate(41, 500, 40, 6, true, true);
    const std::vector<MetricName> lists = names({"ndcg@5", "mrr", "hr@2", "user_ndcg@5"});
    BinaryMeter whole(kPositiveFrom), parts[2] = {BinaryMeter(kPositiveFrom), BinaryMeter(kPositiveFrom)};
    whole.add(data.logits, data.labels, data.weights, data.groups, data.groups);
    for (const size_t half : {0, 1}) {
      const auto part = [&](const auto& column) {
        return std::span(column).subspan(230 * half, half ? 270 : 230);
      };
      parts[half].add(part(data.logits), part(data.labels), part(data.weights), part(data.groups),
                      part(data.groups));
    }
    parts[0].merge(parts[1]);
    const BinaryMetrics a = whole.compute(lists), b = parts[0].compute(lists);
    CHECK(a.rmse == b.rmse);
    CHECK(a.mae == b.mae);
    for (size_t i = 0; i < lists.size(); ++i) {
      CHECK(a.lists[i].mean == b.lists[i].mean);
      CHECK(a.lists[i].used == b.lists[i].used);
      CHECK(a.lists[i].skipped == b.lists[i].skipped);
    }
    CHECK(a.lists[0].mean == a.lists[3].mean);
  }

  TEST_CASE("lists by request and by user are told apart, and what does not exist is NaN") {
    const std::vector<float> logits = {3, 2, 1, 0}, labels = {0, 1, 0, 0};
    const std::vector<int64_t> users = {1, 1, 1, 1}, requests = {1, 2, 1, 2};
    const std::vector<MetricName> lists = names({"mrr", "user_mrr", "auc", "hr@1", "user_hr@1"});
    BinaryMeter meter;
    meter.add(logits, labels, {}, users, requests);
    const BinaryMetrics m = meter.compute(lists);
    REQUIRE(m.lists.size() == 4);  // the AUC is no list metric
    CHECK(m.lists[0].mean == 1);
    CHECK(m.lists[0].skipped == 1);
    CHECK(m.lists[1].mean == 0.5);
    CHECK(m.lists[2].mean == 1);
    CHECK(m.lists[3].mean == 0);

    BinaryMeter none, nothing, fractional;
    none.add(logits, labels);  // neither users nor requests
    for (const ListMean& list : none.compute(lists).lists) CHECK(std::isnan(list.mean));
    CHECK(std::isnan(nothing.compute(lists).rmse));
    CHECK(std::isnan(nothing.compute(lists).lists[0].mean));

    // Grades need no threshold, positives do.
    fractional.add(logits, std::vector<float>{0, 0.5f, 1, 0}, {}, users, users);
    const BinaryMetrics graded = fractional.compute(names({"ndcg@3", "mrr"}));
    const double half = std::sqrt(2.0) - 1, second = 1 / std::log2(3.0);
    CHECK(graded.lists[0].mean ==
          doctest::Approx((half * second + 0.5) / (1 + half * second)).epsilon(1e-12));
    CHECK(std::isnan(graded.lists[1].mean));
    CHECK(graded.lists[1].used == 0);
  }

  TEST_CASE("metrics have names, a k in its range, and a direction") {
    const MetricName name = parse_metric("user_ndcg@10", "x");
    CHECK(name.kind == MetricKind::ndcg);
    CHECK(name.k == 10);
    CHECK(name.by_user);
    CHECK(parse_metric("hr@1000000", "x").k == 1000000);
    CHECK_FALSE(parse_metric("mrr", "x").by_user);
    CHECK(parse_metrics_list({"auc", "mrr", "auc"}, "x").size() == 2);
    for (const std::string& text : default_metrics()) CHECK(parse_metric(text, "x").text == text);

    const auto message = [](const std::string& text) {
      try {
        parse_metric(text, "train.metrics");
      } catch (const Error& error) {
        return std::string(error.what());
      }
      return std::string();
    };
    CHECK(message("ndgc@10").find("train.metrics: there is no metric 'ndgc@10', there are auc, uauc") == 0);
    CHECK(message("").find("there is no metric ''") != std::string::npos);
    CHECK(message("NDCG@10").find("there is no metric") != std::string::npos);
    for (const std::string bad : {"ndcg", "ndcg@", "ndcg@0", "ndcg@-3", "ndcg@05", "ndcg@1.5", "ndcg@1000001",
                                  "hr@x", "user_hr@ 5", "hr@99999999999999999999", "hr@5@6"}) {
      CAPTURE(bad);
      CHECK(message(bad).find("needs a k between 1 and 1000000") != std::string::npos);
    }
    CHECK(message("mrr@10") == "train.metrics: 'mrr@10' takes no k, write mrr");
    CHECK(message("auc@").find("takes no k") != std::string::npos);

    CHECK(goodness(MetricKind::ndcg, 0.5) == 0.5);
    for (const MetricKind kind :
         {MetricKind::log_loss, MetricKind::normalised_entropy, MetricKind::rmse, MetricKind::mae})
      CHECK(goodness(kind, 0.5) == -0.5);
    CHECK(goodness(MetricKind::calibration, 1) > goodness(MetricKind::calibration, 1.2));
    CHECK(goodness(MetricKind::calibration, 0.5) == doctest::Approx(goodness(MetricKind::calibration, 2)));
  }
}

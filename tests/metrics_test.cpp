#include "mixrec/core/metrics.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <fstream>
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
  std::vector<int64_t> users;
};

Data generate(uint64_t seed, int rows, uint64_t users, uint64_t levels, bool weighted) {
  Generator g{seed};
  Data data;
  for (int i = 0; i < rows; ++i) {
    const double logit = static_cast<double>(g.next() % levels) / static_cast<double>(levels) * 6 - 3;
    data.logits.push_back(static_cast<float>(logit));
    data.labels.push_back(static_cast<double>(g.next() % 100) < 35 + 10 * logit ? 1.0f : 0.0f);
    data.weights.push_back(weighted ? static_cast<float>(g.next() % 5) / 2 : 1.0f);
    data.users.push_back(static_cast<int64_t>(g.next() % users));
  }
  return data;
}

// AUC from its definition: all pairs of a positive and a negative.
double all_pairs(const Data& data, int64_t user = -1) {
  double wins = 0, pairs = 0;
  for (size_t i = 0; i < data.logits.size(); ++i) {
    for (size_t j = 0; j < data.logits.size(); ++j) {
      if (user >= 0 && (data.users[i] != user || data.users[j] != user)) continue;
      if (data.labels[i] != 1 || data.labels[j] != 0) continue;
      const double weight = static_cast<double>(data.weights[i]) * data.weights[j];
      pairs += weight;
      if (data.logits[i] > data.logits[j]) wins += weight;
      if (data.logits[i] == data.logits[j]) wins += weight / 2;
    }
  }
  return wins / pairs;
}

BinaryMetrics metrics_of(const Data& data) {
  BinaryMeter meter;
  meter.add(data.logits, data.labels, data.weights, data.users, data.users);
  return meter.compute();
}

bool same(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b; }

}  // namespace

TEST_SUITE("metrics") {
  TEST_CASE("metrics equal scikit-learn's on random, tied and weighted rows") {
    std::ifstream golden("tests/oracle/metrics.txt");
    REQUIRE(golden);
    std::string name;
    int cases = 0;
    for (uint64_t seed; golden >> name >> seed; ++cases) {
      CAPTURE(name);
      int rows, users, levels, weighted;
      double expected[8];
      golden >> rows >> users >> levels >> weighted;
      for (double& value : expected) golden >> value;
      const BinaryMetrics m = metrics_of(generate(seed, rows, users, levels, weighted));
      const double got[8] = {m.auc,
                             m.user.mean,
                             m.user.by_impressions,
                             static_cast<double>(m.user.used),
                             static_cast<double>(m.user.skipped),
                             m.log_loss,
                             m.normalised_entropy,
                             m.calibration};
      for (int i = 0; i < 8; ++i) {
        CAPTURE(i);
        CHECK(std::abs(got[i] - expected[i]) <= 1e-9 * std::abs(expected[i]));
      }
    }
    CHECK(cases == 5);
  }

  TEST_CASE("auc equals the count over all pairs, overall and inside users") {
    for (const bool weighted : {false, true}) {
      for (const uint64_t levels : {1, 2, 5, 1000}) {
        CAPTURE(levels);
        const Data data = generate(7 + levels, 150, 6, levels, weighted);
        const BinaryMetrics m = metrics_of(data);
        CHECK(m.auc == doctest::Approx(all_pairs(data)).epsilon(1e-12));
        double sum = 0;
        int used = 0;
        for (int user = 0; user < 6; ++user) {
          const double value = all_pairs(data, user);
          if (!std::isnan(value)) sum += value, ++used;
        }
        CHECK(m.user.used == used);
        CHECK(m.user.mean == doctest::Approx(sum / used).epsilon(1e-12));
        CHECK(m.request.mean == m.user.mean);
      }
    }
  }

  TEST_CASE("the AUC by request is over requests, the AUC by user over users") {
    const Data data = generate(21, 400, 8, 30, true);
    Data by_request = data;
    for (size_t i = 0; i < data.users.size(); ++i) by_request.users[i] = static_cast<int64_t>(i) / 9;
    BinaryMeter meter;
    meter.add(data.logits, data.labels, data.weights, data.users, by_request.users);
    const BinaryMetrics m = meter.compute();
    const auto mean_over = [](const Data& groups, int64_t count) {
      double sum = 0, used = 0;
      for (int64_t g = 0; g < count; ++g) {
        const double value = all_pairs(groups, g);
        if (!std::isnan(value)) sum += value, ++used;
      }
      return sum / used;
    };
    CHECK(m.user.mean == doctest::Approx(mean_over(data, 8)).epsilon(1e-12));
    CHECK(m.request.mean == doctest::Approx(mean_over(by_request, 45)).epsilon(1e-12));
    CHECK(std::abs(m.user.mean - m.request.mean) > 1e-3);

    // The same from two halves.
    BinaryMeter halves[2];
    for (const size_t half : {0, 1}) {
      const auto part = [&](const auto& column) { return std::span(column).subspan(200 * half, 200); };
      halves[half].add(part(data.logits), part(data.labels), part(data.weights), part(data.users),
                       part(by_request.users));
    }
    halves[0].merge(halves[1]);
    CHECK(halves[0].compute().request.mean == m.request.mean);
  }

  TEST_CASE("the order of rows and the split into batches do not matter") {
    Data data = generate(11, 999, 50, 20, true);
    const BinaryMetrics whole = metrics_of(data);

    BinaryMeter parts, first, second;
    for (size_t begin = 0; begin < 999; begin += 100) {
      const size_t n = std::min<size_t>(100, 999 - begin);
      BinaryMeter& half = begin < 500 ? first : second;
      for (BinaryMeter* meter : {&parts, &half})
        meter->add(std::span(data.logits).subspan(begin, n), std::span(data.labels).subspan(begin, n),
                   std::span(data.weights).subspan(begin, n), std::span(data.users).subspan(begin, n),
                   std::span(data.users).subspan(begin, n));
    }
    first.merge(second);
    for (const BinaryMeter* meter : {&parts, &first}) {
      const BinaryMetrics m = meter->compute();
      CHECK(m.rows == whole.rows);
      CHECK(m.auc == whole.auc);
      CHECK(m.user.mean == whole.user.mean);
      CHECK(m.log_loss == whole.log_loss);
    }

    for (auto* column : {&data.logits, &data.labels, &data.weights})
      std::reverse(column->begin(), column->end());
    std::reverse(data.users.begin(), data.users.end());
    CHECK(metrics_of(data).auc == doctest::Approx(whole.auc).epsilon(1e-14));
  }

  TEST_CASE("fractional labels: every metric from its definition, rankings by a threshold") {
    for (const bool weighted : {false, true}) {
      CAPTURE(weighted);
      Data data = generate(11, 200, 7, 12, weighted);
      for (size_t i = 0; i < data.labels.size(); ++i) data.labels[i] = static_cast<float>(i % 11) / 10;
      double weights = 0, labels = 0, predicted = 0, loss = 0;
      for (size_t i = 0; i < data.labels.size(); ++i) {
        const double p = 1 / (1 + std::exp(-double{data.logits[i]})), y = data.labels[i], w = data.weights[i];
        weights += w, labels += w * y, predicted += w * p;
        loss -= w * (y * std::log(p) + (1 - y) * std::log(1 - p));
      }
      const double mean = labels / weights;
      BinaryMeter meter(0.7);
      meter.add(data.logits, data.labels, data.weights, data.users, data.users);
      const BinaryMetrics m = meter.compute();
      CHECK(m.log_loss == doctest::Approx(loss / weights).epsilon(1e-12));
      const double constant = -mean * std::log(mean) - (1 - mean) * std::log(1 - mean);
      CHECK(m.normalised_entropy == doctest::Approx(loss / weights / constant).epsilon(1e-12));
      CHECK(m.calibration == doctest::Approx(predicted / labels).epsilon(1e-12));
      CHECK(m.mean_label == doctest::Approx(mean).epsilon(1e-12));

      Data by_class = data;  // a label that equals the threshold is positive
      for (float& label : by_class.labels) label = label >= 0.7f ? 1.0f : 0.0f;
      CHECK(m.auc == doctest::Approx(all_pairs(by_class)).epsilon(1e-12));
      CHECK(m.user.mean == metrics_of(by_class).user.mean);

      const BinaryMetrics unranked = metrics_of(data);  // nothing says which labels are positive
      CHECK(unranked.log_loss == m.log_loss);
      CHECK(std::isnan(unranked.auc));
      CHECK(std::isnan(unranked.user.mean));
      CHECK(std::isnan(unranked.request.mean));
      CHECK(unranked.request.used == 0);
    }
  }

  TEST_CASE("the request AUC is over requests, the user AUC over users") {
    Data data = generate(17, 240, 5, 9, true);
    std::vector<int64_t> requests;
    for (size_t i = 0; i < data.users.size(); ++i) requests.push_back(static_cast<int64_t>(i / 8));
    BinaryMeter meter;
    meter.add(data.logits, data.labels, data.weights, data.users, requests);
    const BinaryMetrics m = meter.compute();
    const auto mean_over = [&](const std::vector<int64_t>& groups, int count) {
      Data grouped = data;
      grouped.users = groups;
      double sum = 0, rows = 0, weighted = 0;
      for (int group = 0; group < count; ++group) {
        const double value = all_pairs(grouped, group);
        if (std::isnan(value)) continue;
        double size = 0;
        for (size_t i = 0; i < groups.size(); ++i) size += groups[i] == group && data.weights[i] > 0;
        sum += value, rows += size, weighted += value * size;
      }
      return std::pair(sum, weighted / rows);
    };
    const auto [user_sum, user_weighted] = mean_over(data.users, 5);
    const auto [request_sum, request_weighted] = mean_over(requests, 30);
    CHECK(m.user.mean == doctest::Approx(user_sum / 5).epsilon(1e-12));
    CHECK(m.user.by_impressions == doctest::Approx(user_weighted).epsilon(1e-12));
    CHECK(m.request.mean ==
          doctest::Approx(request_sum / static_cast<double>(m.request.used)).epsilon(1e-12));
    CHECK(m.request.by_impressions == doctest::Approx(request_weighted).epsilon(1e-12));
    CHECK(m.request.used + m.request.skipped == 30);
    CHECK(m.request.mean != m.user.mean);
  }

  TEST_CASE("merging parts with and without weights keeps each row's weight") {
    const float logits[] = {0.1f, 0.4f, 0.2f}, labels[] = {0, 1, 1}, weights[] = {1, 3, 0.5f};
    BinaryMeter plain, weighted, both;
    plain.add(logits, labels);
    weighted.add(logits, labels, weights);
    BinaryMeter left = plain;
    left.merge(weighted);
    left.merge(plain);
    const float expected_weights[] = {1, 1, 1, 1, 3, 0.5f, 1, 1, 1};
    const float all_logits[] = {0.1f, 0.4f, 0.2f, 0.1f, 0.4f, 0.2f, 0.1f, 0.4f, 0.2f};
    const float all_labels[] = {0, 1, 1, 0, 1, 1, 0, 1, 1};
    both.add(all_logits, all_labels, expected_weights);
    CHECK(left.compute().log_loss == both.compute().log_loss);
    CHECK(left.compute().auc == both.compute().auc);
  }

  TEST_CASE("edge cases: one class, extreme logits, -0 and 0, rows of weight 0") {
    const std::vector<float> ones = {1, 1}, both = {0, 1};
    CHECK(std::isnan(auc(std::vector<float>{0.5f, 0.2f}, ones)));
    CHECK(auc(std::vector<float>{-0.0f, 0.0f}, both) == 0.5);
    CHECK(auc(std::vector<float>{-INFINITY, INFINITY}, both) == 1.0);

    BinaryMeter meter;
    meter.add(std::vector<float>{-200, 200, 5}, std::vector<float>{0, 1, 0}, std::vector<float>{1, 1, 0});
    const BinaryMetrics m = meter.compute();
    CHECK(m.rows == 2);
    CHECK(m.log_loss == doctest::Approx(0).epsilon(1e-12));
    CHECK(m.calibration == doctest::Approx(1));
    CHECK(same(m.user.mean, NAN));
    CHECK(m.user.used == 0);
  }

  TEST_CASE("deciles hold equal shares of rows, and equal scores stay together") {
    const BinaryMetrics spread = metrics_of(generate(13, 5000, 10, 1000003, false));
    REQUIRE(spread.deciles.size() == 10);
    for (const auto& bin : spread.deciles) CHECK(bin.rows == 500);
    for (size_t b = 1; b < 10; ++b) CHECK(spread.deciles[b].predicted > spread.deciles[b - 1].predicted);

    // Weighted means of what is in a bin, from the definition.
    const Data data = generate(14, 1000, 10, 1000003, true);
    Data counted;  // rows of weight 0 are none
    for (size_t i = 0; i < data.logits.size(); ++i) {
      if (data.weights[i] == 0) continue;
      counted.logits.push_back(data.logits[i]), counted.labels.push_back(data.labels[i]);
      counted.weights.push_back(data.weights[i]);
    }
    const BinaryMetrics weighted = metrics_of(data);
    const auto rows_of = counted.logits.size();
    for (size_t b = 0; b < 10; ++b) {
      double weight = 0, labels = 0, chances = 0;
      for (size_t i = 0; i < rows_of; ++i) {
        const auto below = static_cast<size_t>(std::count_if(counted.logits.begin(), counted.logits.end(),
                                                             [&](float v) { return v < counted.logits[i]; }));
        if (below * 10 / rows_of != b) continue;
        weight += counted.weights[i];
        labels += static_cast<double>(counted.weights[i]) * counted.labels[i];
        chances += counted.weights[i] / (1 + std::exp(-static_cast<double>(counted.logits[i])));
      }
      CHECK(weighted.deciles[b].observed == doctest::Approx(labels / weight).epsilon(1e-9));
      CHECK(weighted.deciles[b].predicted == doctest::Approx(chances / weight).epsilon(1e-9));
    }

    const BinaryMetrics tied = metrics_of(generate(13, 5000, 10, 3, false));
    CHECK(tied.deciles.size() == 3);
    int64_t rows = 0;
    for (const auto& bin : tied.deciles) rows += bin.rows;
    CHECK(rows == 5000);
  }

  TEST_CASE("bad rows are refused") {
    BinaryMeter meter;
    const std::vector<float> one = {0.5f};
    CHECK_THROWS_WITH_AS(meter.add(std::vector<float>{NAN}, std::vector<float>{1}),
                         doctest::Contains("a logit is NaN"), Error);
    CHECK_THROWS_WITH_AS(meter.add(one, std::vector<float>{1.5f}),
                         doctest::Contains("label 1.5 is not in [0, 1]"), Error);
    CHECK_THROWS_WITH_AS(meter.add(one, std::vector<float>{NAN}), doctest::Contains("is not in [0, 1]"),
                         Error);
    CHECK_THROWS_WITH_AS(meter.add(one, std::vector<float>{1, 0}), doctest::Contains("1 logits and 2 labels"),
                         Error);
    CHECK_THROWS_WITH_AS(meter.add(one, std::vector<float>{1}, std::vector<float>{-1}),
                         doctest::Contains("weight -1"), Error);
  }
}

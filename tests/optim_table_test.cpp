// Table rules: against dense twins and brute force, with every kind of look-up.
#include "mixrec/autograd/meta.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/optim/radix_sort.h"
#include "mixrec/tests/optim_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <map>
#include <string>

using namespace mixrec;
using namespace mixrec::test;

namespace {

std::vector<bool> looked_up(const Tensor& table) {
  std::vector<bool> touched(static_cast<size_t>(table.dim(0)));
  for (const auto& lookup : table.meta()->lookups) {
    for (const int64_t id : lookup.ids.to_vector<int64_t>()) touched[static_cast<size_t>(id)] = true;
  }
  return touched;
}

double largest_difference(const Tensor& a, const std::vector<double>& b) {
  const auto values = a.to_vector<double>();
  REQUIRE(values.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < b.size(); ++i) largest = std::max(largest, std::abs(values[i] - b[i]));
  return largest;
}

}  // namespace

TEST_CASE("optim: a row of a table is a dense parameter that steps when it is looked up") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    const std::map<std::string, std::string> twins{
        {"sgd", "sgd"}, {"adagrad", "adagrad"}, {"lazy_adam", "adamw"}};
    constexpr int64_t kRows = 30, kWidth = 11;
    for (const auto& [rule, twin_rule] : twins) {
      CAPTURE(rule);
      Rng rng(3);
      Tensor table = normal({kRows, kWidth}, rng, f64).to(device).requires_grad();
      RuleOptions options{.name = rule, .lr = 0.1, .weight_decay = 0.2};
      if (rule == "adagrad") options.initial_accumulator = 0.3;
      Optimizer optimizer({{"table", table, ParameterKind::table}}, {.tables = options});
      options.name = twin_rule;
      std::vector<Tensor> twins;
      std::vector<Optimizer> twin_optimizers;
      for (int64_t r = 0; r < kRows; ++r) {
        twins.push_back(table.to(kCpu).detach().select(0, r).clone().requires_grad());
        twin_optimizers.push_back(Optimizer({{"row", twins.back()}}, {.dense = options}));
      }
      for (int64_t step = 0; step < 6; ++step) {
        optimizer.zero_grad();
        look_up(table, step < 4 ? 9 : 700, rng);
        const auto touched = looked_up(table);
        const Tensor gradient = table.grad().to(kCpu);  // summed by autograd, look-up by look-up
        const double factor = 1 / static_cast<double>(step + 1);
        const StepReport report = take_step(optimizer, {.lr_factor = factor, .gradient_scale = 0.25});
        CHECK(report.table_rows == std::count(touched.begin(), touched.end(), true));
        for (size_t r = 0; r < kRows; ++r) {
          const auto before = twins[r].to_vector<double>();
          if (touched[r]) {
            twin_optimizers[r].zero_grad();
            twins[r].backward(gradient.select(0, static_cast<int64_t>(r)).contiguous());
            twin_optimizers[r].step({.lr_factor = factor, .gradient_scale = 0.25});
          }
          CHECK(largest_difference(table.to(kCpu).detach().select(0, static_cast<int64_t>(r)),
                                   twins[r].to_vector<double>()) < 1e-12);
        }
      }
    }
  }
}

TEST_CASE("optim: row-wise adagrad keeps one sum of mean squares a row") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    constexpr int64_t kRows = 17, kWidth = 5;
    Rng rng(4);
    Tensor table = normal({kRows, kWidth}, rng, f64).to(device).requires_grad();
    const RuleOptions rule{
        .name = "row_wise_adagrad", .lr = 0.3, .eps = 1e-10, .weight_decay = 0.1, .initial_accumulator = 0.5};
    Optimizer optimizer({{"table", table, ParameterKind::table}}, {.tables = rule});
    std::vector<double> want = table.to_vector<double>(), sums(kRows, 0.5);
    for (int step = 0; step < 5; ++step) {
      optimizer.zero_grad();
      look_up(table, 6, rng);
      const auto touched = looked_up(table);
      const auto gradient = table.grad().to_vector<double>();
      take_step(optimizer);
      for (size_t r = 0; r < kRows; ++r) {
        if (!touched[r]) continue;
        double mean = 0;
        for (size_t j = r * kWidth; j < (r + 1) * kWidth; ++j)
          mean += std::pow(gradient[j] + 0.1 * want[j], 2) / kWidth;
        sums[r] += mean;
        for (size_t j = r * kWidth; j < (r + 1) * kWidth; ++j) {
          want[j] -= 0.3 * (gradient[j] + 0.1 * want[j]) / (std::sqrt(sums[r]) + 1e-10);
        }
      }
      CHECK(largest_difference(table, want) < 1e-12);
    }
    CHECK(largest_difference(optimizer.state()[1].value, sums) < 1e-12);
  }
}

TEST_CASE("optim: rows that were not looked up keep their bits, and so does their state") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    for (const char* rule : {"sgd", "adagrad", "row_wise_adagrad", "lazy_adam"}) {
      Rng rng(5);
      Tensor table = normal({50, 3}, rng, f32).to(device).requires_grad();
      Optimizer optimizer({{"table", table, ParameterKind::table}},
                          {.tables = {.name = rule, .lr = 0.1, .weight_decay = 0.1}, .average_decay = 0.5});
      const auto one_step = [&](std::vector<int64_t> ids) {
        optimizer.zero_grad();
        const auto count = static_cast<int64_t>(ids.size());
        embedding(table, Tensor::from(ids).to(device)).backward(normal({count, 3}, rng, f32).to(device));
        take_step(optimizer);
      };
      one_step({1, 2, 3, 3, 49});
      const auto before = table.to_vector();
      std::vector<std::vector<double>> state;
      for (const auto& s : optimizer.state()) state.push_back(s.value.to_vector<double>());
      one_step({2, 48});
      const auto after = table.to_vector();
      for (size_t i = 0; i < before.size(); ++i)
        CHECK((before[i] == after[i]) == (i / 3 != 2 && i / 3 != 48));
      for (size_t s = 1; s < state.size(); ++s) {
        const auto now = optimizer.state()[s].value.to_vector<double>();
        const size_t width = now.size() / 50;
        for (size_t i = 0; i < now.size(); ++i) {
          if (i / width != 2 && i / width != 48) CHECK(now[i] == state[s][i]);
        }
      }
    }
  }
}

TEST_CASE("optim: tables of several widths step together, the same bits with any number of threads") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    const int threads = num_threads();
    for (const char* rule : {"sgd", "adagrad", "row_wise_adagrad", "lazy_adam"}) {
      std::vector<std::vector<float>> first;
      double first_norm = 0;
      for (const int count : {1, 2, 5}) {
        set_num_threads(count);
        Rng rng(6);
        std::vector<Parameter> parameters;
        for (const int64_t width : {32, 1, 19}) {
          parameters.push_back({"table" + std::to_string(width),
                                normal({width * 100, width}, rng, f32).to(device).requires_grad(),
                                ParameterKind::table});
        }
        parameters.push_back({"weight", normal({100, 100}, rng, f32).to(device).requires_grad()});
        Optimizer optimizer(parameters,
                            {.tables = {.name = rule, .lr = 0.1}, .clip_norm = 1, .average_decay = 0.9});
        StepReport report;
        for (int step = 0; step < 3; ++step) {
          optimizer.zero_grad();
          for (int i = 0; i < 3; ++i) look_up(parameters[static_cast<size_t>(i)].value, 6000, rng);
          parameters[3].value.backward(normal({100, 100}, rng, f32).to(device));
          report = take_step(optimizer);
        }
        const AveragedWeights averaged(optimizer);
        std::vector<std::vector<float>> values;
        for (const Parameter& p : parameters) values.push_back(p.value.to_vector());
        if (count == 1) first = values, first_norm = report.gradient_norm;
        CHECK(values == first);
        CHECK(report.gradient_norm == first_norm);
      }
    }
    set_num_threads(threads);
  }
}

TEST_CASE("optim: an id outside its table, and a table that got a dense gradient, are refused") {
  Tensor table = zeros({4, 2}).requires_grad();
  Optimizer optimizer({{"item", table, ParameterKind::table}}, {});
  autograd::leaf_meta(table)->lookups.push_back(
      {Tensor::from(std::vector<int64_t>{4}), ones({1, 2}), {}, {}});
  CHECK_THROWS_WITH_AS(optimizer.step(), doctest::Contains("the id 4 is outside the 4 rows of item"), Error);
  optimizer.zero_grad();
  table.backward(ones({4, 2}));
  CHECK_THROWS_WITH_AS(optimizer.step(), doctest::Contains("item has a dense gradient"), Error);
}

TEST_CASE("optim: no look-up, no change") {
  for (const Device device : devices()) {
    CAPTURE(device.is_cuda());
    Tensor table = ones({4, 2}, f32, device).requires_grad();
    Optimizer optimizer({{"item", table, ParameterKind::table}},
                        {.tables = {.name = "sgd", .lr = 1, .weight_decay = 1}});
    const StepReport report = take_step(optimizer);
    CHECK(report.applied);
    CHECK(report.table_rows == 0);
    CHECK(report.gradient_norm == 0);
    CHECK(table.to_vector() == std::vector<float>(8, 1));
  }
}

TEST_CASE("optim: the radix sort is stable and sorts") {
  Rng rng(8);
  std::vector<optim::KeyedIndex> items, scratch;
  for (const uint64_t limit :
       {uint64_t{1}, uint64_t{2}, uint64_t{1000}, uint64_t{3000000}, uint64_t{1} << 40}) {
    for (const int64_t count : {0, 1, 100, 50000}) {
      items.clear();
      for (int64_t i = 0; i < count; ++i) items.push_back({rng.below(limit), i});
      if (count > 0) items[0].key = limit - 1;
      auto want = items;
      std::stable_sort(want.begin(), want.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
      optim::radix_sort(items, scratch, limit);
      CHECK(std::equal(items.begin(), items.end(), want.begin(), want.end(),
                       [](const auto& a, const auto& b) { return a.key == b.key && a.index == b.index; }));
    }
  }
}

TEST_CASE("optim: lazy zeros are zeros, also in memory that was used before") {
  for (const int64_t count : {1, 1000, 5000, 3000000}) {
    { const Tensor used = full({count}, 3); }
    const Tensor x = optim::lazy_zeros({count}, f32);
    const auto values = x.to_vector();
    CHECK(std::all_of(values.begin(), values.end(), [](float v) { return v == 0; }));
  }
}

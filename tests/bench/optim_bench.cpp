// Optimiser steps as JSON lines: dense parameters in one flat buffer, and two tables of a million rows of
// which a step looks up 32768 and 16384, ids uniform or crowded at the low end.
#include "mixrec/autograd/meta.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/rng.h"
#include "mixrec/optim/optimizer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

using namespace mixrec;

namespace {

// Least milliseconds of step(i): what other programs take is not ours.
template <class F>
double milliseconds(F step) {
  using Clock = std::chrono::steady_clock;
  double least = 1e9;
  for (int i = 0; i < 60; ++i) {
    const auto start = Clock::now();
    step(i);
    least = std::min(least, std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  return least;
}

void measure_dense(const std::string& rule, int64_t side, int64_t layers) {
  std::vector<Parameter> parameters;
  for (int64_t i = 0; i < layers; ++i) {
    parameters.push_back({"weight" + std::to_string(i), ones({side, side}).requires_grad()});
  }
  Optimizer optimizer(parameters, {.dense = {.name = rule, .lr = 1e-3}, .clip_norm = 1});
  for (const Parameter& p : parameters) p.value.backward(full({side, side}, 0.01));
  const double ms = milliseconds([&](int) { optimizer.step(); });
  std::printf("{\"bench\":\"optim dense\",\"rule\":\"%s\",\"parameters\":%lld,\"threads\":%d,\"ms\":%.3f}\n",
              rule.c_str(), static_cast<long long>(side * side * layers), num_threads(), ms);
}

Tensor ids_of(int64_t count, int64_t rows, double power, Rng& rng) {
  Tensor ids = empty({count}, i64);
  for (int64_t i = 0; i < count; ++i) {
    ids.data<int64_t>()[i] = static_cast<int64_t>(std::pow(rng.uniform(), power) * static_cast<double>(rows));
  }
  return ids;
}

void measure_tables(const std::string& rule, const char* ids, double power) {
  constexpr int64_t kRows = 1'000'000, kSets = 8;
  Rng rng(1);
  std::vector<Parameter> tables;
  // Several batches in turn, so that their rows are not found in the cache.
  std::vector<std::vector<autograd::Lookup>> batches;
  for (const auto& [width, count] : {std::pair<int64_t, int64_t>{64, 32768}, {32, 16384}}) {
    tables.push_back(
        {"table" + std::to_string(width), ones({kRows, width}).requires_grad(), ParameterKind::table});
    auto& batch = batches.emplace_back();
    for (int64_t s = 0; s < kSets; ++s) {
      batch.push_back({ids_of(count, kRows, power, rng), full({count, width}, 0.01), {}, {}});
    }
  }
  Optimizer optimizer(tables, {.tables = {.name = rule, .lr = 1e-3}});
  int64_t touched = 0;
  const double ms = milliseconds([&](int i) {
    for (size_t t = 0; t < tables.size(); ++t) {
      autograd::leaf_meta(tables[t].value)->lookups = {batches[t][static_cast<size_t>(i % kSets)]};
    }
    touched = optimizer.step().table_rows;
  });
  std::printf(
      "{\"bench\":\"optim tables\",\"rule\":\"%s\",\"ids\":\"%s\",\"lookups\":49152,\"rows\":%lld,"
      "\"threads\":%d,\"ms\":%.3f}\n",
      rule.c_str(), ids, static_cast<long long>(touched), num_threads(), ms);
}

}  // namespace

int main() {
  const int most = num_threads();
  for (const int threads : {1, 2}) {
    if (threads > most) continue;
    set_num_threads(threads);
    for (const char* rule : {"sgd", "rmsprop", "adamw"}) measure_dense(rule, 256, 16);
    measure_dense("adamw", 1024, 16);
    for (const char* rule : {"sgd", "adagrad", "row_wise_adagrad", "lazy_adam"}) {
      measure_tables(rule, "uniform", 1);
      measure_tables(rule, "skewed", 6);
    }
  }
}

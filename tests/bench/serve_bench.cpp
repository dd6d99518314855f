// UI-MixFormer's tiny configuration in serving and in training.  One JSON line each:
//
//   one request with 500 candidates: milliseconds of a call, decoupled, with a kept user side, and expanded (user
//   features and history repeated for every candidate);  8 callers at once;
//   a training step over 256 candidates, request-level and expanded, for 1 … 32 candidates a request.
//
//   build/bench/serve_bench [DEVICE [CALLS [THREADS]]]      default: cpu 200 2
//
// N=8, D=64, d_s=32, L=2, F=172, F_s=512, T=64; 16 user and 16 item fields of width 32, items of width 64.
#include "mixrec/autograd/record.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/models/unified/ui_mixformer.h"
#include "mixrec/ops/loss.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/bench/random_batch.h"
#include "mixrec/train/device_choice.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

using namespace mixrec;
using namespace mixrec::bench;

namespace {

constexpr int64_t kFields = 16, kLength = 64, kRows = 100'000, kCandidates = 500;

RequestBatch random_batch(int64_t requests, int64_t candidates_each, Rng& rng) {
  const std::vector<int64_t> lengths(static_cast<size_t>(requests), kLength);
  return bench::random_batch(feature_set(kFields, kFields, kRows, kLength), lengths, candidates_each, rng);
}

UiMixFormer tiny(Device device) {
  UiMixFormerOptions options;
  options.heads = 8, options.width = 64, options.layers = 2, options.event_width = 32,
  options.ffn_hidden = 172;
  options.sequence_hidden = 512, options.head_hidden = 256, options.pooled_history = false;
  Rng rng(1);
  UiMixFormer model(feature_set(kFields, kFields, kRows, kLength), options, rng);
  to_device(parameters(model), device);
  return model;
}

double milliseconds(const auto& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

struct Times {
  std::vector<double> sorted;  // of calls
  double processor = 0;        // time of all cores a call: what a busy machine leaves alone

  double quantile(double q) const {
    return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
  }
};

Times times_of(int calls, const auto& f) {
  Times times;
  f();
  const std::clock_t start = std::clock();
  for (int i = 0; i < calls; ++i) times.sorted.push_back(milliseconds(f));
  times.processor = 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / calls;
  std::sort(times.sorted.begin(), times.sorted.end());
  return times;
}

void serve(Device device, int calls, int threads) {
  const NoGrad no_grad;
  Rng rng(2);
  const UiMixFormer model = tiny(device);
  const RequestBatch batch = random_batch(1, kCandidates, rng), repeated = batch.expanded();
  const auto print = [&](const char* form, const Times& times) {
    std::printf(
        "{\"name\":\"tiny, one request, %lld candidates\",\"form\":\"%s\",\"threads\":%d,\"p50_ms\":%.2f,"
        "\"p99_ms\":%.2f,\"processor_ms\":%.2f}\n",
        static_cast<long long>(kCandidates), form, threads, times.quantile(.5), times.quantile(.99),
        times.processor);
  };
  const auto whole = [&](const RequestBatch& b) {
    Pass pass;
    return model.forward(b.to(device), pass).to_vector();
  };
  print("decoupled", times_of(calls, [&] { whole(batch); }));
  Pass pass;
  const auto user = model.user_side(batch.to(device), pass).compact();
  print("user kept", times_of(calls, [&] { model.item_side(user, batch.to(device), pass).to_vector(); }));
  print("expanded", times_of(std::max(calls / 20, 3), [&] { whole(repeated); }));

  constexpr int kCallers = 8;
  const double ms = milliseconds([&] {
    std::vector<std::thread> callers;
    for (int c = 0; c < kCallers; ++c)
      callers.emplace_back([&] {
        const NoGrad off;
        for (int i = 0; i < std::max(calls / kCallers, 1); ++i) whole(batch);
      });
    for (auto& caller : callers) caller.join();
  });
  const double requests = kCallers * std::max(calls / kCallers, 1);
  std::printf(
      "{\"name\":\"tiny, 8 callers\",\"threads\":%d,\"requests_per_second\":%.1f,"
      "\"candidates_per_second\":%.0f}\n",
      threads, 1e3 * requests / ms, 1e3 * requests * kCandidates / ms);
}

void train(Device device, int threads) {
  constexpr int64_t kBatch = 256;
  for (const int64_t each : {1, 2, 4, 8, 16, 32}) {
    Rng rng(3);
    UiMixFormer model = tiny(device);
    Optimizer optimizer(parameters(model),
                        {.dense = {.name = "adamw", .lr = 1e-3}, .tables = {.name = "adagrad", .lr = 1e-2}});
    const RequestBatch host = random_batch(kBatch / each, each, rng);
    const RequestBatch shared = host.to(device), repeated = host.expanded().to(device);
    Pass pass{.training = true};
    const auto step = [&](const RequestBatch& batch) {
      bce_with_logits(model.forward(batch, pass), batch.labels).backward();
      optimizer.step();
      optimizer.zero_grad();
      if (device.is_cuda()) cuda::synchronize(device.index);
    };
    // In turns, and the fastest of each: other programs on the machine slow both.
    double request_ms = 1e9, expanded_ms = 1e9;
    for (int i = 0; i < 10; ++i) {
      request_ms = std::min(request_ms, milliseconds([&] { step(shared); }));
      expanded_ms = std::min(expanded_ms, milliseconds([&] { step(repeated); }));
    }
    std::printf(
        "{\"name\":\"tiny training step, 256 candidates\",\"candidates_per_request\":%lld,\"threads\":%d,"
        "\"request_level_ms\":%.1f,\"expanded_ms\":%.1f,\"speed_up\":%.2f,\"flop_ratio\":%.2f}\n",
        static_cast<long long>(each), threads, request_ms, expanded_ms, expanded_ms / request_ms,
        model.forward_flops(host.expanded()) / model.forward_flops(host));
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Device device = choose_device(argc > 1 ? argv[1] : "cpu");
  const int calls = argc > 2 ? std::atoi(argv[2]) : 200, threads = argc > 3 ? std::atoi(argv[3]) : 2;
  set_num_threads(threads);
  serve(device, calls, threads);
  train(device, threads);
}

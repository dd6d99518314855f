// UI-MixFormer on a GPU, bf16: one request with many candidates, and training with request-level batches.  One JSON
// line each.
//
//   build/bench/gpu_serve_bench [serve] [train]      default: both
//   ncu --metrics gpu__time_duration.sum build/bench/gpu_serve_bench profile medium 500 512      kernel by kernel
//
// serve   sizes small and medium (N = 16 heads, 8 of users), T = 512 and 10,000 events, 400 to 550 candidates:
//         p50 and p99 of 1,000 calls.  "embedded" is the recorded forward pass from heads and events that are on the card
//         in bf16, "device" from ids that are on the card, "host" a call
//         from ids on the host to logits on the host, "expanded" the recorded masked form, which computes the user side
//         of every candidate.  Then requests a second of 8 callers at once, from the host, as Scorer answers them.
// train   a step of size small over 256 candidates, T = 512 and 2,048, for 1 to 32 candidates a request, against the same
//         candidates as requests of their own (recompute = ffn: the expanded form of 2,048 events needs it).
#include "mixrec/autograd/record.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"
#include "mixrec/models/unified/ui_mixformer.h"
#include "mixrec/ops/loss.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/bench/random_batch.h"
#include "mixrec/train/serve/recorded_pass.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace mixrec;
using namespace mixrec::bench;

namespace {

constexpr Device kCard{Device::Type::cuda, 0};
constexpr int64_t kFields = 16, kRows = 100'000;

RequestBatch random_batch(int64_t requests, int64_t candidates_each, int64_t length, Rng& rng) {
  const std::vector<int64_t> lengths(static_cast<size_t>(requests), length);
  return bench::random_batch(feature_set(kFields, kFields, kRows, length), lengths, candidates_each, rng);
}

UiMixFormer make_model(const std::string& preset, int64_t length, bool decoupled,
                       const std::string& recompute) {
  UiMixFormerOptions options;
  options.preset = preset, options.ffn_hidden = preset == "small" ? 1024 : 2048;
  options.item_heads = 8, options.pooled_history = false, options.decoupled = decoupled;
  options.recompute = recompute, options.down_scale = 1;
  Rng rng(1);
  UiMixFormer model(feature_set(kFields, kFields, kRows, length), options, rng);
  to_device(model, kCard);
  return model;
}

struct Times {
  double p50, p99;
};

// Of calls as the host sees them, the device done at the end of each.
Times times_of(int calls, const std::function<void()>& f) {
  std::vector<double> all;
  for (int i = -20; i < calls; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    cuda::synchronize();
    if (i >= 0)
      all.push_back(
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(all.begin(), all.end());
  return {all[all.size() / 2], all[all.size() * 99 / 100]};
}

void say(const std::string& preset, int64_t candidates, int64_t length, const char* form, Times times) {
  std::printf(
      "{\"name\":\"%s, one request\",\"candidates\":%lld,\"T\":%lld,\"form\":\"%s\",\"p50_ms\":%.3f,"
      "\"p99_ms\":%.3f}\n",
      preset.c_str(), static_cast<long long>(candidates), static_cast<long long>(length), form, times.p50,
      times.p99);
  std::fflush(stdout);
}

void serve(const std::string& preset, int64_t candidates, int64_t length) {
  const NoGrad no_grad;
  Rng rng(2);
  UiMixFormer decoupled = make_model(preset, length, true, "none");
  const RequestBatch host = random_batch(1, candidates, length, rng), batch = host.to(kCard);
  Pass pass;
  pass.compute = bf16;
  decoupled.forward(batch, pass);  // makes the bf16 shadows of the weights
  const UiMixFormer::UserInput users = decoupled.user_input(batch, pass);
  const Tensor items = decoupled.item_input(batch, pass);
  cuda::Graph embedded([&] { decoupled.forward(users, items, batch.offsets, pass); });
  say(preset, candidates, length, "embedded", times_of(1000, [&] { embedded.replay(); }));
  cuda::Graph graph([&] { decoupled.forward(batch, pass); });
  say(preset, candidates, length, "device", times_of(1000, [&] { graph.replay(); }));

  ModelHolder<UiMixFormer&> holder(decoupled);
  RecordedPass recorded(holder, host, kCard, bf16);
  say(preset, candidates, length, "host", times_of(1000, [&] { recorded.run(host); }));

  if (length > 1000) return;
  const UiMixFormer masked = make_model(preset, length, false, "none");
  const RequestBatch repeated = host.expanded().to(kCard);
  masked.forward(repeated, pass);
  cuda::Graph expanded([&] { masked.forward(repeated, pass); });
  say(preset, candidates, length, "expanded", times_of(20, [&] { expanded.replay(); }));
}

void serve_callers(const std::string& preset, int64_t candidates, int64_t length) {
  constexpr int kCallers = 8, kCalls = 250;
  Rng rng(2);
  UiMixFormer model = make_model(preset, length, true, "none");
  const FeatureSet spec = feature_set(kFields, kFields, kRows, length);
  const RequestBatch request = random_batch(1, candidates, length, rng);
  ModelHolder<UiMixFormer&> holder(model);
  {
    // As Scorer does: what is made at first use is there before several streams ask for it.
    const NoGrad off;
    Pass pass;
    pass.compute = bf16;
    model.forward(request.to(kCard), pass).to_vector();
  }
  RecordedPasses passes(holder, spec, kCard, bf16, kCallers);
  const auto all_callers = [&](int calls) {
    std::vector<std::thread> callers;
    for (int c = 0; c < kCallers; ++c) {
      callers.emplace_back([&] {
        const NoGrad off;
        for (int i = 0; i < calls; ++i) passes.logits(request);
      });
    }
    for (std::thread& caller : callers) caller.join();
  };
  all_callers(10);  // records their graphs
  const auto start = std::chrono::steady_clock::now();
  all_callers(kCalls);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double requests = kCallers * kCalls / seconds;
  std::printf(
      "{\"name\":\"%s, 8 callers\",\"candidates\":%lld,\"T\":%lld,\"requests_per_second\":%.0f,"
      "\"candidates_per_second\":%.0f}\n",
      preset.c_str(), static_cast<long long>(candidates), static_cast<long long>(length), requests,
      requests * static_cast<double>(candidates));
  std::fflush(stdout);
}

// A pass that is not recorded, so that a profiler sees its kernels; twice, the second one warm.
void profile(const std::string& preset, int64_t candidates, int64_t length) {
  const NoGrad no_grad;
  Rng rng(2);
  const UiMixFormer model = make_model(preset, length, true, "none");
  const RequestBatch batch = random_batch(1, candidates, length, rng).to(kCard);
  Pass pass;
  pass.compute = bf16;
  for (int i = 0; i < 2; ++i) model.forward(batch, pass);
  cuda::synchronize();
}

double step_ms(UiMixFormer& model, Optimizer& optimizer, const RequestBatch& batch) {
  Pass pass{.training = true};
  pass.compute = bf16;
  return times_of(5,
                  [&] {
                    bce_with_logits(model.forward(batch, pass), batch.labels).backward();
                    optimizer.step();
                    optimizer.zero_grad();
                  })
      .p50;
}

void train(int64_t length) {
  constexpr int64_t kCandidates = 256;
  for (const int64_t each : {1, 2, 4, 8, 16, 32}) {
    Rng rng(3);
    UiMixFormer model = make_model("small", length, true, "ffn");
    Optimizer optimizer(parameters(model),
                        {.dense = {.name = "adamw", .lr = 1e-4}, .tables = {.name = "adagrad", .lr = 1e-2}});
    const RequestBatch host = random_batch(kCandidates / each, each, length, rng);
    const double shared = step_ms(model, optimizer, host.to(kCard));
    const double repeated = step_ms(model, optimizer, host.expanded().to(kCard));
    std::printf(
        "{\"name\":\"small training step, 256 candidates\",\"T\":%lld,\"candidates_per_request\":%lld,"
        "\"request_level_ms\":%.2f,\"expanded_ms\":%.2f,\"speed_up\":%.2f,\"flop_ratio\":%.2f}\n",
        static_cast<long long>(length), static_cast<long long>(each), shared, repeated, repeated / shared,
        model.forward_flops(host.expanded()) / model.forward_flops(host));
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (cuda::device_count() == 0) {
    std::printf("gpu_serve_bench: %s\n", cuda::unavailable_reason().c_str());
    return 1;
  }
  if (argc == 5 && std::string(argv[1]) == "profile") {
    profile(argv[2], std::atoll(argv[3]), std::atoll(argv[4]));
    return 0;
  }
  const std::set<std::string> asked(argv + 1, argv + argc);
  std::printf("{\"card\":\"%s\"}\n", cuda::describe().c_str());
  if (asked.empty() || asked.count("serve")) {
    for (const char* preset : {"small", "medium"}) {
      for (const int64_t candidates : {400, 450, 500, 550}) serve(preset, candidates, 512);
      serve(preset, 500, 10'000);
      serve_callers(preset, 500, 512);
    }
  }
  if (asked.empty() || asked.count("train")) {
    for (const int64_t length : {512, 2048}) train(length);
  }
}

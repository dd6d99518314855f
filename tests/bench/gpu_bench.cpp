// MixFormer's training step and its kernels on a GPU: one JSON line a measurement.
//
//   build/bench/gpu_bench [tiny small medium] [none ffn block] [micro] [f32]
//                                                            default: tiny small medium micro, every recompute, in bf16
//   build/bench/gpu_bench ragged endurance long              histories of many lengths, see below
//   ncu --metrics gpu__time_duration.sum build/bench/gpu_bench profile small none      three steps, kernel by kernel
//
// A step is the whole step: tables looked up, forward, backward, AdamW on the dense parameters, row-sparse Adagrad on
// two tables of a million rows.  It is timed as it runs (eager) and as one CUDA graph (graph), for every setting of
// `recompute`.  Sizes: N heads, D width, d_s event width, L layers, F and F_s hidden widths, T events a request.
#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"
#include "mixrec/models/unified/mixformer.h"
#include "mixrec/ops/attention/attend.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/embedding.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/bench/random_batch.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <sys/resource.h>
#include <vector>

using namespace mixrec;
using namespace mixrec::bench;

namespace {

constexpr Device kCard{Device::Type::cuda, 0};
constexpr int64_t kRows = 1'000'000, kFields = 32;
constexpr double kGiB = 0x1p30;

// Median of the device's time for one call, in milliseconds.
double median_ms(int runs, int warm, const std::function<void()>& f) {
  for (int i = 0; i < warm; ++i) f();
  cuda::synchronize();
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    cuda::Event start, end;
    start.record();
    f();
    end.record();
    end.synchronize();
    times.push_back(end.milliseconds_since(start));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

Tensor random(const Shape& shape, DType dtype, Rng& rng, double deviation = 1) {
  // Large tensors repeat a block of numbers: filling gigabytes on the host would take longer than the bench.
  constexpr int64_t kBlock = 1 << 22;
  const int64_t count = shape.numel();
  Tensor block = empty({std::min(count, kBlock)}, f32);
  rng.fill_normal(block, 0, deviation);
  const Tensor on_card = cast(block.to(kCard), dtype);
  Tensor all = empty({count}, dtype, kCard);
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t part = std::min(kBlock, count - at);
    copy_into(all.narrow(0, at, part), on_card.narrow(0, 0, part));
  }
  return all.reshape(shape);
}

struct Ceilings {
  double tflops = 0, gb_per_second = 0;
};

Ceilings measure_ceilings() {
  Rng rng(1);
  Ceilings ceilings;
  {
    const Tensor a = random({8192, 8192}, bf16, rng), b = random({8192, 8192}, bf16, rng);
    const double ms = median_ms(20, 5, [&] { matmul(a, b); });
    ceilings.tflops = 2 * 8192.0 * 8192.0 * 8192.0 / ms / 1e9;
    std::printf("{\"name\":\"gemm8192_bf16\",\"ms\":%.4f,\"tflops\":%.1f}\n", ms, ceilings.tflops);
  }
  const Tensor from = random({int64_t{1} << 29}, f32, rng), to = empty_like(from);
  const double ms = median_ms(20, 5, [&] { copy_into(to, from); });
  ceilings.gb_per_second = 2 * 4 * static_cast<double>(from.numel()) / ms / 1e6;
  std::printf("{\"name\":\"copy\",\"ms\":%.4f,\"GBs\":%.1f}\n", ms, ceilings.gb_per_second);
  return ceilings;
}

// ---- The training step. ----

struct Sizes {
  const char* name;
  int64_t heads, width, event_width, layers, ffn_hidden, sequence_hidden, length, batch;
};

constexpr Sizes kSizes[] = {
    {"tiny", 8, 64, 32, 2, 172, 512, 64, 512},
    {"small", 16, 384, 64, 4, 1024, 2048, 512, 512},
    {"medium", 16, 768, 64, 4, 2048, 2048, 512, 512},
};

RequestBatch random_batch(const std::vector<int64_t>& lengths, Rng& rng) {
  return bench::random_batch(feature_set(0, kFields, kRows, 0), lengths, 1, rng);
}

struct Step {
  MixFormer model;
  Optimizer optimizer;
  RequestBatch batch;
  Pass pass;

  Step(MixFormer made, RequestBatch data, DType compute)
      : model(std::move(made)),
        optimizer(parameters(model), {.dense = {.name = "adamw", .lr = 1e-3, .weight_decay = .01},
                                      .tables = {.name = "adagrad", .lr = 1e-2, .eps = 1e-10}}),
        batch(std::move(data)) {
    pass.training = true;
    pass.compute = compute;
  }
  void run() {
    bce_with_logits(model.forward(batch, pass), batch.labels).backward();
    optimizer.step();
    optimizer.zero_grad();
  }
  void forward() {
    const NoGrad off;
    Pass evaluation;
    evaluation.compute = pass.compute;
    model.forward(batch, evaluation);
  }
};

Step make_step(const Sizes& s, const std::string& recompute, const std::vector<int64_t>& lengths,
               DType compute) {
  Rng rng(1);
  MixFormerOptions options{.heads = s.heads,
                           .width = s.width,
                           .layers = s.layers,
                           .event_width = s.event_width,
                           .ffn_hidden = s.ffn_hidden};
  options.sequence_hidden = s.sequence_hidden, options.head_hidden = 256, options.pooled_history = false;
  options.recompute = recompute;
  MixFormer model(feature_set(0, kFields, kRows, s.length), options, rng);
  to_device(model, kCard);
  return Step(std::move(model), random_batch(lengths, rng).to(kCard), compute);
}

void bench_step(const Sizes& s, const std::string& recompute, DType compute, const Ceilings& ceilings) {
  const std::string name = std::string(s.name) + " " + recompute + " " + name_of(compute);
  try {
    Step step =
        make_step(s, recompute, std::vector<int64_t>(static_cast<size_t>(s.batch), s.length), compute);
    const auto run = [&] { step.run(); };
    run();
    cuda::synchronize();
    cuda::reset_memory_peak();
    const double ms = median_ms(12, 4, run);
    const double peak = static_cast<double>(cuda::memory().peak) / kGiB;
    const double forward_ms = median_ms(12, 3, [&] { step.forward(); });
    cuda::Graph graph(run);
    const double graph_ms = median_ms(12, 3, [&] { graph.replay(); });
    const double flops = step.model.forward_flops(step.batch), best = std::min(ms, graph_ms);
    std::printf(
        "{\"name\":\"%s\",\"step_ms\":%.4f,\"graph_ms\":%.4f,\"fwd_ms\":%.4f,\"samples_s\":%.0f,"
        "\"train_TFLOPs\":%.1f,\"of_ceiling\":%.3f,\"peak_GiB\":%.2f}\n",
        name.c_str(), ms, graph_ms, forward_ms, 1e3 * static_cast<double>(s.batch) / best,
        3 * flops / best / 1e9, 3 * flops / best / 1e9 / ceilings.tflops, peak);
  } catch (const Error& error) {
    std::printf("{\"name\":\"%s\",\"failed\":\"%.300s\"}\n", name.c_str(), error.what());
  }
  std::fflush(stdout);
  cuda::release_memory_cache();
}

// ---- Histories of many lengths: every step has a batch and shapes of its own. ----

// From 0 to `most`, every factor of two as likely as the next.
std::vector<int64_t> heavy_tailed_lengths(int64_t count, int64_t most, Rng& rng) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < count; ++i) {
    const double length = std::pow(static_cast<double>(most) + 1, rng.uniform());
    lengths.push_back(std::min(most, static_cast<int64_t>(length) - 1));
  }
  return lengths;
}

// As many events, the same number in every request but for the remainder.
std::vector<int64_t> even_lengths(const std::vector<int64_t>& lengths) {
  const auto count = static_cast<int64_t>(lengths.size());
  const int64_t events = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  std::vector<int64_t> even(lengths.size(), events / count);
  for (int64_t i = 0; i < events % count; ++i) ++even[static_cast<size_t>(i)];
  return even;
}

double train_seconds(Step& step, const std::vector<RequestBatch>& batches) {
  cuda::synchronize();
  const auto start = std::chrono::steady_clock::now();
  for (const RequestBatch& batch : batches) {
    step.batch = batch.to(kCard);
    step.run();
  }
  cuda::synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// 300 steps on histories of 0 to 2,048 events against 300 on as many events in even histories.
void bench_ragged(const Sizes& s, DType compute) {
  constexpr int kSteps = 300, kWarm = 20, kMost = 2048;
  Rng rng(1);
  std::vector<RequestBatch> ragged, even;
  double events = 0;
  for (int i = 0; i < kSteps; ++i) {
    const std::vector<int64_t> lengths = heavy_tailed_lengths(s.batch, kMost, rng);
    ragged.push_back(random_batch(lengths, rng));
    even.push_back(random_batch(even_lengths(lengths), rng));
    events += static_cast<double>(ragged.back().histories[0].offsets.data<int64_t>()[s.batch]);
  }
  Step step = make_step(s, "none", {1}, compute);
  for (const auto* batches : {&ragged, &even}) train_seconds(step, {batches->end() - kWarm, batches->end()});
  const double ragged_seconds = train_seconds(step, ragged), even_seconds = train_seconds(step, even);
  std::printf(
      "{\"name\":\"%s %d steps, histories of 0 to %d events\",\"events_a_request\":%.1f,\"ragged_s\":%.3f,"
      "\"even_s\":%.3f,\"ragged_events_s\":%.0f,\"even_events_s\":%.0f,\"ragged_of_even\":%.3f}\n",
      s.name, kSteps, kMost, events / kSteps / static_cast<double>(s.batch), ragged_seconds, even_seconds,
      events / ragged_seconds, events / even_seconds, even_seconds / ragged_seconds);
}

// Memory of the card and of the host at several steps of a long run on small batches, no two of one shape.
void bench_endurance(const Sizes& s, DType compute) {
  constexpr int kSteps = 5000, kBatch = 32, kMost = 256;
  Rng rng(1);
  Step step = make_step(s, "none", {1}, compute);
  const auto mib = [](auto bytes) { return static_cast<double>(bytes) / 0x1p20; };
  for (int i = 1; i <= kSteps; ++i) {
    step.batch = random_batch(heavy_tailed_lengths(kBatch, kMost, rng), rng).to(kCard);
    step.run();
    if (i != 100 && i % 1000 != 0) continue;
    step.batch = {};
    cuda::synchronize();
    const MemoryStats memory = cuda::memory();
    rusage host{};
    getrusage(RUSAGE_SELF, &host);
    std::printf(
        "{\"name\":\"%s endurance\",\"step\":%d,\"in_use_MiB\":%.3f,\"cached_MiB\":%.1f,\"peak_MiB\":%.1f,"
        "\"host_peak_MiB\":%.1f}\n",
        s.name, i, mib(memory.in_use), mib(memory.cached), mib(memory.peak), mib(1024 * host.ru_maxrss));
    std::fflush(stdout);
  }
}

// Histories of 10,000 events, 64 requests a step.
void bench_long(const Sizes& s, const std::string& recompute, DType compute) {
  constexpr int kBatch = 64, kSteps = 5;
  constexpr int64_t kLength = 10'000;
  const std::string name = std::string(s.name) + " T10000 B64 " + recompute;
  try {
    Rng rng(1);
    Step step = make_step(s, recompute, {1}, compute);
    const std::vector<RequestBatch> batches(kSteps, random_batch(std::vector<int64_t>(kBatch, kLength), rng));
    train_seconds(step, {batches[0]});
    cuda::reset_memory_peak();
    const double seconds = train_seconds(step, batches) / kSteps;
    const NoGrad off;
    const double loss = bce_with_logits(step.model.forward(step.batch, step.pass), step.batch.labels).item();
    std::printf("{\"name\":\"%s\",\"step_ms\":%.2f,\"peak_GiB\":%.2f,\"events_s\":%.0f,\"loss\":%.3g}\n",
                name.c_str(), 1e3 * seconds, static_cast<double>(cuda::memory().peak) / kGiB,
                static_cast<double>(kBatch * kLength) / seconds, loss);
  } catch (const Error& error) {
    std::printf("{\"name\":\"%s\",\"failed\":\"%.300s\"}\n", name.c_str(), error.what());
  }
  std::fflush(stdout);
  cuda::release_memory_cache();
}

// ---- Kernels. ----

void bench_per_head_ffn(int64_t rows, int64_t width, int64_t hidden) {
  constexpr int64_t kHeads = 16;
  Rng rng(1);
  PerHeadFFN ffn(kHeads, width, hidden, rng, {1});
  to_device(ffn, kCard);
  Tensor x = random({rows, kHeads, width}, bf16, rng);
  x.requires_grad();
  const Tensor dy = random(x.shape(), bf16, rng);
  const double forward_ms = median_ms(20, 5, [&] {
    const NoGrad off;
    ffn.forward(x);
  });
  const double both_ms = median_ms(20, 5, [&] {
    ffn.forward(x).backward(dy);
    x.zero_grad();
    for (const Parameter& p : parameters(ffn)) Tensor(p.value).zero_grad();
  });
  const double flops = 6.0 * static_cast<double>(kHeads * rows * width * hidden);
  std::printf(
      "{\"name\":\"per-head ffn N%ld B%ld D%ld F%ld\",\"fwd_ms\":%.4f,\"fb_ms\":%.4f,\"fwd_TF\":%.1f,"
      "\"fb_TF\":%.1f}\n",
      kHeads, rows, width, hidden, forward_ms, both_ms, flops / forward_ms / 1e9, 3 * flops / both_ms / 1e9);
}

void bench_attention(int64_t requests, int64_t length, const Ceilings& ceilings) {
  constexpr int64_t kHeads = 16, kWidth = 64;
  Rng rng(1);
  Tensor h = random({requests * length, kHeads * kWidth}, bf16, rng),
         u = random({requests, kHeads, kWidth}, bf16, rng);
  h.requires_grad(), u.requires_grad();
  const Tensor dm = random(u.shape(), bf16, rng);
  const auto count = static_cast<size_t>(requests);
  const Tensor history = offsets_of(std::vector<int64_t>(count, length)).to(kCard);
  const Tensor candidates = offsets_of(std::vector<int64_t>(count, 1)).to(kCard);
  const double forward_ms = median_ms(20, 5, [&] {
    const NoGrad off;
    attend(u, h, history, candidates);
  });
  const double both_ms = median_ms(20, 5, [&] {
    attend(u, h, history, candidates).backward(dm);
    u.zero_grad(), h.zero_grad();
  });
  const double bytes = 2 * static_cast<double>(h.numel());
  std::printf(
      "{\"name\":\"one-query attention B%ld N%ld T%ld "
      "Ds%ld\",\"fwd_ms\":%.4f,\"fb_ms\":%.4f,\"fwd_GBs\":%.1f,"
      "\"fwd_of_copy\":%.3f,\"fb_GBs_of_3_passes\":%.1f}\n",
      requests, kHeads, length, kWidth, forward_ms, both_ms, bytes / forward_ms / 1e6,
      bytes / forward_ms / 1e6 / ceilings.gb_per_second, 3 * bytes / both_ms / 1e6);
}

void bench_embedding_bag(bool skewed) {
  constexpr int64_t kTable = 10'000'000, kWidth = 64, kBags = 8192, kIds = 64;
  Rng rng(1);
  Tensor table = random({kTable, kWidth}, f32, rng);
  table.requires_grad();
  Tensor ids = random_ids(kBags * kIds, kTable, rng);
  if (skewed) {
    for (int64_t i = 0; i < ids.numel(); ++i) {
      const double u = rng.uniform();
      ids.data<int64_t>()[i] = std::min(kTable - 1, static_cast<int64_t>(u * u * u * u * u * u * kTable));
    }
  }
  ids = ids.to(kCard);
  const Tensor offsets = offsets_of(std::vector<int64_t>(kBags, kIds)).to(kCard),
               dy = random({kBags, kWidth}, f32, rng);
  Optimizer optimizer({{"table", table, ParameterKind::table}},
                      {.tables = {.name = "adagrad", .lr = .01, .eps = 1e-10}});
  const double ms = median_ms(10, 3, [&] {
    embedding_bag(table, ids, offsets, BagMode::sum).backward(dy);
    optimizer.step();
    optimizer.zero_grad();
  });
  std::printf("{\"name\":\"embedding bag 10Mx64 B8192 P64 sparse adagrad %s\",\"step_ms\":%.4f}\n",
              skewed ? "skewed" : "uniform", ms);
}

void bench_kernels(const Ceilings& ceilings) {
  bench_per_head_ffn(1536, 384, 1024);
  bench_per_head_ffn(1536, 768, 2048);
  bench_per_head_ffn(8192, 64, 256);
  bench_attention(512, 512, ceilings);
  bench_attention(128, 2048, ceilings);
  bench_attention(32, 8192, ceilings);
  bench_embedding_bag(false);
  bench_embedding_bag(true);
}

int profile(const std::string& name, const std::string& recompute) {
  for (const Sizes& s : kSizes) {
    if (name != s.name) continue;
    Step step = make_step(s, recompute, std::vector<int64_t>(static_cast<size_t>(s.batch), s.length), bf16);
    for (int i = 0; i < 3; ++i) step.run();
    cuda::synchronize();
    return 0;
  }
  std::printf("gpu_bench: no sizes are named '%s'\n", name.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (cuda::device_count() == 0) {
    std::printf("gpu_bench: %s\n", cuda::unavailable_reason().c_str());
    return 1;
  }
  if (argc > 3 && std::string(argv[1]) == "profile") return profile(argv[2], argv[3]);
  std::set<std::string> asked(argv + 1, argv + argc);
  const DType compute = asked.erase("f32") ? f32 : bf16;
  std::vector<std::string> recomputes;
  for (const char* recompute : {"none", "ffn", "block"})
    if (asked.erase(recompute)) recomputes.emplace_back(recompute);
  if (recomputes.empty()) recomputes = {"none", "ffn", "block"};
  if (asked.empty()) asked = {"tiny", "small", "medium", "micro"};
  std::printf("{\"card\":\"%s\"}\n", cuda::describe().c_str());
  const Sizes &tiny = kSizes[0], &small = kSizes[1];
  if (asked.count("ragged")) bench_ragged(small, compute);
  if (asked.count("endurance")) bench_endurance(tiny, compute);
  for (const char* recompute : {"ffn", "block"})
    if (asked.count("long")) bench_long(small, recompute, compute);
  cuda::release_memory_cache();
  for (const char* name : {"ragged", "endurance", "long"}) asked.erase(name);
  if (asked.empty()) return 0;
  const Ceilings ceilings = measure_ceilings();
  cuda::release_memory_cache();
  if (asked.count("micro")) bench_kernels(ceilings);
  cuda::release_memory_cache();
  for (const Sizes& sizes : kSizes) {
    if (!asked.count(sizes.name)) continue;
    for (const std::string& recompute : recomputes) bench_step(sizes, recompute, compute, ceilings);
  }
}

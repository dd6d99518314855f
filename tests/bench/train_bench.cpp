// The whole training step of MixFormer's tiny configuration: table look-ups, forward, backward, AdamW on the
// dense parameters, row-sparse Adagrad on two tables of a million rows.  One JSON line a thread count.
//
//   build/bench/train_bench [threads...]      default: 1 2
//
// N=8, D=64, d_s=32, L=2, F=172, F_s=512, T=64, batch 512, 32 fields of width 32, items of width 64, two
// tasks.
#include "mixrec/autograd/record.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/storage.h"
#include "mixrec/models/mixformer.h"
#include "mixrec/ops/loss.h"
#include "mixrec/optim/optimizer.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

using namespace mixrec;

namespace {

constexpr int64_t kBatch = 512, kFields = 32, kLength = 64, kRows = 1'000'000;

FeatureSet spec() {
  FeatureSet set;
  for (int64_t i = 0; i < kFields; ++i) {
    set.features.push_back({.name = "field" + std::to_string(i),
                            .scope = FeatureScope::candidate,
                            .table = "fields",
                            .rows = kRows,
                            .width = 32});
  }
  const FeatureSpec item{
      .name = "item", .group = FeatureGroup::event, .scope = FeatureScope::event, .rows = kRows, .width = 64};
  set.histories.push_back({"clicks", kLength, {item}});
  set.tasks = {{.name = "click"}, {.name = "like"}};
  return set;
}

Tensor random_ids(int64_t count, Rng& rng) {
  Tensor ids = empty({count}, i64);
  for (int64_t i = 0; i < count; ++i) ids.data<int64_t>()[i] = static_cast<int64_t>(rng.below(kRows));
  return ids;
}

Tensor steps_of(int64_t count, int64_t step) {
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i <= count; ++i) offsets.push_back(i * step);
  return Tensor::from(offsets);
}

RequestBatch random_batch(Rng& rng) {
  RequestBatch batch;
  batch.requests = batch.candidates = kBatch;
  batch.offsets = steps_of(kBatch, 1);
  for (int64_t i = 0; i < kFields; ++i) batch.features.push_back({.ids = random_ids(kBatch, rng)});
  batch.histories.push_back({steps_of(kBatch, kLength), {{.ids = random_ids(kBatch * kLength, rng)}}});
  batch.labels = zeros({kBatch, 2});
  for (int64_t i = 0; i < 2 * kBatch; ++i) batch.labels.data<float>()[i] = rng.uniform() < .3 ? 1.f : 0.f;
  return batch;
}

double median_ms(int runs, const auto& f) {
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<size_t>(runs) / 2];
}

void bench(int threads) {
  set_num_threads(threads);
  Rng rng(1);
  MixFormerOptions options{.heads = 8, .width = 64, .layers = 2, .event_width = 32, .ffn_hidden = 172};
  options.sequence_hidden = 512, options.head_hidden = 256, options.pooled_history = false;
  MixFormer model(spec(), options, rng);
  Optimizer optimizer(parameters(model), {.dense = {.name = "adamw", .lr = 1e-3, .weight_decay = .01},
                                          .tables = {.name = "adagrad", .lr = 1e-2, .eps = 1e-10}});
  const RequestBatch batch = random_batch(rng);
  Pass pass{.training = true};
  const size_t tables = host_memory().in_use;
  reset_host_memory_peak();
  const auto step = [&] {
    bce_with_logits(model.forward(batch, pass), batch.labels).backward();
    optimizer.step();
    optimizer.zero_grad();
  };
  const auto forward = [&] {
    const NoGrad off;
    model.forward(batch, pass);
  };
  step();
  const double ms = median_ms(7, step), forward_ms = median_ms(5, forward);
  const double flops = model.forward_flops(batch);
  std::printf(
      "{\"name\":\"tiny training "
      "step\",\"threads\":%d,\"step_ms\":%.1f,\"forward_ms\":%.1f,\"samples_per_second\":%.1f,"
      "\"gflop_per_s\":%.1f,\"peak_MiB_beyond_parameters\":%.0f}\n",
      threads, ms, forward_ms, 1e3 * kBatch / ms, 3 * flops / ms / 1e6,
      static_cast<double>(host_memory().peak - tables) / 1048576.0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1) {
    bench(1);
    bench(2);
  }
  for (int i = 1; i < argc; ++i) bench(std::atoi(argv[i]));
}

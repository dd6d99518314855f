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
#include "mixrec/models/unified/mixformer.h"
#include "mixrec/ops/loss.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/bench/random_batch.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

using namespace mixrec;
using namespace mixrec::bench;

namespace {

constexpr int64_t kBatch = 512, kFields = 32, kLength = 64, kRows = 1'000'000;

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

void bench_step(int threads) {
  set_num_threads(threads);
  Rng rng(1);
  MixFormerOptions options{.heads = 8, .width = 64, .layers = 2, .event_width = 32, .ffn_hidden = 172};
  options.sequence_hidden = 512, options.head_hidden = 256, options.pooled_history = false;
  const FeatureSet set = feature_set(0, kFields, kRows, kLength);
  MixFormer model(set, options, rng);
  Optimizer optimizer(parameters(model), {.dense = {.name = "adamw", .lr = 1e-3, .weight_decay = .01},
                                          .tables = {.name = "adagrad", .lr = 1e-2, .eps = 1e-10}});
  const RequestBatch batch = random_batch(set, std::vector<int64_t>(kBatch, kLength), 1, rng);
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
    bench_step(1);
    bench_step(2);
  }
  for (int i = 1; i < argc; ++i) bench_step(std::atoi(argv[i]));
}

// Memory-bound ops on [32768, 512]: one JSON line each with the time of the best of several runs and the
// bandwidth that the bytes they must read and write come to.
//
//   build/bench/ops_bench [name]
#include "mixrec/autograd/record.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/rng.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/ffn/swiglu.h"
#include "mixrec/ops/norm.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/softmax.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>

using namespace mixrec;

namespace {

constexpr int64_t kRows = 32768, kCols = 512;

struct Bench {
  std::string name;
  int inputs;          // of [rows, cols], each with a gradient
  int forward_passes;  // tensors of that size read and written
  int backward_passes;
  std::function<Tensor(const std::vector<Tensor>&)> run;
};

double best_seconds(const std::function<void()>& f) {
  double best = 1e9;
  for (int i = 0; i < 7; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

void report(const Bench& bench, const char* direction, DType dtype, int passes, double seconds) {
  const double elements = static_cast<double>(kRows * kCols);
  const double bytes = elements * passes * static_cast<double>(size_of(dtype));
  std::printf(
      "{\"op\":\"%s\",\"direction\":\"%s\",\"dtype\":\"%s\",\"threads\":%d,\"ms\":%.3f,\"ns_per_element\":%."
      "3f,"
      "\"gb_per_s\":%.2f}\n",
      bench.name.c_str(), direction, name_of(dtype), num_threads(), seconds * 1e3, seconds * 1e9 / elements,
      bytes / seconds * 1e-9);
}

void measure(const Bench& bench, DType dtype) {
  Rng rng(1);
  std::vector<Tensor> inputs;
  for (int i = 0; i < bench.inputs; ++i) {
    Tensor x = empty({kRows, kCols}, dtype);
    rng.fill_normal(x, 0, 1);
    inputs.push_back(x.requires_grad());
  }
  Tensor upstream = inputs[0].detach().clone();
  report(bench, "forward", dtype, bench.forward_passes, best_seconds([&] {
           const NoGrad off;
           bench.run(inputs);
         }));
  double best = 1e9;
  for (int i = 0; i < 7; ++i) {
    for (Tensor& x : inputs) x.zero_grad();
    const Tensor y = bench.run(inputs);
    const auto start = std::chrono::steady_clock::now();
    y.backward(upstream);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  report(bench, "backward", dtype, bench.backward_passes, best);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  const Tensor gain32 = ones({kCols}).requires_grad(), gain16 = ones({kCols}, bf16).requires_grad();
  const auto gain = [&](const Tensor& x) { return x.dtype() == bf16 ? gain16 : gain32; };
  const std::vector<Bench> benches = {
      {"copy", 1, 2, 2, [](const auto& in) { return in[0] * 1.5; }},
      {"add", 2, 3, 2, [](const auto& in) { return in[0] + in[1]; }},
      {"mul", 2, 3, 5, [](const auto& in) { return in[0] * in[1]; }},
      {"swiglu", 2, 3, 5, [](const auto& in) { return swiglu(in[0], in[1]); }},
      {"rms_norm", 1, 2, 3, [&](const auto& in) { return rms_norm(in[0], gain(in[0])); }},
      {"layer_norm", 1, 2, 3, [&](const auto& in) { return layer_norm(in[0], gain(in[0]), gain(in[0])); }},
      {"softmax", 1, 2, 3, [](const auto& in) { return softmax(in[0]); }},
      {"gelu", 1, 2, 3, [](const auto& in) { return gelu(in[0]); }},
      {"dropout", 1, 2, 2,
       [](const auto& in) {
         Rng rng(1);
         return dropout(in[0], .1, rng, true);
       }},
  };
  for (const Bench& bench : benches) {
    if (!only.empty() && bench.name != only) continue;
    for (const DType dtype : {f32, bf16}) measure(bench, dtype);
  }
}

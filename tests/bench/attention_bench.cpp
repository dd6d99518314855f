// One-query-per-head attention over histories, as JSON lines: time of forward and of forward with backward,
// and the rate at which the events are read (forward reads h once).
#include "mixrec/autograd/record.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/rng.h"
#include "mixrec/ops/attention/attend.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

using namespace mixrec;

namespace {

struct Size {
  int64_t requests, candidates, heads, events, width;  // candidates and events of a request
};

// Least seconds of f(): what other programs take is not ours.
template <class F>
double seconds(F f) {
  using Clock = std::chrono::steady_clock;
  f();
  double best = 1e9, spent = 0;
  for (int runs = 0; runs < 5 || (spent < 1 && runs < 500); ++runs) {
    const auto start = Clock::now();
    f();
    const double time = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, time);
    spent += time;
  }
  return best;
}

Tensor even_offsets(int64_t rows, int64_t length) {
  Tensor offsets = empty({rows + 1}, i64);
  for (int64_t r = 0; r <= rows; ++r) offsets.data<int64_t>()[r] = r * length;
  return offsets;
}

void measure(const Size& size, DType dtype) {
  Rng rng(1);
  Tensor u = empty({size.requests * size.candidates, size.heads, size.width}, dtype);
  Tensor h = empty({size.requests * size.events, size.heads * size.width}, dtype);
  rng.fill_normal(u, 0, .2);
  rng.fill_normal(h, 0, 1);
  u.requires_grad();
  h.requires_grad();
  const Tensor events = even_offsets(size.requests, size.events);
  const Tensor candidates = even_offsets(size.requests, size.candidates);
  const Tensor upstream = ones(u.shape(), dtype);
  const double forward = seconds([&] {
    const NoGrad off;
    attend(u, h, events, candidates);
  });
  const double both = seconds([&] {
    attend(u, h, events, candidates).backward(upstream);
    u.zero_grad();
    h.zero_grad();
  });
  const double gigabytes = static_cast<double>(h.numel()) * static_cast<double>(size_of(dtype)) / 1e9;
  const double gigaflops = 4e-9 * static_cast<double>(u.numel() * size.events);
  std::printf(
      "{\"bench\": \"attend\", \"dtype\": \"%s\", \"threads\": %d, \"requests\": %lld, \"candidates\": %lld, "
      "\"heads\": %lld, \"events\": %lld, \"width\": %lld, \"forward_ms\": %.3f, \"h_gb_per_s\": %.1f, "
      "\"forward_gflops\": %.1f, \"forward_backward_ms\": %.3f}\n",
      name_of(dtype), num_threads(), static_cast<long long>(size.requests),
      static_cast<long long>(size.candidates), static_cast<long long>(size.heads),
      static_cast<long long>(size.events), static_cast<long long>(size.width), 1e3 * forward,
      gigabytes / forward, gigaflops / forward, 1e3 * both);
  std::fflush(stdout);
}

}  // namespace

int main() {
  for (const DType dtype : {f32, bf16}) {
    measure({512, 1, 8, 64, 32}, dtype);
    measure({64, 1, 16, 512, 64}, dtype);
    measure({64, 8, 8, 64, 32}, dtype);
    measure({8, 64, 8, 64, 32}, dtype);
    measure({2, 64, 16, 512, 64}, dtype);
  }
}

#include "mixrec/core/rng.h"

#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/tensor.h"

#include <cmath>
#include <numbers>

namespace mixrec {
namespace {

double uniform53(uint32_t high, uint32_t low) {
  return static_cast<double>((uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

// Box-Muller: two normals from two uniforms.
void normal_pair(const Philox::Block& block, double* out) {
  const double radius = std::sqrt(-2 * std::log1p(-uniform53(block.word[0], block.word[1])));
  const double angle = 2 * std::numbers::pi * uniform53(block.word[2], block.word[3]);
  out[0] = radius * std::cos(angle);
  out[1] = radius * std::sin(angle);
}

// Two numbers from each Philox block: element i depends on i alone, so threads may share the work.
template <class Pair>
void fill(Tensor& x, Rng& rng, Pair pair) {
  MR_CHECK(x.device().is_cpu(), "random numbers are drawn on the host, the tensor is on ", x.device());
  MR_CHECK(x.is_contiguous(), "random numbers fill dense tensors, got strides ", x.strides());
  const int64_t n = x.numel();
  const uint64_t first = rng.advance(static_cast<uint64_t>(n + 1) / 2);
  const Philox philox(rng.seed());
  dispatch_floating(x.dtype(), [&]<class T>() {
    T* values = x.data<T>();
    parallel_for((n + 1) / 2, 50, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        double two[2];
        pair(philox(first + static_cast<uint64_t>(i)), two);
        values[2 * i] = static_cast<T>(two[0]);
        if (2 * i + 1 < n) values[2 * i + 1] = static_cast<T>(two[1]);
      }
    });
  });
  x.bump_version();
}

}  // namespace

double Rng::uniform() {
  const auto block = Philox(seed_)(advance(1));
  return uniform53(block.word[0], block.word[1]);
}

double Rng::normal() {
  double two[2];
  normal_pair(Philox(seed_)(advance(1)), two);
  return two[0];
}

uint64_t Rng::below(uint64_t limit) {
  MR_CHECK(limit > 0, "below() needs a positive limit");
  const auto block = Philox(seed_)(advance(1));
  const uint64_t bits = uint64_t{block.word[0]} << 32 | block.word[1];
  return static_cast<uint64_t>(static_cast<unsigned __int128>(bits) * limit >> 64);
}

void Rng::fill_uniform(Tensor x, double low, double high) {
  fill(x, *this, [=](const Philox::Block& block, double* out) {
    out[0] = low + (high - low) * uniform53(block.word[0], block.word[1]);
    out[1] = low + (high - low) * uniform53(block.word[2], block.word[3]);
  });
}

void Rng::fill_normal(Tensor x, double mean, double deviation) {
  fill(x, *this, [=](const Philox::Block& block, double* out) {
    normal_pair(block, out);
    out[0] = mean + deviation * out[0];
    out[1] = mean + deviation * out[1];
  });
}

uint64_t derive_seed(uint64_t seed, const char* name) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char* c = name; *c; ++c) hash = (hash ^ static_cast<unsigned char>(*c)) * 0x100000001b3;
  const auto block = Philox(seed)(hash, 1);
  return uint64_t{block.word[0]} << 32 | block.word[1];
}

}  // namespace mixrec

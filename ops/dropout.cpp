#include "mixrec/ops/dropout.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/parallel_for.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace mixrec {
namespace {

Tensor dropped(const Tensor& x, double rate, uint64_t seed, uint64_t counter) {
  const auto threshold = static_cast<uint32_t>(std::min(rate * 0x1p32 + .5, 0x1p32 - 1));
  Tensor y = empty_like(x);
  run(x, [&]<class T>(auto backend) {
    kernel::dropout<T>(backend, x.mat<const T>(), seed, counter, threshold, 1 / (1 - rate), y.mat<T>());
  });
  return y;
}

}  // namespace

Tensor dropout(const Tensor& x, double rate, Rng& rng, bool training) {
  MR_OP("dropout");
  MR_CHECK(rate >= 0 && rate < 1, "the rate must be in [0, 1), got ", rate);
  if (!training || rate == 0) return x;
  const uint64_t seed = rng.seed(), counter = rng.advance((static_cast<uint64_t>(x.numel()) + 3) / 4);
  return record(dropped(x, rate, seed, counter), {x}, [&] {
    return [=](const Tensor& dy) -> Grads { return {dropped(dy.contiguous(), rate, seed, counter)}; };
  });
}

namespace kernel {
namespace {

// Eight blocks of Philox side by side: each word has a lane's lower half, its upper half may hold anything.
using Lanes = uint64_t __attribute__((vector_size(32)));
constexpr int64_t kLanes = 4, kVectors = 2, kBlocks = kLanes * kVectors, kWords = 4 * kBlocks;

Lanes product(Lanes words, uint32_t factor) {
#ifdef __AVX2__
  using Halves = int32_t __attribute__((vector_size(32)));
  return (Lanes)__builtin_ia32_pmuludq256((Halves)words, (Halves)(Lanes{} + factor));
#else
  return (words & 0xffffffffu) * factor;
#endif
}

// words[4 b + w] = word w of block first + b: Philox::operator(), which says what the rounds do.
void philox_words(uint64_t seed, uint64_t first, uint32_t* words) {
  Lanes c0[kVectors], c1[kVectors], c2[kVectors] = {}, c3[kVectors] = {};
  for (uint64_t v = 0; v < kVectors; ++v) {
    const Lanes counter = Lanes{0, 1, 2, 3} + (first + v * kLanes);
    c0[v] = counter, c1[v] = counter >> 32;
  }
  auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int64_t v = 0; v < kVectors; ++v) {
      const Lanes p0 = product(c0[v], 0xD2511F53), p1 = product(c2[v], 0xCD9E8D57);
      c0[v] = (p1 >> 32) ^ c1[v] ^ k0;
      c1[v] = p1;
      c2[v] = (p0 >> 32) ^ c3[v] ^ k1;
      c3[v] = p0;
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  for (int64_t v = 0; v < kVectors; ++v) {
    // The pairs (word 0, word 1) and (word 2, word 3) of four blocks, then the blocks one after the other.
    const Lanes front = (c0[v] & 0xffffffffu) | c1[v] << 32, back = (c2[v] & 0xffffffffu) | c3[v] << 32;
    const Lanes blocks[] = {__builtin_shuffle(front, back, Lanes{0, 4, 1, 5}),
                            __builtin_shuffle(front, back, Lanes{2, 6, 3, 7})};
    std::memcpy(words + v * 4 * kLanes, blocks, sizeof(blocks));
  }
}

}  // namespace

template <class T>
void dropout(Cpu, Mat<const T> x, uint64_t seed, uint64_t counter, uint32_t threshold, double scale,
             Mat<T> y) {
  const acc_t<T> factor = static_cast<acc_t<T>>(scale);
  const int64_t count = x.count() * x.cols, groups = (count + kWords - 1) / kWords;
  parallel_for(groups, 8 * kWords, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      uint32_t words[kWords];
      philox_words(seed, counter + static_cast<uint64_t>(group) * kBlocks, words);
      // A group of words may span several rows.
      const int64_t first = group * kWords, last = std::min(count, first + kWords);
      for (int64_t i = first; i < last;) {
        const int64_t row = i / x.cols, col = i % x.cols, n = std::min(last - i, x.cols - col);
        const T* in = x.row(row) + col;
        T* out = y.row(row) + col;
        const uint32_t* word = words + (i - first);
        for (int64_t j = 0; j < n; ++j) {
          const acc_t<T> value = static_cast<acc_t<T>>(in[j]) * factor;
          out[j] = static_cast<T>(word[j] >= threshold ? value : 0);
        }
        i += n;
      }
    }
  });
}

template void dropout(Cpu, Mat<const float>, uint64_t, uint64_t, uint32_t, double, Mat<float>);
template void dropout(Cpu, Mat<const bfloat16>, uint64_t, uint64_t, uint32_t, double, Mat<bfloat16>);
template void dropout(Cpu, Mat<const double>, uint64_t, uint64_t, uint32_t, double, Mat<double>);

}  // namespace kernel
}  // namespace mixrec

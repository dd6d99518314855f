// Philox4x32-10 (Salmon et al., SC'11): a counter-based generator, the same bits on host and device.
//
// A stream is a seed; a position in it is a 64-bit offset.  Dropout saves (seed, offset) instead of a mask.
#pragma once

#include "mixrec/core/host_device.h"

#include <cstdint>

namespace mixrec {

class Tensor;

struct Philox {
  uint32_t key[2];

  explicit MR_HOST_DEVICE Philox(uint64_t seed)
      : key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)} {}

  struct Block {
    uint32_t word[4];
  };

  // The four words at `counter`; `stream` tells apart uses that share a seed.
  MR_HOST_DEVICE Block operator()(uint64_t counter, uint64_t stream = 0) const {
    Block c{{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
             static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)}};
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c.word[0];
      const uint64_t p1 = uint64_t{0xCD9E8D57} * c.word[2];
      c = {{static_cast<uint32_t>(p1 >> 32) ^ c.word[1] ^ k0, static_cast<uint32_t>(p1),
            static_cast<uint32_t>(p0 >> 32) ^ c.word[3] ^ k1, static_cast<uint32_t>(p0)}};
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    return c;
  }
};

// A position in a random stream.  Copyable and serialisable: these two numbers are the whole state.
class Rng {
 public:
  explicit Rng(uint64_t seed = 0, uint64_t offset = 0) : seed_(seed), offset_(offset) {}

  uint64_t seed() const { return seed_; }
  uint64_t offset() const { return offset_; }

  // Reserves `blocks` Philox blocks and returns the first one's counter.
  uint64_t advance(uint64_t blocks) {
    const uint64_t at = offset_;
    offset_ += blocks;
    return at;
  }

  uint32_t next() { return Philox(seed_)(advance(1)).word[0]; }
  double uniform();                // [0, 1), 53 bits
  double normal();                 // mean 0, deviation 1
  uint64_t below(uint64_t limit);  // [0, limit)

  // Fill a dense host tensor of any floating dtype (the same numbers, rounded).
  void fill_uniform(Tensor x, double low, double high);
  void fill_normal(Tensor x, double mean, double deviation);

 private:
  uint64_t seed_;
  uint64_t offset_;
};

// An independent seed for a named use: derive_seed(seed, "dropout").
uint64_t derive_seed(uint64_t seed, const char* name);

}  // namespace mixrec

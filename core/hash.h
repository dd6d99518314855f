// XXH64: a fast 64-bit hash that finds damage.  It is no defence against somebody who wants a collision.
//
// The algorithm is Yann Collet's (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md): four lanes of 64 bits,
// 32 bytes per turn.  tests/bench/hash_bench.cpp measures it; docs/reliability.md has what it gave.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mixrec {

// Of bytes that come in pieces; where they are cut does not matter.
class Hasher {
 public:
  explicit Hasher(uint64_t seed = 0);
  void update(const void* data, size_t bytes);
  void update(std::string_view text) { update(text.data(), text.size()); }
  uint64_t digest() const;  // of all bytes so far

 private:
  uint64_t seed_, lanes_[4], total_ = 0;
  unsigned char rest_[32];
  size_t in_rest_ = 0;
};

uint64_t hash_bytes(const void* data, size_t bytes);

// Sixteen hexadecimal digits.
std::string hash_digits(uint64_t hash);

}  // namespace mixrec

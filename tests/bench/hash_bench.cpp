// XXH64 on one thread, as JSON lines: bytes that lie in the cache, and more bytes than any cache holds.
//
//   build/bench/hash_bench
#include "mixrec/core/hash.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

using namespace mixrec;

namespace {

void measure(const char* where, size_t bytes, int repeats) {
  const std::string data(bytes, 'x');
  double best = 1e9;
  uint64_t hash = 0;
  for (int run = 0; run < 9; ++run) {
    const auto start = std::chrono::steady_clock::now();
    // The seed is the hash before, so that none can be left out.
    for (int i = 0; i < repeats; ++i) {
      Hasher hasher(hash);
      hasher.update(data);
      hash = hasher.digest();
    }
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::min(best, spent.count() / repeats);
  }
  std::printf("{\"hash\":\"XXH64\",\"where\":\"%s\",\"bytes\":%zu,\"gb_per_s\":%.2f,\"digest\":\"%s\"}\n",
              where, bytes, static_cast<double>(bytes) / best * 1e-9, hash_digits(hash).c_str());
}

}  // namespace

int main() {
  measure("cache", size_t{64} << 10, 1000);
  measure("memory", size_t{512} << 20, 1);
}

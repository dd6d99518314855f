#include "mixrec/core/bfloat16.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

using namespace mixrec;

namespace {

// Sets the thread count for a scope.
struct Threads {
  int before = num_threads();
  explicit Threads(int count) { set_num_threads(count); }
  ~Threads() { set_num_threads(before); }
};

constexpr int64_t kHeavy = 1 << 20;  // work per item that always pays for a thread

}  // namespace

TEST_CASE("parallel_for visits every item once, whatever the thread count") {
  for (int threads : {1, 2, 3, 8}) {
    const Threads scope(threads);
    for (int64_t n : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> visits(n);
      std::atomic<int> calls{0};
      parallel_for(n, kHeavy, [&](int64_t begin, int64_t end) {
        ++calls;
        for (int64_t i = begin; i < end; ++i) ++visits[i];
      });
      for (const auto& count : visits) CHECK(count == 1);
      CHECK(calls == std::min<int64_t>(threads, n));
    }
  }
}

TEST_CASE("parallel_for is one call when the work is small or a loop already runs") {
  const Threads scope(4);
  int calls = 0;
  parallel_for(100, 1, [&](int64_t begin, int64_t end) { calls += begin == 0 && end == 100; });
  CHECK(calls == 1);

  std::atomic<int> inner{0};
  parallel_for(4, kHeavy,
               [&](int64_t, int64_t) { parallel_for(4, kHeavy, [&](int64_t, int64_t) { ++inner; }); });
  CHECK(inner == 4);
}

TEST_CASE("parallel_for carries the first error out, with the op's name") {
  const Threads scope(4);
  const auto run = [] {
    MR_OP("outer");
    parallel_for(4, kHeavy, [](int64_t begin, int64_t) {
      if (begin >= 1) MR_FAIL("chunk ", begin);
    });
  };
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::string message;
    try {
      run();
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(message.starts_with("[outer] chunk 1 "));
  }
  CHECK_THROWS_WITH_AS(set_num_threads(0), doctest::Contains("from 1 to 4096, got 0"), Error);
}

TEST_CASE("chunked_reduce sums columns and its bits do not depend on the thread count") {
  const int64_t rows = 5003, width = 17;
  std::vector<float> x(rows * width);
  std::vector<double> exact(width, 1.0);
  for (int64_t i = 0; i < rows * width; ++i) {
    x[i] = std::sin(0.7f * static_cast<float>(i)) * 3;
    exact[i % width] += x[i];
  }
  const auto column_sums = [&](int threads) {
    const Threads scope(threads);
    std::vector<float> sum(width, 1.0f);
    chunked_reduce(rows, width, width * 100, sum.data(), [&](int64_t begin, int64_t end, float* partial) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = 0; j < width; ++j) partial[j] += x[i * width + j];
    });
    return sum;
  };
  const auto one = column_sums(1);
  for (int64_t j = 0; j < width; ++j) CHECK(one[j] == doctest::Approx(exact[j]).epsilon(1e-4));
  for (int threads : {2, 3, 5})
    CHECK(std::memcmp(one.data(), column_sums(threads).data(), width * sizeof(float)) == 0);

  float untouched = 3;
  chunked_reduce(0, 1, 1, &untouched, [](int64_t, int64_t, float* partial) { *partial = 1; });
  CHECK(untouched == 3);
}

TEST_CASE("bfloat16 holds every value exactly and rounds to nearest even") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = bfloat16::from_bits(static_cast<uint16_t>(bits));
    const bfloat16 back(value);
    if (std::isnan(value)) {
      CHECK(std::isnan(static_cast<float>(back)));
      continue;
    }
    if (back.bits != bits) FAIL("bits ", bits, " came back as ", back.bits);
    if (std::isinf(value)) continue;

    // Exactly half way to the next representable number: the even one wins; a hair to either side: the near
    // one.
    const float next = bfloat16::from_bits(static_cast<uint16_t>(bits + 1));
    if (std::isinf(next)) continue;
    const float half = value + (next - value) / 2;
    const uint32_t even = bits & 1 ? bits + 1 : bits;
    if (bfloat16(half).bits != even) FAIL("half way above ", bits, " went to ", bfloat16(half).bits);
    if (bfloat16(std::nextafter(half, value)).bits != bits) FAIL("below half way above ", bits);
    if (bfloat16(std::nextafter(half, next)).bits != bits + 1) FAIL("above half way above ", bits);
  }
  CHECK(std::isinf(static_cast<float>(bfloat16(std::numeric_limits<float>::max()))));
}

#include "mixrec/core/rng.h"

#include "mixrec/core/parallel_for.h"
#include "mixrec/ops/dropout.h"

#include <cmath>
#include <doctest/doctest.h>
#include <set>
#include <string>

using namespace mixrec;

TEST_CASE("Philox: the known answers of its authors") {
  // Random123's kat_vectors, philox4x32 with 10 rounds: counter, key -> words.
  const auto zero = Philox(0)(0, 0);
  CHECK(zero.word[0] == 0x6627e8d5);
  CHECK(zero.word[1] == 0xe169c58d);
  CHECK(zero.word[2] == 0xbc57ac4c);
  CHECK(zero.word[3] == 0x9b00dbd8);
  const auto ones = Philox(~uint64_t{0})(~uint64_t{0}, ~uint64_t{0});
  CHECK(ones.word[0] == 0x408f276d);
  CHECK(ones.word[1] == 0x41c83b0e);
  CHECK(ones.word[2] == 0xa20bc7c6);
  CHECK(ones.word[3] == 0x6d5451fd);
}

TEST_CASE("random numbers are the documented functions of Philox's words") {
  const auto unit = [](uint32_t high, uint32_t low) {  // 53 of 64 bits
    return std::floor((high * 4294967296.0 + low) / 2048) / 9007199254740992.0;
  };
  Tensor x = empty({7}, f64);
  Rng(11, 5).fill_uniform(x, 2, 5);
  const auto values = x.to_vector<double>();
  for (uint64_t i = 0; i < values.size(); ++i) {
    const Philox::Block block = Philox(11)(5 + i / 2);
    const double u = i % 2 ? unit(block.word[2], block.word[3]) : unit(block.word[0], block.word[1]);
    CHECK(values[i] == doctest::Approx(2 + 3 * u).epsilon(1e-14));
  }
  Rng rng(11, 5);
  CHECK(rng.uniform() == doctest::Approx((values[0] - 2) / 3).epsilon(1e-12));
  const uint64_t limit = uint64_t{1} << 40;
  for (uint64_t at = 6; at < 12; ++at) {
    const Philox::Block block = Philox(11)(at);
    const auto expected = static_cast<uint64_t>(std::ldexp(static_cast<double>(block.word[0]), 8)) +
                          (block.word[1] >> 24);  // the upper 40 bits of 64
    CHECK(rng.below(limit) == expected);
  }
  CHECK(rng.below(1) == 0);
}

TEST_CASE("seeds that are derived differ by every letter of the name and by the seed") {
  std::set<uint64_t> seeds;
  for (const char* name : {"", "a", "b", "ab", "ba", "dropout", "dropouT"})
    for (const uint64_t seed : {0, 1, 17}) seeds.insert(derive_seed(seed, name));
  CHECK(seeds.size() == 21);
  CHECK(derive_seed(17, "dropout") == derive_seed(17, std::string("dropout").c_str()));
}

TEST_CASE("random tensors have the moments they should, and the same bits with any number of threads") {
  Tensor x = empty({100001});
  set_num_threads(1);
  Rng(7).fill_normal(x, 1, 2);
  const auto serial = x.to_vector<float>();
  set_num_threads(3);
  Rng(7).fill_normal(x, 1, 2);
  CHECK(x.to_vector<float>() == serial);
  double sum = 0, squares = 0;
  for (const double v : serial) sum += v, squares += (v - 1) * (v - 1);
  CHECK(sum / 100001 == doctest::Approx(1).epsilon(.03));
  CHECK(squares / 100001 == doctest::Approx(4).epsilon(.03));
  set_num_threads(2);
}

TEST_CASE("dropout keeps the share and the mean it should, and nothing changes outside training") {
  const Tensor x = full({100000}, 1);
  Rng rng(3);
  const auto y = dropout(x, .3, rng, true).to_vector<double>();
  double sum = 0, kept = 0;
  for (const double v : y) sum += v, kept += v != 0;
  CHECK(kept / 1e5 == doctest::Approx(.7).epsilon(.01));
  CHECK(sum / 1e5 == doctest::Approx(1).epsilon(.01));
  CHECK(rng.offset() == 25000);
  CHECK(dropout(x, .3, rng, false).id() == x.id());
}

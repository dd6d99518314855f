#include "mixrec/core/rng.h"

#include "mixrec/core/parallel_for.h"
#include "mixrec/ops/dropout.h"

#include <cmath>
#include <doctest/doctest.h>

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

// attend() on a card with many candidates a request, in sizes that the op table has no time for.
#include "mixrec/autograd/record.h"
#include "mixrec/core/rng.h"
#include "mixrec/ops/attention/attend.h"
#include "mixrec/ops/cast.h"
#include "mixrec/tests/card.h"
#include "mixrec/tests/op_cases.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

struct Requests {
  std::vector<int64_t> events, candidates;
};

struct Outcome {
  Tensor m, du, dh;
};

Outcome evaluate(Tensor u, Tensor h, const Requests& requests) {
  u.requires_grad(), h.requires_grad();
  const Tensor m =
      attend(u, h, beside(u, offsets_of(requests.events)), beside(u, offsets_of(requests.candidates)));
  Tensor upstream = empty(m.shape(), f64);
  Rng(5).fill_normal(upstream, 0, 1);
  m.backward(cast(upstream, m.dtype()).to(m.device()));
  return {m.detach(), u.grad(), h.grad()};
}

// Largest distance, relative to the largest number of the tensor; NaN is far from everything.
double distance(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double gap = 0, size = 1e-6;
  for (size_t i = 0; i < x.size(); ++i) {
    gap = std::max(gap, std::isnan(x[i]) ? INFINITY : std::abs(x[i] - y[i]));
    size = std::max(size, std::abs(y[i]));
  }
  return gap / size;
}

// In bfloat16.  Small queries, so that many events count.
Tensor random_numbers(const Shape& shape, uint64_t seed, double deviation) {
  Tensor x = empty(shape, f64);
  Rng(seed).fill_normal(x, 0, deviation);
  return cast(x, bf16);
}

}  // namespace

TEST_CASE("cuda: attend: many candidates in bf16 agree with f64 on the host") {
  if (!has_card("many candidates on a card")) return;
  // The last has so many tiles that one block takes all of a history.
  Requests many{std::vector<int64_t>(400, 3), std::vector<int64_t>(400, 2)};
  many.events[7] = 1100, many.candidates[7] = 70;
  constexpr double kBound = 1.5 / 256;  // one and a half times half a unit of bf16
  const std::vector<Requests> all = {
      {{0, 1, 63, 64, 65, 700, 1500}, {5, 1, 130, 2, 64, 65, 33}}, {{3500, 0}, {40, 3}}, many};
  for (const Requests& requests : all) {
    const int64_t heads = 3;
    for (const int64_t width : {16, 48, 64, 128}) {
      CAPTURE(width);
      CAPTURE(requests.events.back());
      const Tensor u = random_numbers(
                       {offsets_of(requests.candidates).to_vector<int64_t>().back(), heads, width}, 1,
                       1.5 / std::sqrt(width)),
                   h = random_numbers(
                       {offsets_of(requests.events).to_vector<int64_t>().back(), heads * width}, 2, 1);
      const Outcome expected = evaluate(cast(u, f64), cast(h, f64), requests),
                    got = evaluate(u.to(kCard), h.to(kCard), requests);
      CHECK(distance(got.m, expected.m) <= kBound);
      CHECK(distance(got.du, expected.du) <= kBound);
      CHECK(distance(got.dh, expected.dh) <= kBound);
    }
  }
}

TEST_CASE("cuda: attend: a candidate in bf16 has the same bits with any other candidates") {
  if (!has_card("bits of candidates in company on a card")) return;
  const NoGrad no_grad;
  const int64_t heads = 2, width = 64, events = 3000;
  const auto bits = [&](const Tensor& u, const Tensor& h, const Requests& requests) {
    return attend(u, h, beside(u, offsets_of(requests.events)), beside(u, offsets_of(requests.candidates)))
        .to_vector<float>();
  };
  const Tensor h = random_numbers({events, heads * width}, 3, 1).to(kCard),
               u = random_numbers({40'000, heads, width}, 4, .2).to(kCard);
  // So many tiles that no history is cut, against few.
  const auto many = bits(u, h, {{events, 0}, {40'000, 0}});
  for (const int64_t first : {0, 1, 17, 63, 64, 39'990}) {
    CAPTURE(first);
    for (const int64_t count : {2, 10}) {
      const auto few = bits(u.narrow(0, first, count), h, {{events}, {count}});
      CHECK(std::equal(few.begin(), few.end(), many.begin() + first * heads * width));
    }
  }
}

#include "mixrec/core/simd.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <limits>
#include <vector>

using namespace mixrec;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// |got - exact| in units in the last place of the float nearest to `exact`.
double ulps(float got, double exact) {
  const float nearest = static_cast<float>(exact);
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e9;
  if (std::isinf(nearest) || std::isinf(got)) return got == nearest ? 0 : 1e9;
  const int exponent = std::max(std::ilogb(nearest == 0 ? 1e-45f : nearest), -126);
  return std::fabs(got - exact) / std::ldexp(1.0, exponent - 23);
}

// Kept out of line because GCC 12 dies on its inlined form below AVX.
// The largest error of `approximate` against `exact` over floats spread evenly by bit pattern, both signs,
// and specials.
template <class F, class G>
[[gnu::noinline]] double worst(F approximate, G exact, uint32_t step = 32771) {
  std::vector<float> inputs{0.0f,   -0.0f,           1.0f,        -1.0f,     kInfinity, -kInfinity, kNan,
                            1e-45f, 1.17549435e-38f, 88.7228f,    88.7229f,  -87.3f,    -103.9f,    -104.0f,
                            0.625f, -0.625f,         0.70710677f, 1.4142135f};
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += step)
    inputs.push_back(std::bit_cast<float>(uint32_t(bits)));
  while (inputs.size() % 8) inputs.push_back(0.5f);
  double largest = 0;
  for (size_t i = 0; i < inputs.size(); i += 8) {
    float outputs[8];
    simd::store(outputs, approximate(simd::load(&inputs[i])));
    for (int j = 0; j < 8; ++j) {
      const double error = ulps(outputs[j], exact(static_cast<double>(inputs[i + j])));
      if (error > 100) MESSAGE("input ", inputs[i + j], " gave ", outputs[j]);
      largest = std::max(largest, error);
    }
  }
  return largest;
}

double exact_sigmoid(double x) { return x > 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

// One formula for the three value types.
struct Formula {
  template <class T>
  T operator()(T x, T y) const {
    const T outer = simd::tanh(x) * y - simd::sigmoid(y);
    const T sizes = simd::sqrt(simd::abs(x)) + simd::exp(simd::min(y, T(1))) + simd::log(simd::abs(y) + 0.5f);
    return simd::select(x < 0.25f, outer, simd::max(x, y) / sizes);
  }
};

}  // namespace

TEST_CASE("simd exp, log, tanh and sigmoid are within their stated errors everywhere") {
  CHECK(worst([](auto x) { return simd::exp(x); }, [](double x) { return std::exp(x); }) < 1.1);
  CHECK(worst([](auto x) { return simd::log(x); }, [](double x) { return std::log(x); }) < 1);
  CHECK(worst([](auto x) { return simd::tanh(x); }, [](double x) { return std::tanh(x); }) < 2);
  CHECK(worst([](auto x) { return simd::sigmoid(x); }, exact_sigmoid) < 2.2);
}

TEST_CASE("simd functions keep the signs, limits and NaNs of the standard library") {
  CHECK(simd::exp(-kInfinity) == 0.0f);
  CHECK(simd::exp(kInfinity) == kInfinity);
  CHECK(std::isnan(simd::exp(kNan)));
  CHECK(simd::log(0.0f) == -kInfinity);
  CHECK(simd::log(-0.0f) == -kInfinity);
  CHECK(simd::log(1.0f) == 0.0f);
  CHECK(std::isnan(simd::log(-1.0f)));
  CHECK(std::isnan(simd::log(-kInfinity)));
  CHECK(std::isnan(simd::tanh(kNan)));
  CHECK(simd::tanh(kInfinity) == 1.0f);
  CHECK(simd::tanh(-kInfinity) == -1.0f);
  CHECK(std::signbit(simd::tanh(-0.0f)));
  CHECK(simd::sigmoid(-kInfinity) == 0.0f);
  CHECK(simd::sigmoid(kInfinity) == 1.0f);
  CHECK(simd::sigmoid(-100.0f) > 0.0f);  // subnormal
  CHECK(std::isnan(simd::max(simd::Floats8(0.0f), simd::Floats8(kNan))[3]));
}

TEST_CASE("simd gives a value the same bits alone, in a body and in a tail; doubles agree") {
  for (int64_t n : {0, 1, 7, 8, 9, 31, 64}) {
    std::vector<float> x(n), y(n), z(n + 2, kNan);
    std::vector<double> xd(n), yd(n), zd(n);
    for (int64_t i = 0; i < n; ++i) {
      xd[i] = x[i] = std::sin(static_cast<float>(i)) * 4;
      yd[i] = y[i] = std::cos(static_cast<float>(3 * i)) * 2;
    }
    simd::transform(n, z.data() + 1, Formula(), x.data(), y.data());
    simd::transform(n, zd.data(), Formula(), xd.data(), yd.data());
    CHECK(std::isnan(z.front()));
    CHECK(std::isnan(z.back()));
    for (int64_t i = 0; i < n; ++i) {
      CHECK(z[i + 1] == doctest::Approx(zd[i]).epsilon(1e-5));
      float alone;
      simd::transform(1, &alone, Formula(), &x[i], &y[i]);
      CHECK(std::memcmp(&alone, &z[i + 1], sizeof(float)) == 0);
    }
    for (int64_t i = 0; i < n; ++i) {
      float exps[1];
      simd::transform(
          1, exps, [](auto v) { return simd::exp(v); }, &x[i]);
      CHECK(exps[0] == simd::exp(x[i]));
    }
  }
}

TEST_CASE("simd loads, stores and sums") {
  float in[10] = {kNan, 1, 2, 3, 4, 5, 6, 7, 8, kNan};
  const simd::Floats8 all = simd::load(in + 1);
  CHECK(simd::sum(all) == 36);
  CHECK(simd::max(all) == 8);
  for (int count = 0; count <= 8; ++count) {
    const simd::Floats8 some = simd::load(in + 1, count);
    CHECK(simd::sum(some) == count * (count + 1) / 2);
    float out[10];
    std::fill(out, out + 10, -1.0f);
    simd::store(out + 1, all, count);
    for (int i = 0; i < 10; ++i) CHECK(out[i] == (i >= 1 && i <= count ? static_cast<float>(i) : -1.0f));
  }
  const auto negative = simd::Floats8(-2.0f);
  CHECK(simd::sum(simd::select((all > 2) & !(all >= 7), all, negative)) == 3 + 4 + 5 + 6 - 8);
}

TEST_CASE("simd rounds to bfloat16 as bfloat16 itself does") {
  std::vector<float> values{0.0f, -0.0f, kInfinity, -kInfinity, kNan, -kNan, 1e-45f, 3.4e38f};
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 65521)
    values.push_back(std::bit_cast<float>(uint32_t(bits)));
  std::vector<bfloat16> rounded(values.size());
  simd::transform(
      static_cast<int64_t>(values.size()), rounded.data(), [](auto x) { return x; }, values.data());
  std::vector<float> back(values.size());
  simd::transform(
      static_cast<int64_t>(values.size()), back.data(), [](auto x) { return x; }, rounded.data());
  for (size_t i = 0; i < values.size(); ++i) {
    const bfloat16 expected(values[i]);
    if (rounded[i].bits != expected.bits) FAIL("rounding of ", values[i]);
    const float widened = expected;
    if (std::memcmp(&widened, &back[i], sizeof(float)) != 0) FAIL("widening of ", expected.bits);
  }
}

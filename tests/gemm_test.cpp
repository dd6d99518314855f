#include "mixrec/ops/gemm/gemm.h"

#include "mixrec/core/cpu.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/tests/skip.h"

#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace mixrec;
using kernel::Gemm;

namespace {

struct Threads {
  int before = num_threads();
  explicit Threads(int count) { set_num_threads(count); }
  ~Threads() { set_num_threads(before); }
};

struct WithIsa {
  Isa before = current_isa();
  explicit WithIsa(Isa isa) { set_isa(isa); }
  ~WithIsa() { set_isa(before); }
};

// Those that this processor runs.
std::vector<Isa> all_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (isa <= widest_isa())
      isas.push_back(isa);
    else
      test::skip(std::string("gemm's ") + isa_name(isa) + " kernel: not on this processor");
  return isas;
}

constexpr int64_t kGuard = 64;

// A product with operands filled, C surrounded by guard bands, gaps between rows, and everything outside C's
// elements NaN.
template <class T, class Out>
struct Case {
  Gemm g;
  std::vector<T> a, b;
  std::vector<Out> c, bias;
  bool with_bias;

  Case(Gemm shape, bool with_bias, int64_t gap = 0) : g(shape), with_bias(with_bias) {
    const int64_t a_rows = g.transpose_a ? g.k : g.m, a_columns = g.transpose_a ? g.m : g.k;
    const int64_t b_rows = g.transpose_b ? g.n : g.k, b_columns = g.transpose_b ? g.k : g.n;
    g.lda = a_columns + gap, g.ldb = b_columns + 2 * gap, g.ldc = g.n + gap;
    if (g.stride_a == 0 && g.batch > 1) g.stride_a = a_rows * g.lda + gap;
    if (g.stride_b < 0)
      g.stride_b = 0;
    else if (g.batch > 1)
      g.stride_b = b_rows * g.ldb;
    g.stride_c = g.m * g.ldc, g.stride_bias = g.n;
    std::mt19937 random(static_cast<unsigned>(g.m * 7919 + g.n * 31 + g.k));
    std::uniform_real_distribution<float> uniform(-1, 1);
    // No element beyond the last one used: reading past the end is for the sanitizer to see.
    a.resize(a_rows && a_columns ? (g.batch - 1) * g.stride_a + (a_rows - 1) * g.lda + a_columns : 0);
    b.resize(b_rows && b_columns ? (g.batch - 1) * g.stride_b + (b_rows - 1) * g.ldb + b_columns : 0);
    c.resize(g.batch * g.stride_c + 2 * kGuard, Out(std::numeric_limits<float>::quiet_NaN()));
    bias.resize(g.batch * g.n);
    for (auto& x : a) x = T(uniform(random));
    for (auto& x : b) x = T(uniform(random));
    for (auto& x : bias) x = Out(uniform(random));
    if (g.accumulate) each([&](int64_t at, int64_t, int64_t, int64_t) { c[at] = Out(uniform(random)); });
  }

  template <class F>
  void each(F f) const {
    for (int64_t item = 0; item < g.batch; ++item)
      for (int64_t i = 0; i < g.m; ++i)
        for (int64_t j = 0; j < g.n; ++j) f(kGuard + item * g.stride_c + i * g.ldc + j, item, i, j);
  }

  std::vector<Out> run() const {
    std::vector<Out> result = c;
    kernel::gemm(g, a.data(), b.data(), result.data() + kGuard, with_bias ? bias.data() : nullptr);
    return result;
  }

  // Empty, or what is wrong with `result`: an element off by more than `tolerance` of its terms' sizes, or a
  // touched guard.
  std::string verify(const std::vector<Out>& result, double tolerance) const {
    std::vector<bool> inside(c.size());
    std::string wrong;
    each([&](int64_t at, int64_t item, int64_t i, int64_t j) {
      inside[at] = true;
      double sum = 0, size = 1e-30;
      for (int64_t p = 0; p < g.k; ++p) {
        const double x =
            static_cast<double>(a[item * g.stride_a + (g.transpose_a ? p * g.lda + i : i * g.lda + p)]) *
            static_cast<double>(b[item * g.stride_b + (g.transpose_b ? j * g.ldb + p : p * g.ldb + j)]);
        sum += g.alpha * x, size += std::fabs(g.alpha * x);
      }
      const double old = g.accumulate ? static_cast<double>(c[at]) : 0;
      const double shift = with_bias ? static_cast<double>(bias[item * g.stride_bias + j]) : 0;
      const double error = std::fabs(static_cast<double>(result[at]) - (sum + old + shift));
      if (!(error <= tolerance * (size + std::fabs(old) + std::fabs(shift))))
        wrong = concat_message("item ", item, " row ", i, " column ", j, ": ",
                               static_cast<double>(result[at]), " for ", sum + old + shift);
    });
    for (size_t at = 0; at < c.size(); ++at)
      if (!inside[at] && !std::isnan(static_cast<double>(result[at])))
        wrong = concat_message("wrote outside at ", at);
    return wrong;
  }
};

template <class T>
bool same_bits(const std::vector<T>& x, const std::vector<T>& y) {
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0;
}

Gemm shape(int64_t m, int64_t n, int64_t k, int transposes = 0) {
  Gemm g;
  g.m = m, g.n = n, g.k = k;
  g.transpose_a = transposes & 1, g.transpose_b = transposes & 2;
  return g;
}

template <class T, class Out = T>
void check_all(double tolerance) {
  // Around the panels' sizes and the blocks of k, and small: the definition is slow, slower still on an
  // emulated processor.
  const int64_t sizes[][3] = {{1, 1, 1},    {1, 37, 5},   {1, 140, 20}, {2, 3, 400},  {14, 32, 8},
                              {15, 33, 9},  {3, 5, 800},  {70, 1, 20},  {15, 172, 9}, {64, 12, 7},
                              {13, 100, 3}, {180, 35, 3}, {30, 18, 2},  {5, 7, 0}};
  int variant = 0;
  for (const auto& [m, n, k] : sizes)
    for (int transposes = 0; transposes < 4; ++transposes, ++variant) {
      Gemm g = shape(m, n, k, transposes);
      g.accumulate = variant % 3 == 1, g.alpha = variant % 5 == 2 ? 0.5 : 1,
      g.batch = variant % 7 == 3 ? 3 : 1;
      const Case<T, Out> test(g, variant % 4 == 2, variant % 2 * 5);
      const std::string wrong = test.verify(test.run(), tolerance);
      if (!wrong.empty()) FAIL_CHECK("[", m, ", ", n, ", ", k, "] transposes ", transposes, ": ", wrong);
    }
}

}  // namespace

TEST_CASE("gemm equals the definition: sizes, transposes, strides, batches, bias, accumulation") {
  for (Isa isa : all_isas()) {
    const WithIsa scope(isa);
    INFO(isa_name(isa));
    const Threads team(3);
    check_all<float>(1e-6);
    check_all<bfloat16>(5e-3);
    check_all<bfloat16, float>(1e-6);
  }
  check_all<double>(1e-14);
}

TEST_CASE("gemm with a long k, cut in parts where A is transposed") {
  for (Isa isa : all_isas()) {
    const WithIsa scope(isa);
    for (int transposes : {1, 2}) {
      Gemm g = shape(3, 7, 5003, transposes);
      g.batch = 2, g.accumulate = transposes == 1;
      const Case<float, float> test(g, true, 3);
      CHECK(test.verify(test.run(), 1e-6).empty());
      const Case<bfloat16, float> mixed(g, false);
      CHECK(mixed.verify(mixed.run(), 1e-6).empty());
      const Case<bfloat16, bfloat16> narrow(g, true);
      CHECK(narrow.verify(narrow.run(), 5e-3).empty());
    }
  }
}

TEST_CASE("gemm leaves everything alone when there is nothing to compute") {
  for (auto [m, n, batch] : {std::tuple{0, 5, 1}, {5, 0, 1}, {5, 5, 0}}) {
    Gemm g = shape(m, n, 4);
    g.batch = batch, g.lda = 4, g.ldb = g.ldc = 5;
    const std::vector<float> a(20, 1), b(20, 1);
    std::vector<float> c(25, 7);
    kernel::gemm(g, a.data(), b.data(), c.data());
    CHECK(c == std::vector<float>(25, 7));
  }
}

TEST_CASE("gemm shares an operand of stride 0 over the batch, and reads heads out of rows") {
  // y[r, h, :] = x[r, h, :] W[h]: heads side by side in each row, as [rows, heads, width] lies in memory.
  const int64_t rows = 50, heads = 4, in = 24, out = 10;
  Gemm g = shape(rows, out, in);
  g.lda = heads * in, g.ldb = out, g.ldc = heads * out, g.batch = heads;
  g.stride_a = in, g.stride_b = in * out, g.stride_c = out;
  std::vector<float> x(rows * heads * in), w(heads * in * out), y(rows * heads * out, NAN);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  for (size_t i = 0; i < w.size(); ++i) w[i] = std::cos(static_cast<float>(i));
  for (int64_t stride_b : {in * out, int64_t{0}}) {
    g.stride_b = stride_b;
    kernel::gemm(g, x.data(), w.data(), y.data());
    double worst = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t f = 0; f < out; ++f) {
          double sum = 0;
          for (int64_t d = 0; d < in; ++d)
            sum += double{x[(r * heads + h) * in + d]} * double{w[h * stride_b + d * out + f]};
          worst = std::max(worst, std::fabs(sum - y[(r * heads + h) * out + f]));
        }
    CHECK(worst < 1e-5);
  }
}

TEST_CASE(
    "gemm's bits depend on neither the threads nor, for a row of a plain product, the other rows and "
    "columns") {
  for (Isa isa : all_isas()) {
    const WithIsa scope(isa);
    for (int transposes : {0, 1, 2}) {
      Gemm g = shape(20, 34, 4200, transposes);
      const Case<float, float> test(g, true);
      const auto run = [&](int threads) {
        const Threads team(threads);
        return test.run();
      };
      const auto one = run(1);
      for (int threads : {2, 5}) CHECK(same_bits(one, run(threads)));
    }
    const Case<float, float> test(shape(100, 90, 700), false);
    const auto all = test.run();
    for (const auto& [rows, columns] : {std::pair{1, 90}, {1, 64}, {3, 20}, {37, 33}}) {
      CAPTURE(static_cast<int>(isa));
      CAPTURE(rows);
      CAPTURE(columns);
      Gemm g = test.g;
      g.m = rows, g.n = columns;
      std::vector<float> c(test.c.size());
      kernel::gemm(g, test.a.data(), test.b.data(), c.data());
      bool equal = true;
      for (int64_t i = 0; i < rows; ++i)
        equal &= std::memcmp(&c[i * g.ldc], &all[kGuard + i * g.ldc], columns * sizeof(float)) == 0;
      CHECK(equal);
    }
  }
}

TEST_CASE("gemm's AVX2 and AVX-512 kernels give the same bits") {
  if (widest_isa() < Isa::avx512) return test::skip("gemm avx2 against avx512: no avx512 on this processor");
  for (int transposes = 0; transposes < 4; ++transposes) {
    const Case<float, float> test(shape(61, 75, 3000, transposes), true);
    const auto run = [&](Isa isa) {
      const WithIsa scope(isa);
      return test.run();
    };
    CHECK(same_bits(run(Isa::avx2), run(Isa::avx512)));
  }
}

TEST_CASE("gemm refuses impossible shapes") {
  Gemm g = shape(2, -3, 4);
  CHECK_THROWS_WITH_AS(kernel::gemm(g, (const float*)nullptr, nullptr, (float*)nullptr),
                       doctest::Contains("n = -3"), Error);
  g = shape(2, 3, 4);
  g.lda = 4, g.ldb = 2, g.ldc = 3;
  CHECK_THROWS_WITH_AS(kernel::gemm(g, (const double*)nullptr, nullptr, nullptr),
                       doctest::Contains("rows of B overlap: they are 2 apart and 3 long"), Error);
}

TEST_CASE("an instruction set that does not exist or does not run here is refused") {
  CHECK(std::string(isa_name(Isa::avx512)) == "avx512");
  if (widest_isa() == Isa::avx512)
    return test::skip("refusing an instruction set: this processor runs all of them");
  CHECK_THROWS_WITH_AS(set_isa(Isa::avx512), doctest::Contains("cannot run avx512"), Error);
}

// What the op table cannot see of pointwise ops and losses: extremes, kinks, and accuracy in f32.
#include "mixrec/ops/pointwise.h"

#include "mixrec/core/rng.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/softmax.h"

#include <cmath>
#include <doctest/doctest.h>
#include <functional>

using namespace mixrec;

namespace {

const float kInf = INFINITY, kNan = NAN;

Tensor floats(const std::vector<float>& values) { return Tensor::from(values); }

using Function = Tensor (*)(const Tensor&);

// The derivative at each element of x.
std::vector<float> slopes(const std::function<Tensor(const Tensor&)>& f, const std::vector<float>& x) {
  Tensor leaf = Tensor::from(x).requires_grad();
  sum(f(leaf)).backward();
  return leaf.grad().to_vector();
}

}  // namespace

TEST_CASE("pointwise: slopes at the kinks are the documented ones") {
  const std::vector<float> zero{0, -0.f};
  CHECK(slopes(Function(relu), zero) == std::vector<float>{0, 0});
  CHECK(slopes(Function(mixrec::abs), zero) == std::vector<float>{0, 0});
  CHECK(slopes([](const Tensor& x) { return leaky_relu(x, .25); }, {0, 1, -1}) ==
        std::vector<float>{.25, 1, .25});
  CHECK(slopes([](const Tensor& x) { return clamp(x, -1, 2); }, {-1, 2, -1.5, 2.5, 0}) ==
        std::vector<float>{1, 1, 0, 0, 1});
  CHECK(slopes(Function(mixrec::sqrt), {0}) == std::vector<float>{kInf});
}

TEST_CASE("pointwise: a NaN stays one, infinities go to their limits") {
  for (const Function f :
       {Function(relu), Function(silu), Function(gelu), Function(sigmoid), Function(mixrec::tanh),
        Function(mixrec::exp), Function(mixrec::log), Function(mixrec::log1p), Function(mixrec::sqrt),
        Function(square), Function(mixrec::abs), Function(softplus)}) {
    CHECK(std::isnan(f(floats({kNan})).item()));
  }
  CHECK(std::isnan(clamp(floats({kNan}), -1, 1).item()));
  const Tensor ends = floats({-kInf, kInf});
  const auto at_ends = [&](Function f) { return f(ends).to_vector(); };
  CHECK(at_ends(relu) == std::vector<float>{0, kInf});
  CHECK(at_ends(sigmoid) == std::vector<float>{0, 1});
  CHECK(at_ends(mixrec::tanh) == std::vector<float>{-1, 1});
  CHECK(at_ends(softplus) == std::vector<float>{0, kInf});
  CHECK(at_ends(mixrec::exp) == std::vector<float>{0, kInf});
  CHECK(mixrec::log1p(floats({-1.f, kInf})).to_vector() == std::vector<float>{-kInf, kInf});
}

TEST_CASE("pointwise: gelu, softplus, log1p and silu are accurate in f32") {
  std::vector<double> values;
  for (int i = -4000; i <= 4000; ++i) values.push_back(i * .0025);
  const Tensor x = cast(Tensor::from(values), f32), wide = cast(x, f64);
  // Relative to each element, down to results of 1e-22.
  const auto worst = [&](Function f, const Tensor& low, const Tensor& high) {
    const auto got = f(low).to_vector<double>(), expected = f(high).to_vector<double>();
    double error = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error = std::max(error, std::abs(got[i] - expected[i]) / std::max(std::abs(expected[i]), 1e-30));
    }
    return error;
  };
  CHECK(worst(gelu, x, wide) < 2e-6);
  CHECK(worst(softplus, x, wide) < 1e-6);
  CHECK(worst(silu, x, wide) < 1e-6);
  const Tensor small = cast(x * 1e-4, f32);
  CHECK(worst(mixrec::log1p, small, cast(small, f64)) < 3e-7);
}

TEST_CASE("bce: extreme logits give finite losses and gradients; an entry of weight 0 does not count") {
  Tensor z = Tensor::from({1000.f, -1000.f, 1000.f, -1000.f, kNan}, {5, 1}).requires_grad();
  const Tensor y = Tensor::from({1.f, 0.f, 0.f, 1.f, kNan}, {5, 1});
  const Tensor w = Tensor::from({1.f, 1.f, 1.f, 1.f, 0.f}, {5, 1});
  const Tensor loss = bce_with_logits(z, y, w);
  CHECK(loss.item() == 500);
  loss.backward();
  CHECK(z.grad().to_vector() == std::vector<float>{0, 0, .25, -.25, 0});
  CHECK(bce_with_logits(z, y, zeros({5, 1})).item() == 0);
  CHECK(bce_with_logits(ones({0, 2}), ones({0, 2})).item() == 0);
}

TEST_CASE("bce: parts divided by the global count add up to the whole") {
  Rng rng(5);
  Tensor z = empty({300, 2}, f64);
  rng.fill_normal(z, 0, 2);
  const Tensor y = full({300, 2}, .25, f64);
  double parts = 0;
  for (const int64_t start : {0, 100, 200}) {
    parts += bce_with_logits(z.narrow(0, start, 100), y.narrow(0, start, 100), {}, 600).item();
  }
  CHECK(parts == doctest::Approx(bce_with_logits(z, y).item()).epsilon(1e-12));
}

TEST_CASE("max: the first of equals gets the gradient, and a NaN wins") {
  Tensor x = Tensor::from({1.f, 3.f, 3.f, kNan, 2.f, kNan}, {2, 3}).requires_grad();
  const Tensor y = max(x, 1);
  CHECK(y.to_vector()[0] == 3);
  CHECK(std::isnan(y.to_vector()[1]));
  sum(y).backward();
  CHECK(x.grad().to_vector() == std::vector<float>{0, 1, 0, 1, 0, 0});
}

TEST_CASE("layout: integers can be put together and gathered too") {
  const Tensor a = Tensor::from(std::vector<int64_t>{1, 2}), b = Tensor::from(std::vector<int64_t>{3});
  CHECK(concat({a, b}, 0).to_vector<int64_t>() == std::vector<int64_t>{1, 2, 3});
  CHECK(gather_rows(a, Tensor::from(std::vector<int64_t>{1, 1, 0})).to_vector<int64_t>() ==
        std::vector<int64_t>{2, 2, 1});
  CHECK(pad_last(a, 1).to_vector<int64_t>() == std::vector<int64_t>{1, 2, 0});
}

TEST_CASE("tensor: fill reaches any strides, and nothing but the view") {
  const Tensor x = zeros({2, 3});
  x.select(1, 1).fill(5);
  x.narrow(1, 2, 0).fill(7);
  CHECK(x.to_vector() == std::vector<float>{0, 5, 0, 0, 5, 0});
}

TEST_CASE("softmax: large numbers neither overflow nor vanish") {
  for (const float at : {1000.f, -1000.f}) {
    const Tensor x = Tensor::from({at, at + 1}, {1, 2});
    const auto y = softmax(x).to_vector<double>(), logs = log_softmax(x).to_vector<double>();
    CHECK(y[1] == doctest::Approx(1 / (1 + std::exp(-1.))).epsilon(1e-5));
    CHECK(logs[0] == doctest::Approx(-std::log(1 + std::exp(1.))).epsilon(1e-4));
    CHECK(logsumexp(x).item() == doctest::Approx(at + std::log(1 + std::exp(1.))).epsilon(1e-6));
  }
}

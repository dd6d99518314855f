#include "mixrec/autograd/checkpoint.h"
#include "mixrec/autograd/gradcheck.h"
#include "mixrec/autograd/meta.h"
#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"
#include "mixrec/core/rng.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/ffn/ffn.h"
#include "mixrec/ops/ffn/residual_ffn.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/norm.h"
#include "mixrec/ops/softmax.h"
#include "mixrec/tests/message_of.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <string>

using namespace mixrec;
using mixrec::test::message_of;

namespace {

Tensor leaf(std::initializer_list<double> values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}).requires_grad();
}

}  // namespace

TEST_CASE("autograd: gradients accumulate over uses and over backwards") {
  Tensor x = leaf({1, 2, 3});
  (x * x + x).backward(ones({3}, f64));
  CHECK(x.grad().to_vector<double>() == std::vector<double>{3, 5, 7});
  (x * 2.0).backward(ones({3}, f64));
  CHECK(x.grad().to_vector<double>() == std::vector<double>{5, 7, 9});
  x.zero_grad();
  CHECK(!x.grad().defined());
}

TEST_CASE("autograd: every use of an op's result adds to its gradient") {
  for (const int uses : {2, 3, 5}) {
    Tensor x = leaf({1, 2});
    const Tensor h = x * 2.0;
    Tensor y = h * 1.0;
    for (int i = 2; i <= uses; ++i) y = y + h * static_cast<double>(i);
    y.backward(ones({2}, f64));
    const double all = uses * (uses + 1);  // 2 (1 + 2 + … + uses)
    CHECK(x.grad().to_vector<double>() == std::vector<double>{all, all});
  }
}

namespace {

// x, whose backward adds to what newer uses of x left, and says whether there was something.
Tensor adding(const Tensor& x, bool* added) {
  return record(x.clone(), {x}, [&] {
    return [added](const Tensor& dy, const Needs& needs) -> Grads {
      const Tensor sum = needs.running(0);
      *added = sum.defined();
      if (!sum) return {dy.clone()};
      add_into(sum, dy);
      return {sum};
    };
  });
}

}  // namespace

TEST_CASE("autograd: an op may add to the gradient that newer uses of its input left") {
  Tensor x = leaf({1, 2});
  bool added = false;
  const Tensor h = x * 2.0, first = adding(h, &added), second = h * 3.0;
  (first + second).backward(ones({2}, f64));
  CHECK(added);
  CHECK(x.grad().to_vector<double>() == std::vector<double>{8, 8});
  // There is none: of a leaf, of the newest use, and while a checkpoint recomputes.
  x.zero_grad();
  const Tensor of_leaf = adding(x, &added), other = x * 3.0;
  (of_leaf + other).backward(ones({2}, f64));
  CHECK(!added);
  const Tensor g = x * 2.0, older = g * 3.0, newest = adding(g, &added);
  (older + newest).backward(ones({2}, f64));
  CHECK(!added);
  const auto inside = [&](const std::vector<Tensor>& in) {
    const Tensor y = in[0] * 2.0, before = adding(y, &added);
    return before + y * 3.0;
  };
  x.zero_grad();
  checkpoint(inside, {x * 1.0}).backward(ones({2}, f64));
  CHECK(!added);
  CHECK(x.grad().to_vector<double>() == std::vector<double>{8, 8});
}

TEST_CASE("autograd: what others see is not added to") {
  Rng rng(2);
  const auto random = [&](const Shape& shape) {
    Tensor y = empty(shape, f64);
    rng.fill_normal(y, 0, 1);
    return y;
  };
  Tensor x = random({5, 2, 3}).requires_grad();
  const Tensor w = random({2, 3, 3}), upstream = random({5, 2, 3}), kept = upstream.clone();
  const auto gradient = [&](bool shares) {
    x.zero_grad();
    const Tensor h = x * 1.0, product = per_head_matmul(h, w);
    // The gradient of a residual is the upstream one itself.
    (shares ? per_head_matmul(product, w, {.residual = h}) : per_head_matmul(product, w) + h * 1.0)
        .backward(upstream);
    return x.grad().to_vector<double>();
  };
  const auto apart = gradient(false), shared = gradient(true);
  for (size_t i = 0; i < apart.size(); ++i) CHECK(shared[i] == doctest::Approx(apart[i]).epsilon(1e-12));
  CHECK(upstream.to_vector<double>() == kept.to_vector<double>());
}

TEST_CASE("autograd: gradients of several uses agree with finite differences") {
  Rng rng(4);
  std::vector<Tensor> inputs;
  for (const Shape& shape : {Shape{5, 2, 3}, Shape{2, 3, 3}, Shape{2, 3, 3}, Shape{3, 3}, Shape{3}}) {
    Tensor y = empty(shape, f64);
    rng.fill_normal(y, 0, 1);
    inputs.push_back(y.requires_grad());
  }
  const auto uses = [](const std::vector<Tensor>& in) {
    const Tensor h = in[0] * 1.5;
    const Tensor a = rms_norm(h, in[4]), b = per_head_matmul(h, in[1], {.transpose_w = true, .scale = .5}),
                 c = linear(h, in[3]), d = per_head_matmul(h, in[2], {.residual = h});
    return a + b + c + d;
  };
  const auto result = gradcheck(uses, inputs);
  CHECK_MESSAGE(result.passed, result.message);
}

TEST_CASE("autograd: a second backward through one graph is refused") {
  Tensor x = leaf({1, 2});
  const Tensor y = x * x;
  y.backward(ones({2}, f64));
  CHECK(message_of([&] { y.backward(ones({2}, f64)); }).find("second backward") != std::string::npos);
}

TEST_CASE("autograd: a saved tensor that was changed in place is refused") {
  Tensor x = leaf({1, 2});
  Tensor scale = Tensor::from({3., 4.}, {2});
  const Tensor y = x * scale;
  scale.fill(0);
  CHECK(message_of([&] { y.backward(ones({2}, f64)); }).find("changed in place") != std::string::npos);
}

TEST_CASE("autograd: 300,000 chained ops are differentiated and destroyed without recursion") {
  Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < 300000; ++i) y = y + 1.0;
  y.backward();
  CHECK(x.grad().item() == 1);
  Tensor dropped = x;
  for (int i = 0; i < 300000; ++i) dropped = dropped + 1.0;
}

TEST_CASE("autograd: nothing is recorded without need") {
  const Tensor plain = Tensor::from({1., 2.}, {2});
  CHECK(!(plain * plain).needs_grad());
  Tensor x = leaf({1, 2});
  const NoGrad off;
  CHECK(!(x * x).needs_grad());
  CHECK(message_of([&] { (plain * plain).backward(plain); }).find("requires a gradient") !=
        std::string::npos);
}

TEST_CASE("autograd: a hook fires once, when the last use has been added") {
  Tensor x = leaf({2});
  std::vector<double> seen;
  autograd::on_gradient_final(x, [&] { seen.push_back(x.grad().item()); });
  (x * x + x * 3.0 + x).backward();
  autograd::on_gradient_final(x, nullptr);
  CHECK(seen == std::vector<double>{8});
}

TEST_CASE("autograd: gradients that have a home are written there, and are the same") {
  Rng rng(3);
  const auto parameter = [&](const Shape& shape) {
    Tensor x = empty(shape);
    rng.fill_normal(x, 0, 1);
    return x.requires_grad();
  };
  const std::vector<Tensor> parameters = {parameter({6, 4}), parameter({4}),     parameter({2, 2, 4}),
                                          parameter({4}),    parameter({4, 10}), parameter({5, 4})};
  Tensor x = empty({3, 6});
  rng.fill_normal(x, 0, 1);
  // Two backwards; the weight of linear() is used twice in each.
  const auto run = [&] {
    for (int i = 0; i < 2; ++i) {
      Tensor y = linear(x, parameters[0], parameters[1]) + linear(x * 2.0, parameters[0]);
      y = per_head_matmul(y.reshape({3, 2, 2}), parameters[2]).reshape({6, 4});
      y = residual_ffn(rms_norm(y, parameters[3]), parameters[3], parameters[4], parameters[5]);
      y.backward(ones({6, 4}));
    }
  };
  run();
  std::vector<std::vector<float>> expected;
  for (Tensor p : parameters) {
    expected.push_back(p.grad().to_vector());
    p.zero_grad();
    p.meta()->grad_buffer = full(p.shape(), NAN);
  }
  run();
  for (size_t i = 0; i < parameters.size(); ++i) {
    CAPTURE(i);
    CHECK(parameters[i].grad().to_vector() == expected[i]);
    CHECK(parameters[i].grad().raw_data() == parameters[i].meta()->grad_buffer.raw_data());
  }
}

TEST_CASE("autograd: a gradient is written to its home once: not for a leaf that an op has twice") {
  Tensor w = Tensor::from({1.f, 2.f, 3.f, 4.f}, {2, 2}).requires_grad();
  linear(w, w).backward(ones({2, 2}));
  const std::vector<float> expected = w.grad().to_vector();
  w.zero_grad();
  w.meta()->grad_buffer = full({2, 2}, NAN);
  linear(w, w).backward(ones({2, 2}));
  CHECK(w.grad().to_vector() == expected);
}

TEST_CASE("autograd: checkpoint gives the same bits, parameters included") {
  Tensor x = leaf({.1, .2, .3}), w = leaf({2, 3, 4});
  const auto f = [&w](const std::vector<Tensor>& in) { return softmax(in[0] * w) * w; };
  f({x}).backward(ones({3}, f64));
  const auto dx = x.grad().to_vector<double>(), dw = w.grad().to_vector<double>();
  x.zero_grad(), w.zero_grad();
  checkpoint(f, {x}).backward(ones({3}, f64));
  CHECK(x.grad().to_vector<double>() == dx);
  CHECK(w.grad().to_vector<double>() == dw);
}

TEST_CASE("autograd: checkpoint draws the same random numbers again, and leaves the stream where it was") {
  const auto gradient = [](bool again, uint64_t& end) {
    Tensor x = full({64}, 1, f64).requires_grad();
    Rng rng(4);
    const auto f = [&](const std::vector<Tensor>& in) { return dropout(in[0] * in[0], .5, rng, true); };
    const Tensor y = again ? checkpoint(f, {x}, &rng) : f({x});
    dropout(x, .5, rng, true);  // the stream goes on between forward and backward
    y.backward(ones({64}, f64));
    end = rng.offset();
    return x.grad().to_vector<double>();
  };
  uint64_t plain_end = 0, checkpoint_end = 0;
  CHECK(gradient(true, checkpoint_end) == gradient(false, plain_end));
  CHECK(plain_end == 32);
  CHECK(checkpoint_end == plain_end);
}

TEST_CASE("autograd: checkpoint_rows goes through the rows in blocks") {
  Tensor x = Tensor::from({.1, .2, .3, .4, .5, .6, .7, .8, .9, 1.}, {5, 2}).requires_grad(), w = leaf({2, 3});
  const Tensor upstream = Tensor::from({1., 2., 3., 4., 5., 6., 7., 8., 9., 10.}, {5, 2});
  int64_t most = 0;
  const auto f = [&](const Tensor& rows) {
    most = std::max(most, rows.dim(0));
    return softmax(rows * w) * w;
  };
  const Tensor y = f(x);
  y.backward(upstream);
  const auto values = y.to_vector<double>(), dx = x.grad().to_vector<double>(),
             dw = w.grad().to_vector<double>();
  for (const int64_t rows : {1, 2, 3, 5, 8}) {
    CAPTURE(rows);
    x.zero_grad(), w.zero_grad(), most = 0;
    const Tensor again = checkpoint_rows(f, x, rows);
    again.backward(upstream);
    CHECK(most == std::min<int64_t>(rows, 5));
    CHECK(again.to_vector<double>() == values);
    CHECK(x.grad().to_vector<double>() == dx);
    const auto summed = w.grad().to_vector<double>();
    for (size_t i = 0; i < dw.size(); ++i) CHECK(summed[i] == doctest::Approx(dw[i]).epsilon(1e-14));
  }
  const NoGrad off;
  CHECK(checkpoint_rows(f, x, 2).to_vector<double>() == values);
  CHECK(checkpoint_rows(f, x.narrow(0, 0, 0), 2).shape() == Shape{0, 2});
}

TEST_CASE("gradcheck: finds a wrong gradient and says where") {
  const auto wrong = [](const std::vector<Tensor>& in) {
    return record(in[0].clone(), {in[0]},
                  [] { return [](const Tensor& dy) -> Grads { return {dy * 1.01}; }; });
  };
  const auto result = gradcheck(wrong, {leaf({1, 2, 3})});
  CHECK(!result.passed);
  CHECK(result.message.find("input 0") != std::string::npos);
}

// Rows of the table for ops/pointwise and ops/loss.
#include "mixrec/ops/cast.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/tests/op_cases.h"

#include <cmath>

namespace mixrec::test {

using Inputs = std::vector<Tensor>;

namespace {

Plain one(double value) { return {{}, {value}}; }

// The data of a case.
Plain numbers(const Tensor& x) { return {{x.shape().begin(), x.shape().end()}, x.to_vector<double>()}; }

// Moves numbers that are within .05 of a kink to .05 .. .1 beyond it, where finite differences see one slope.
Tensor away_from(Tensor x, const std::vector<double>& kinks) {
  for (int64_t i = 0; i < x.numel(); ++i) {
    double& value = x.data<double>()[i];
    for (const double kink : kinks) {
      const double gap = value - kink;
      if (gap > -.05 && gap < .05) value += gap < 0 ? -.05 : .05;
    }
  }
  return x;
}

}  // namespace

void add_pointwise_cases(std::vector<OpCase>& cases) {
  using Function = Tensor (*)(const Tensor&);
  const auto add = [&](const std::string& op, const std::string& label, double low, double high,
                       const std::vector<double>& kinks, std::function<Tensor(const Tensor&)> f,
                       const Scalar& formula) {
    for (const Shape& shape : {Shape{3, 7, 11}, Shape{64}, Shape{0, 3}}) {
      cases.push_back({op, label + shape.to_string(),
                       [=](Rng& rng) -> Inputs { return {away_from(uniform(rng, shape, low, high), kinks)}; },
                       [f](const Inputs& in) { return f(in[0]); },
                       [formula](const Plains& in) { return expected::map(in[0], formula); }});
    }
  };
  add("relu", "", -2, 2, {0}, Function(relu), [](double x) { return x > 0 ? x : 0; });
  add(
      "leaky_relu", "", -2, 2, {0}, [](const Tensor& x) { return leaky_relu(x, .2); },
      [](double x) { return x > 0 ? x : .2 * x; });
  add("silu", "", -5, 5, {}, Function(silu), [](double x) { return x / (1 + std::exp(-x)); });
  add("gelu", "", -5, 5, {}, Function(gelu), [](double x) { return x * std::erfc(-x / std::sqrt(2)) / 2; });
  add("sigmoid", "", -5, 5, {}, Function(sigmoid), [](double x) { return 1 / (1 + std::exp(-x)); });
  add("tanh", "", -3, 3, {}, Function(mixrec::tanh), [](double x) { return std::tanh(x); });
  add("exp", "", -3, 3, {}, Function(mixrec::exp), [](double x) { return std::exp(x); });
  add("log", "", .5, 4, {}, Function(mixrec::log), [](double x) { return std::log(x); });
  add("log1p", "", -.5, 3, {}, Function(mixrec::log1p), [](double x) { return std::log1p(x); });
  add("sqrt", "", .2, 4, {}, Function(mixrec::sqrt), [](double x) { return std::sqrt(x); });
  add("square", "", -2, 2, {}, Function(square), [](double x) { return x * x; });
  add("abs", "", -2, 2, {0}, Function(mixrec::abs), [](double x) { return std::fabs(x); });
  add("softplus", "", -5, 5, {}, Function(softplus), [](double x) { return std::log(1 + std::exp(x)); });
  add(
      "clamp", "", -2, 2, {-1, .5}, [](const Tensor& x) { return clamp(x, -1, .5); },
      [](double x) { return x < -1   ? -1
                            : x > .5 ? .5
                                     : x; });
  add(
      "pow", "2.5 ", .5, 3, {}, [](const Tensor& x) { return mixrec::pow(x, 2.5); },
      [](double x) { return x * x * std::sqrt(x); });
  add(
      "pow", "-3 ", -3, -.5, {}, [](const Tensor& x) { return mixrec::pow(x, -3); },
      [](double x) { return 1 / (x * x * x); });
  add(
      "pow", "0 ", -2, 2, {}, [](const Tensor& x) { return mixrec::pow(x, 0) + x; },
      [](double x) { return 1 + x; });
}

void add_loss_cases(std::vector<OpCase>& cases) {
  for (const int64_t tasks : {1, 2, 11}) {
    Rng rng(static_cast<uint64_t>(tasks));
    const Shape shape{301, tasks};
    // Every dtype holds these exactly, so that only the op's own rounding is measured.
    const Tensor labels = cast(cast(uniform(rng, shape, 0, 1), bf16), f64);
    const Tensor weights = cast(cast(uniform(rng, shape, 0, 2), bf16), f64);
    // A task without any weight, and a masked label that is not a number.
    weights.narrow(1, tasks - 1, 1).fill(tasks == 11 ? 0 : 1);
    labels.select(0, 0).fill(NAN);
    weights.select(0, 0).fill(0);
    const auto logits = [shape](Rng& random) -> Inputs { return {normal(random, shape)}; };
    const auto in = [](const Tensor& data, const Inputs& x) {
      return cast(beside(x[0], data), x[0].dtype());
    };
    const Tensor plain = labels.narrow(0, 1, 300).clone();
    const std::string label = std::to_string(tasks) + " tasks";
    cases.push_back({"bce_with_logits", label, logits,
                     [=](const Inputs& x) { return bce_with_logits(x[0].narrow(0, 1, 300), in(plain, x)); },
                     [=](const Plains& x) {
                       return one(
                           expected::bce(expected::slice(x[0], 0, 1, 300), numbers(plain), nullptr, 0));
                     }});
    cases.push_back(
        {"bce_with_logits", "weighted, global count, " + label, logits,
         [=](const Inputs& x) { return bce_with_logits(x[0], in(labels, x), in(weights, x), 1234.5); },
         [=](const Plains& x) {
           const Plain w = numbers(weights);
           return one(expected::bce(x[0], numbers(labels), &w, 1234.5));
         }});
    cases.push_back(
        {"bce_with_logits_per_task", label, logits,
         [=](const Inputs& x) { return bce_with_logits_per_task(x[0], in(labels, x), in(weights, x)); },
         [=](const Plains& x) {
           const Plain w = numbers(weights);
           return expected::bce_per_task(x[0], numbers(labels), &w);
         }});
  }
  const auto pair = [](Rng& rng) -> Inputs { return {normal(rng, {17, 5}), normal(rng, {17, 5})}; };
  cases.push_back({"mse", "mean", pair, [](const Inputs& in) { return mse(in[0], in[1]); },
                   [](const Plains& in) { return one(expected::mse(in[0], in[1], 0)); }});
  cases.push_back({"mse", "global count", pair, [](const Inputs& in) { return mse(in[0], in[1], 7); },
                   [](const Plains& in) { return one(expected::mse(in[0], in[1], 7)); }});
  for (const Shape& shape : {Shape{33, 10}, Shape{5, 1}, Shape{300, 3}, Shape{3, 1000}}) {
    cases.push_back({"softmax_cross_entropy", shape.to_string(),
                     [shape](Rng& rng) -> Inputs {
                       return {normal(rng, shape), integers(rng, {shape[0]}, shape[1])};
                     },
                     [](const Inputs& in) { return softmax_cross_entropy(in[0], in[1]); },
                     [](const Plains& in) { return one(expected::softmax_cross_entropy(in[0], in[1])); }});
  }
}

}  // namespace mixrec::test

// Rows of the table for ops/pointwise and ops/loss.
#include "mixrec/ops/cast.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/tests/op_cases.h"

#include <cmath>

namespace mixrec::test {

using Inputs = std::vector<Tensor>;

namespace {

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
                       const std::vector<double>& kinks, std::function<Tensor(const Tensor&)> f) {
    for (const Shape& shape : {Shape{3, 7, 11}, Shape{64}, Shape{0, 3}}) {
      cases.push_back({op, label + shape.to_string(),
                       [=](Rng& rng) -> Inputs { return {away_from(uniform(rng, shape, low, high), kinks)}; },
                       [f](const Inputs& in) { return f(in[0]); }});
    }
  };
  add("relu", "", -2, 2, {0}, Function(relu));
  add("leaky_relu", "", -2, 2, {0}, [](const Tensor& x) { return leaky_relu(x, .2); });
  add("silu", "", -5, 5, {}, Function(silu));
  add("gelu", "", -5, 5, {}, Function(gelu));
  add("sigmoid", "", -5, 5, {}, Function(sigmoid));
  add("tanh", "", -3, 3, {}, Function(mixrec::tanh));
  add("exp", "", -3, 3, {}, Function(mixrec::exp));
  add("log", "", .5, 4, {}, Function(mixrec::log));
  add("log1p", "", -.5, 3, {}, Function(mixrec::log1p));
  add("sqrt", "", .2, 4, {}, Function(mixrec::sqrt));
  add("square", "", -2, 2, {}, Function(square));
  add("abs", "", -2, 2, {0}, Function(mixrec::abs));
  add("softplus", "", -5, 5, {}, Function(softplus));
  add("clamp", "", -2, 2, {-1, .5}, [](const Tensor& x) { return clamp(x, -1, .5); });
  add("pow", "2.5 ", .5, 3, {}, [](const Tensor& x) { return mixrec::pow(x, 2.5); });
  add("pow", "-3 ", -3, -.5, {}, [](const Tensor& x) { return mixrec::pow(x, -3); });
  add("pow", "0 ", -2, 2, {}, [](const Tensor& x) { return mixrec::pow(x, 0) + x; });
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
                     [=](const Inputs& x) { return bce_with_logits(x[0].narrow(0, 1, 300), in(plain, x)); }});
    cases.push_back({"bce_with_logits", "weighted, global count, " + label, logits, [=](const Inputs& x) {
                       return bce_with_logits(x[0], in(labels, x), in(weights, x), 1234.5);
                     }});
    cases.push_back({"bce_with_logits_per_task", label, logits, [=](const Inputs& x) {
                       return bce_with_logits_per_task(x[0], in(labels, x), in(weights, x));
                     }});
  }
  const auto pair = [](Rng& rng) -> Inputs { return {normal(rng, {17, 5}), normal(rng, {17, 5})}; };
  cases.push_back({"mse", "mean", pair, [](const Inputs& in) { return mse(in[0], in[1]); }});
  cases.push_back({"mse", "global count", pair, [](const Inputs& in) { return mse(in[0], in[1], 7); }});
  for (const Shape& shape : {Shape{33, 10}, Shape{5, 1}, Shape{300, 3}, Shape{3, 1000}}) {
    cases.push_back({"softmax_cross_entropy", shape.to_string(),
                     [shape](Rng& rng) -> Inputs {
                       return {normal(rng, shape), integers(rng, {shape[0]}, shape[1])};
                     },
                     [](const Inputs& in) { return softmax_cross_entropy(in[0], in[1]); }});
  }
}

}  // namespace mixrec::test

// Towers, activations with parameters, batch statistics and task heads against loops written from their formulas.
#include "mixrec/nn/heads.h"

#include "mixrec/autograd/gradcheck.h"
#include "mixrec/core/error.h"
#include "mixrec/ops/request.h"
#include "mixrec/tests/golden.h"
#include "mixrec/tests/message_of.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

using Rows = std::vector<std::vector<double>>;

Tensor random_rows(int64_t rows, int64_t width, uint64_t seed) {
  Rng rng(seed);
  std::vector<double> values(static_cast<size_t>(rows * width));
  for (double& x : values) x = 4 * rng.uniform() - 2;
  return Tensor::from(values, {rows, width});
}

Rows rows_of(const Tensor& x) {
  const auto values = x.contiguous().to_vector<double>();
  const size_t width = static_cast<size_t>(x.dim(1));
  Rows rows;
  for (size_t r = 0; r * width < values.size(); ++r)
    rows.emplace_back(values.begin() + static_cast<ptrdiff_t>(r * width),
                      values.begin() + static_cast<ptrdiff_t>((r + 1) * width));
  return rows;
}

// Column means and biased variances, each row counted so often.
void moments(const Rows& x, const std::vector<double>& counts, std::vector<double>* mean,
             std::vector<double>* variance) {
  const size_t width = x[0].size();
  mean->assign(width, 0), variance->assign(width, 0);
  double n = 0;
  for (size_t r = 0; r < x.size(); ++r) n += counts[r];
  for (size_t c = 0; c < width; ++c) {
    for (size_t r = 0; r < x.size(); ++r) (*mean)[c] += counts[r] * x[r][c] / n;
    for (size_t r = 0; r < x.size(); ++r)
      (*variance)[c] += counts[r] * (x[r][c] - (*mean)[c]) * (x[r][c] - (*mean)[c]) / n;
  }
}

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE(
    "batch norm: training uses the batch, evaluation what training left, and counts are repeated rows") {
  const Tensor x = random_rows(5, 3, 1);
  for (const bool counted : {false, true}) {
    CAPTURE(counted);
    const std::vector<double> counts =
        counted ? std::vector<double>{1, 3, 2, 1, 4} : std::vector<double>(5, 1);
    const double n = counted ? 11 : 5;
    RowCounts given;
    if (counted) given = {Tensor::from(std::vector<float>{1, 3, 2, 1, 4}, {5}), 11};
    BatchNorm norm(3, 1e-5, .1);
    to_dtype(norm, f64);
    Pass pass{.training = true};
    const Rows y = rows_of(norm.forward(x, pass, given)), in = rows_of(x);
    std::vector<double> mean, variance;
    moments(in, counts, &mean, &variance);
    for (size_t r = 0; r < 5; ++r)
      for (size_t c = 0; c < 3; ++c)
        CHECK(y[r][c] ==
              doctest::Approx((in[r][c] - mean[c]) / std::sqrt(variance[c] + 1e-5)).epsilon(1e-12));
    const auto running_mean = norm.statistics.mean.to_vector<double>();
    const auto running_variance = norm.statistics.variance.to_vector<double>();
    for (size_t c = 0; c < 3; ++c) {
      CHECK(running_mean[c] == doctest::Approx(.1 * mean[c]).epsilon(1e-12));
      CHECK(running_variance[c] == doctest::Approx(.9 + .1 * variance[c] * n / (n - 1)).epsilon(1e-12));
    }
    Pass evaluation;
    const Rows z = rows_of(norm.forward(x, evaluation));
    CHECK(
        z[1][2] ==
        doctest::Approx((in[1][2] - running_mean[2]) / std::sqrt(running_variance[2] + 1e-5)).epsilon(1e-12));
    CHECK(norm.statistics.mean.to_vector<double>() == running_mean);  // evaluation moves nothing
  }
}

TEST_CASE("batch norm and dice: gradients agree with finite differences; one row has no statistics") {
  for (const char* name : {"dice", "prelu"}) {
    CAPTURE(name);
    Activation activation(name, 3);
    to_dtype(activation, f64);
    activation.slope.detach().copy_from(Tensor::from(std::vector<double>{.3, -.2, .5}, {3}));
    Tensor x = random_rows(6, 3, 2);
    x.requires_grad(true);
    const auto result = gradcheck(
        [&](const std::vector<Tensor>& in) {
          Pass pass{.training = true};
          return activation.forward(in[0], pass);
        },
        {x, activation.slope});
    CHECK_MESSAGE(result.passed, result.message);
  }
  BatchNorm norm(2);
  Pass pass{.training = true};
  CHECK(message_of([&] {
          norm.forward(ones({1, 2}), pass);
        }).find("at least two rows, got 1") != std::string::npos);
}

TEST_CASE("dice and prelu: values by their formulas") {
  const Tensor x = random_rows(5, 2, 3);
  const Rows in = rows_of(x);
  std::vector<double> mean, variance;
  moments(in, std::vector<double>(5, 1), &mean, &variance);
  Pass pass{.training = true};
  Activation dice("dice", 2), prelu("prelu", 2);
  to_dtype(dice, f64), to_dtype(prelu, f64);
  dice.slope.detach().fill(.4);
  const Rows d = rows_of(dice.forward(x, pass)), p = rows_of(prelu.forward(x, pass));
  for (size_t r = 0; r < 5; ++r) {
    for (size_t c = 0; c < 2; ++c) {
      const double share = sigmoid_of((in[r][c] - mean[c]) / std::sqrt(variance[c] + 1e-9));
      CHECK(d[r][c] == doctest::Approx(share * in[r][c] + (1 - share) * .4 * in[r][c]).epsilon(1e-12));
      CHECK(p[r][c] == doctest::Approx(in[r][c] > 0 ? in[r][c] : .25 * in[r][c]).epsilon(1e-12));
    }
  }
  CHECK(message_of([] { Activation("rleu", 2); }).find("did you mean 'relu'?") != std::string::npos);
}

TEST_CASE("towers: a bf16 input gives bf16, and a request's part is multiplied once to the same numbers") {
  Rng rng(4);
  Tower tower(5, {.widths = {4, 3}, .activation = "gelu", .norm = "layer"}, rng);
  Pass pass;
  CHECK(tower.forward(ones({2, 5}, bf16), pass).dtype() == bf16);
  to_dtype(tower, f64);
  const Tensor shared = random_rows(2, 2, 5), own = random_rows(5, 3, 6);
  const Tensor offsets = Tensor::from(std::vector<int64_t>{0, 2, 5}, {3});
  std::vector<double> joined;
  for (size_t c = 0; c < 5; ++c) {
    const auto user = rows_of(shared)[c < 2 ? 0 : 1], item = rows_of(own)[c];
    joined.insert(joined.end(), user.begin(), user.end());
    joined.insert(joined.end(), item.begin(), item.end());
  }
  const Tensor whole = tower.forward(Tensor::from(joined, {5, 5}), pass);
  CHECK(relative_difference(tower.forward_by_request(shared, own, offsets, pass), whole) < 1e-14);
}

namespace {

// One dense layer with its parameters, as loops.
std::vector<double> layer_of(const Tensor& weight, const Tensor& bias, const std::vector<double>& x,
                             bool silu) {
  const Rows w = rows_of(weight);
  std::vector<double> y(w[0].size(), 0);
  for (size_t o = 0; o < y.size(); ++o) {
    if (bias.defined()) y[o] = bias.to_vector<double>()[o];
    for (size_t i = 0; i < x.size(); ++i) y[o] += x[i] * w[i][o];
    if (silu) y[o] *= sigmoid_of(y[o]);
  }
  return y;
}

// A head's or a mixture's parameters by name.
struct Weights {
  std::map<std::string, Tensor> by_name;
  std::vector<double> layer(const std::string& name, const std::vector<double>& x, bool silu) const {
    const auto bias = by_name.find(name + ".bias");
    return layer_of(by_name.at(name + ".weight"), bias == by_name.end() ? Tensor() : bias->second, x, silu);
  }
};

std::vector<double> mix(std::vector<double> scores, const std::vector<std::vector<double>>& experts) {
  double total = 0;
  for (double& s : scores) total += s = std::exp(s);
  std::vector<double> y(experts[0].size(), 0);
  for (size_t e = 0; e < experts.size(); ++e)
    for (size_t i = 0; i < y.size(); ++i) y[i] += scores[e] / total * experts[e][i];
  return y;
}

}  // namespace

TEST_CASE("task heads: shared bottom, MMoE and two levels of PLE by their formulas") {
  const std::vector<TaskSpec> tasks{{.name = "click"}, {.name = "buy"}};
  const Tensor x = random_rows(3, 4, 7);
  for (const std::string kind : {"shared_bottom", "mmoe", "ple"}) {
    CAPTURE(kind);
    Rng rng(8);
    TaskHeadsOptions options{
        .kind = kind, .tower = {.widths = {2}}, .bottom = {.widths = {3}}, .expert = {.widths = {3}}};
    options.experts = 2, options.own_experts = 2, options.levels = 2;
    TaskHeads heads({.width = 4}, tasks, options, rng);
    to_dtype(heads, f64);
    Weights w;
    for (const Parameter& p : parameters(heads)) w.by_name[p.name] = p.value;
    Pass pass;
    const Rows got = rows_of(heads.forward(x, pass));
    for (size_t r = 0; r < 3; ++r) {
      const std::vector<double> row = rows_of(x)[r];
      std::vector<std::vector<double>> states(3, row);  // click, buy, shared
      if (kind == "shared_bottom") states.assign(2, w.layer("bottom.0", row, true));
      const size_t own = kind == "ple" ? 2 : 0, levels = kind == "ple" ? 2 : kind == "mmoe" ? 1 : 0;
      for (size_t l = 0; l < levels; ++l) {
        const std::string level = "levels." + std::to_string(l);
        std::vector<std::vector<double>> experts;
        for (size_t e = 0; e < 2 * own + 2; ++e) {
          const auto& reads = own == 0 || e >= 4 ? states[2] : states[e / 2];
          experts.push_back(w.layer(level + ".experts." + std::to_string(e) + ".0", reads, true));
        }
        std::vector<std::vector<double>> next;
        for (size_t t = 0; t < 2; ++t) {
          std::vector<std::vector<double>> seen(experts.begin() + static_cast<ptrdiff_t>(t * own),
                                                experts.begin() + static_cast<ptrdiff_t>((t + 1) * own));
          seen.push_back(experts[2 * own]), seen.push_back(experts[2 * own + 1]);
          next.push_back(mix(w.layer(level + ".scores." + tasks[t].name, states[t], false), seen));
        }
        next.push_back(l + 1 < levels ? mix(w.layer(level + ".scores.shared", states[2], false), experts)
                                      : std::vector<double>{});
        states = next;
      }
      for (size_t t = 0; t < 2; ++t) {
        const std::vector<double> hidden = w.layer(tasks[t].name + ".mlp.0", states[t], true);
        CHECK(got[r][t] ==
              doctest::Approx(w.layer(tasks[t].name + ".mlp.1", hidden, false)[0]).epsilon(1e-12));
      }
    }
  }
}

TEST_CASE(
    "task heads: logits are f32 of a bf16 input; tokens are normalised per task; by request is the same") {
  const std::vector<TaskSpec> tasks{{.name = "click"}, {.name = "buy"}};
  Rng rng(9);
  TaskHeads heads({.width = 3, .tokens = 4, .norm = true}, tasks, {.tower = {.widths = {5}}}, rng);
  Pass pass;
  CHECK(heads.forward(ones({2, 4, 3}, bf16), pass).dtype() == f32);
  to_dtype(heads, f64);
  const Tensor users = random_rows(2, 3, 10).reshape({2, 1, 3}),
               items = random_rows(5, 9, 11).reshape({5, 3, 3});
  const Tensor offsets = Tensor::from(std::vector<int64_t>{0, 4, 5}, {3});
  const auto u = users.to_vector<double>(), i = items.to_vector<double>();
  std::vector<double> joined;
  for (size_t c = 0; c < 5; ++c) {
    const size_t r = c < 4 ? 0 : 1;
    joined.insert(joined.end(), u.begin() + static_cast<ptrdiff_t>(3 * r),
                  u.begin() + static_cast<ptrdiff_t>(3 * r + 3));
    joined.insert(joined.end(), i.begin() + static_cast<ptrdiff_t>(9 * c),
                  i.begin() + static_cast<ptrdiff_t>(9 * c + 9));
  }
  const Tensor whole = heads.forward(Tensor::from(joined, {5, 4, 3}), pass);
  CHECK(whole.shape() == Shape{5, 2});
  CHECK(relative_difference(heads.forward_by_request(users, items, offsets, pass), whole) < 1e-14);
  CHECK(message_of([&] { TaskHeads({.width = 3}, {}, {}, rng); }).find("at least one task") !=
        std::string::npos);
}

#include "mixrec/tests/op_cases.h"

#include "mixrec/autograd/checkpoint.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/softmax.h"

#include <cmath>

namespace mixrec::test {

Tensor normal(Rng& rng, const Shape& shape) {
  Tensor x = empty(shape, f64);
  rng.fill_normal(x, 0, 1);
  return x;
}

Tensor uniform(Rng& rng, const Shape& shape, double low, double high) {
  Tensor x = empty(shape, f64);
  rng.fill_uniform(x, low, high);
  return x;
}

Tensor integers(Rng& rng, const Shape& shape, int64_t below) {
  Tensor x = empty(shape, i64);
  for (int64_t i = 0; i < x.numel(); ++i) x.data<int64_t>()[i] = static_cast<int64_t>(rng.below(below));
  return x;
}

Tensor offsets_of(const std::vector<int64_t>& lengths) {
  std::vector<int64_t> at{0};
  for (const int64_t length : lengths) at.push_back(at.back() + length);
  return Tensor::from(at);
}

using Inputs = std::vector<Tensor>;

double times(double a, double b) { return a * b; }

void add_view_cases(std::vector<OpCase>& cases) {
  const auto cube = [](Rng& rng) -> Inputs { return {normal(rng, {4, 3, 6})}; };
  cases.push_back({"contiguous", "of a transpose", cube,
                   [](const Inputs& in) { return in[0].transpose(0, 1).contiguous(); },
                   [](const Plains& in) { return expected::swapped(in[0], 0, 1); }});
  cases.push_back({"reshape", "merging", cube,
                   [](const Inputs& in) {
                     return in[0].reshape({12, -1});
                   },
                   [](const Plains& in) {
                     return expected::reshaped(in[0], {12, 6});
                   }});
  cases.push_back({"reshape", "splitting a slice", cube,
                   [](const Inputs& in) {
                     return in[0].narrow(1, 1, 2).reshape({4, 2, 3, 2});
                   },
                   [](const Plains& in) {
                     return expected::reshaped(expected::slice(in[0], 1, 1, 2), {4, 2, 3, 2});
                   }});
  cases.push_back({"narrow", "heads", cube, [](const Inputs& in) { return in[0].narrow(1, 1, 2); },
                   [](const Plains& in) { return expected::slice(in[0], 1, 1, 2); }});
  cases.push_back({"narrow", "columns", cube, [](const Inputs& in) { return in[0].narrow(-1, 2, 3); },
                   [](const Plains& in) { return expected::slice(in[0], -1, 2, 3); }});
  cases.push_back({"select", "one head", cube, [](const Inputs& in) { return in[0].select(1, 2); },
                   [](const Plains& in) {
                     return expected::reshaped(expected::slice(in[0], 1, 2, 1), {4, 6});
                   }});
  cases.push_back({"transpose", "outer", cube, [](const Inputs& in) { return in[0].transpose(0, 1); },
                   [](const Plains& in) { return expected::swapped(in[0], 0, 1); }});
  cases.push_back({"transpose", "inner", cube,
                   [](const Inputs& in) { return in[0].transpose(-1, -2).contiguous(); },
                   [](const Plains& in) { return expected::swapped(in[0], 1, 2); }});
  cases.push_back({"checkpoint", "softmax of a product",
                   [](Rng& rng) -> Inputs {
                     return {normal(rng, {3, 5}), normal(rng, {3, 5})};
                   },
                   [](const Inputs& in) {
                     return checkpoint([](const Inputs& x) { return softmax(x[0] * x[1]) * x[0]; }, in);
                   },
                   [](const Plains& in) {
                     return expected::combine(expected::softmax(expected::combine(in[0], in[1], times)),
                                              in[0], times);
                   }});
  cases.push_back({"checkpoint_rows", "softmax of squares",
                   [](Rng& rng) -> Inputs {
                     return {normal(rng, {7, 5})};
                   },
                   [](const Inputs& in) {
                     return checkpoint_rows([](const Tensor& x) { return softmax(x * x) * x; }, in[0], 3);
                   },
                   [](const Plains& in) {
                     return expected::combine(
                         expected::softmax(expected::map(in[0], [](double x) { return x * x; })), in[0],
                         times);
                   }});
}

void add_softmax_cases(std::vector<OpCase>& cases) {
  const auto rows = [](const Shape& shape) {
    return [shape](Rng& rng) -> Inputs { return {normal(rng, shape)}; };
  };
  for (const Shape& shape :
       {Shape{7, 13}, Shape{2, 3, 64}, Shape{5, 1}, Shape{0, 4}, Shape{129}, Shape{2, 5000}}) {
    cases.push_back({"softmax", shape.to_string(), rows(shape),
                     [](const Inputs& in) { return softmax(in[0]); },
                     [](const Plains& in) { return expected::softmax(in[0]); }});
    cases.push_back({"log_softmax", shape.to_string(), rows(shape),
                     [](const Inputs& in) { return log_softmax(in[0]); },
                     [](const Plains& in) {
                       return expected::map(expected::softmax(in[0]), [](double x) { return std::log(x); });
                     }});
    if (shape[-1] > 1000) continue;  // rounded to bf16, so large a sum is too coarse for its gradient
    cases.push_back({"logsumexp", shape.to_string(), rows(shape),
                     [](const Inputs& in) { return logsumexp(in[0]); },
                     [](const Plains& in) { return expected::logsumexp(in[0]); }});
  }
}

Plain sum_of_all(const Plains& in) {
  double all = 0;
  for (const double x : in[0].values) all += x;
  return {{}, {all}};
}

void add_arithmetic_cases(std::vector<OpCase>& cases) {
  const auto by = [](double (*f)(double, double)) {
    return [f](const Plains& in) { return expected::combine(in[0], in[1], f); };
  };
  struct Operands {
    Shape a, b;
  };
  for (const auto& [a, b] : {Operands{{3, 5}, {3, 5}},
                             {{4, 3, 5}, {5}},
                             {{4, 1, 5}, {3, 1}},
                             {{2}, {}},
                             {{0, 3}, {3}},
                             {{4, 6, 64}, {64}},
                             {{1, 16}, {3, 1}}}) {
    const auto inputs = [a = a, b = b](Rng& rng) -> Inputs {
      return {normal(rng, a), uniform(rng, b, .5, 2)};
    };
    const std::string label = a.to_string() + b.to_string();
    cases.push_back({"add", label, inputs, [](const Inputs& in) { return in[0] + in[1]; },
                     by([](double a, double b) { return a + b; })});
    cases.push_back({"sub", label, inputs, [](const Inputs& in) { return in[0] - in[1]; },
                     by([](double a, double b) { return a - b; })});
    cases.push_back({"mul", label, inputs, [](const Inputs& in) { return in[0] * in[1]; }, by(times)});
    cases.push_back({"div", label, inputs, [](const Inputs& in) { return in[0] / in[1]; },
                     by([](double a, double b) { return a / b; })});
    cases.push_back(
        {"affine", label, inputs, [](const Inputs& in) { return 2.0 - in[0] * 3.0; },
         [](const Plains& in) { return expected::map(in[0], [](double a) { return 2 - 3 * a; }); }});
  }
  const auto cube = [](Rng& rng) -> Inputs { return {normal(rng, {4, 300, 3})}; };
  cases.push_back(
      {"affine", "less a number, by a number", cube, [](const Inputs& in) { return (in[0] - 2.0) / 4.0; },
       [](const Plains& in) { return expected::map(in[0], [](double x) { return (x - 2) / 4; }); }});
  cases.push_back({"div", "a number by a tensor",
                   [](Rng& rng) -> Inputs {
                     return {uniform(rng, {4, 5}, .5, 2)};
                   },
                   [](const Inputs& in) { return 3.0 / in[0]; },
                   [](const Plains& in) { return expected::map(in[0], [](double x) { return 3 / x; }); }});
  cases.push_back({"sum", "all", cube, [](const Inputs& in) { return sum(in[0]); }, sum_of_all});
  cases.push_back(
      {"sum", "mean of all", cube, [](const Inputs& in) { return mean(in[0]); },
       [](const Plains& in) { return expected::map(sum_of_all(in), [](double x) { return x / 3600; }); }});
  for (const int dim : {0, 1, 2}) {
    cases.push_back({"sum", "dim " + std::to_string(dim), cube,
                     [dim](const Inputs& in) { return sum(in[0], dim); },
                     [dim](const Plains& in) { return expected::total(in[0], dim); }});
    cases.push_back(
        {"sum", "mean " + std::to_string(dim), cube, [dim](const Inputs& in) { return mean(in[0], dim); },
         [dim](const Plains& in) {
           const auto count = static_cast<double>(in[0].shape[static_cast<size_t>(dim)]);
           return expected::map(expected::total(in[0], dim), [count](double x) { return x / count; });
         }});
  }
  // Large enough to be cut into chunks along each side.
  for (const Shape& shape : {Shape{40000}, Shape{2, 2100, 40}, Shape{3000, 3}, Shape{3000, 2, 7}}) {
    const auto large = [shape](Rng& rng) -> Inputs { return {uniform(rng, shape, .5, 2)}; };
    cases.push_back({"sum", "all of " + shape.to_string(), large, [](const Inputs& in) { return sum(in[0]); },
                     sum_of_all});
    cases.push_back(
        {"sum", "dim -2 of " + shape.to_string(), large,
         [](const Inputs& in) { return sum(in[0], in[0].ndim() > 1 ? -2 : 0); },
         [](const Plains& in) { return expected::total(in[0], in[0].shape.size() > 1 ? -2 : 0); }});
  }
  cases.push_back({"sum_to", "two runs", cube,
                   [](const Inputs& in) {
                     return sum_to(in[0], {1, 300, 1});
                   },
                   [](const Plains& in) {
                     return expected::reshaped(expected::total(expected::total(in[0], 2), 0), {1, 300, 1});
                   }});
  cases.push_back(
      {"broadcast_to", "both ends",
       [](Rng& rng) -> Inputs {
         return {normal(rng, {3, 1})};
       },
       [](const Inputs& in) {
         return broadcast_to(in[0], {2, 3, 4});
       },
       [](const Plains& in) {
         return expected::combine(in[0], Plain::zeros({2, 3, 4}), [](double a, double) { return a; });
       }});
  cases.push_back({"dropout", "", cube,
                   [](const Inputs& in) {
                     Rng rng(3);
                     return dropout(in[0], .3, rng, true);
                   },
                   [](const Plains& in) { return expected::philox_dropout(in[0], .3, 3); }});
  cases.push_back({"cast", "there and back", cube,
                   [](const Inputs& in) { return cast(cast(in[0], f64), in[0].dtype()); },
                   [](const Plains& in) { return in[0]; }});
  cases.push_back({"cast", "to bf16 and back", cube,
                   [](const Inputs& in) { return cast(cast(in[0], bf16), in[0].dtype()); },
                   [](const Plains& in) { return expected::map(in[0], expected::to_bf16); },
                   "rounding has no slope"});
  cases.push_back({"cast", "to f32 and back", cube,
                   [](const Inputs& in) { return cast(cast(in[0], f32), in[0].dtype()); },
                   [](const Plains& in) {
                     return expected::map(
                         in[0], [](double x) { return static_cast<double>(static_cast<float>(x)); });
                   },
                   "rounding has no slope"});
}

const std::vector<OpCase>& op_cases() {
  static const std::vector<OpCase> cases = [] {
    std::vector<OpCase> all;
    add_view_cases(all);
    add_arithmetic_cases(all);
    add_matmul_cases(all);
    add_softmax_cases(all);
    add_request_cases(all);
    add_attend_cases(all);
    add_sequence_attention_cases(all);
    add_head_mixing_cases(all);
    add_embedding_cases(all);
    add_embedding_column_cases(all);
    add_swiglu_cases(all);
    add_ffn_cases(all);
    add_residual_ffn_cases(all);
    add_norm_cases(all);
    add_layout_cases(all);
    add_pointwise_cases(all);
    add_loss_cases(all);
    add_dropout_cases(all);
    add_max_cases(all);
    return all;
  }();
  return cases;
}

}  // namespace mixrec::test

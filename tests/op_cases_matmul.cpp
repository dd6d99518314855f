// Rows of the op table for ops/matmul.
#include "mixrec/ops/matmul.h"
#include "mixrec/tests/op_cases.h"

namespace mixrec::test {

using Inputs = std::vector<Tensor>;

void add_matmul_cases(std::vector<OpCase>& cases) {
  const auto pair = [](const Shape& a, const Shape& b) {
    return [=](Rng& rng) -> Inputs { return {normal(rng, a), normal(rng, b)}; };
  };
  const auto add = [&](const std::string& label, const Shape& a, const Shape& b, MatmulOptions options = {}) {
    cases.push_back(
        {"matmul", label, pair(a, b), [options](const Inputs& in) { return matmul(in[0], in[1], options); },
         [options](const Plains& in) {
           return expected::product(options.transpose_a ? expected::swapped(in[0], -1, -2) : in[0],
                                    options.transpose_b ? expected::swapped(in[1], -1, -2) : in[1]);
         }});
  };
  add("plain", {7, 5}, {5, 9});
  add("aᵀ", {5, 7}, {5, 9}, {.transpose_a = true});
  add("bᵀ", {7, 5}, {9, 5}, {.transpose_b = true});
  add("aᵀ bᵀ", {5, 7}, {9, 5}, {.transpose_a = true, .transpose_b = true});
  add("rows of a batch", {2, 3, 5}, {5, 4});
  add("batched", {3, 7, 5}, {3, 5, 2});
  add("batched, both transposed", {3, 5, 7}, {3, 2, 5}, {.transpose_a = true, .transpose_b = true});
  add("no rows", {0, 5}, {5, 3});
  add("one row, one column", {1, 17}, {17, 1});
  add("above the blocks", {67, 70}, {70, 53});

  const auto with_bias = [](Rng& rng) -> Inputs {
    return {normal(rng, {2, 3, 5}), normal(rng, {5, 4}), normal(rng, {4})};
  };
  cases.push_back({"linear", "bias", with_bias, [](const Inputs& in) { return linear(in[0], in[1], in[2]); },
                   [](const Plains& in) { return expected::plus(expected::product(in[0], in[1]), in[2]); }});
  cases.push_back({"linear", "no bias", pair({6, 5}, {5, 3}),
                   [](const Inputs& in) { return linear(in[0], in[1]); },
                   [](const Plains& in) { return expected::product(in[0], in[1]); }});
  cases.push_back({"linear", "a vector", pair({5}, {5, 3}),
                   [](const Inputs& in) { return linear(in[0], in[1]); },
                   [](const Plains& in) { return expected::product(in[0], in[1]); }});
  cases.push_back({"per_head_matmul", "", pair({6, 3, 5}, {3, 5, 4}),
                   [](const Inputs& in) { return per_head_matmul(in[0], in[1]); },
                   [](const Plains& in) { return expected::per_head(in[0], in[1]); }});
  cases.push_back(
      {"per_head_matmul", "wᵀ", pair({6, 3, 5}, {3, 4, 5}),
       [](const Inputs& in) { return per_head_matmul(in[0], in[1], {.transpose_w = true}); },
       [](const Plains& in) { return expected::per_head(in[0], expected::swapped(in[1], 1, 2)); }});
  for (const bool transpose : {false, true}) {
    cases.push_back(
        {"per_head_matmul", transpose ? "wᵀ, scaled, residual" : "scaled, residual",
         [transpose](Rng& rng) -> Inputs {
           return {normal(rng, {6, 3, 8}), normal(rng, transpose ? Shape{3, 16, 8} : Shape{3, 8, 16}),
                   normal(rng, {6, 3, 16})};
         },
         [transpose](const Inputs& in) {
           return per_head_matmul(in[0], in[1], {.transpose_w = transpose, .scale = .25, .residual = in[2]});
         },
         [transpose](const Plains& in) {
           const Plain y = expected::per_head(in[0], transpose ? expected::swapped(in[1], 1, 2) : in[1]);
           return expected::plus(expected::map(y, [](double x) { return x / 4; }), in[2]);
         }});
  }
  cases.push_back(
      {"per_head_matmul", "a slice of heads", pair({6, 8, 5}, {3, 5, 4}),
       [](const Inputs& in) { return per_head_matmul(in[0].narrow(1, 2, 3), in[1]); },
       [](const Plains& in) { return expected::per_head(expected::slice(in[0], 1, 2, 3), in[1]); }});
  cases.push_back({"per_head_matmul", "no rows", pair({0, 3, 5}, {3, 5, 4}),
                   [](const Inputs& in) { return per_head_matmul(in[0], in[1]); },
                   [](const Plains& in) { return expected::per_head(in[0], in[1]); }});
}

}  // namespace mixrec::test

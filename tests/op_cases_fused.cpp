// Rows of the table for ops/ffn and ops/norm.
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/ffn/ffn.h"
#include "mixrec/ops/ffn/residual_ffn.h"
#include "mixrec/ops/ffn/swiglu.h"
#include "mixrec/ops/norm.h"
#include "mixrec/tests/op_cases.h"

#include <cmath>

namespace mixrec::test {

using Inputs = std::vector<Tensor>;

void add_swiglu_cases(std::vector<OpCase>& cases) {
  for (const Shape& shape : {Shape{7, 13}, Shape{2, 3, 64}, Shape{5, 1}, Shape{0, 4}, Shape{131}}) {
    cases.push_back({"swiglu", shape.to_string(),
                     [shape](Rng& rng) -> Inputs {
                       return {normal(rng, shape), normal(rng, shape)};
                     },
                     [](const Inputs& in) { return swiglu(in[0], in[1]); },
                     [](const Plains& in) { return expected::swiglu(in[0], in[1]); }});
    Shape wide = shape;
    wide.set(-1, 2 * shape[-1]);
    cases.push_back({"swiglu", "fused " + wide.to_string(),
                     [wide](Rng& rng) -> Inputs { return {normal(rng, wide)}; },
                     [](const Inputs& in) { return swiglu(in[0]); },
                     [](const Plains& in) { return expected::swiglu(in[0]); }});
  }
  const auto wide = [](Rng& rng) -> Inputs { return {normal(rng, {9, 40})}; };
  cases.push_back(
      {"swiglu", "only the gate needs a gradient", wide,
       [](const Inputs& in) { return swiglu(in[0].narrow(-1, 3, 17), in[0].detach().narrow(-1, 20, 17)); },
       [](const Plains& in) {
         return expected::swiglu(expected::slice(in[0], -1, 3, 17), expected::slice(in[0], -1, 20, 17));
       },
       "finite differences see the held-constant half of the buffer too"});
}

void add_ffn_cases(std::vector<OpCase>& cases) {
  struct Sizes {
    const char* label;
    Shape x;
    int64_t hidden, out;
  };
  // Few rows are composed of plain ops; from 64 on they are fused, from 672 on cut in parts.
  for (const auto& [label, x, hidden, out] :
       {Sizes{"few rows", {2, 3, 7}, 5, 4}, Sizes{"a vector", {7}, 3, 2}, Sizes{"no rows", {0, 4}, 3, 5},
        Sizes{"a block", {9, 8, 13}, 17, 11}, Sizes{"parts", {680, 5}, 9, 7}}) {
    Shape y = x;
    y.set(-1, out);
    const auto inputs = [=, hidden = hidden, out = out](Rng& rng) -> Inputs {
      const int64_t in = x[-1];
      return {normal(rng, x), normal(rng, {in, 2 * hidden}) / std::sqrt(static_cast<double>(in)),
              normal(rng, {hidden, out}) / std::sqrt(static_cast<double>(hidden)), normal(rng, y)};
    };
    cases.push_back(
        {"ffn", label, inputs, [](const Inputs& in) { return ffn(in[0], in[1], in[2], in[3]); },
         [](const Plains& in) { return expected::plus(expected::ffn(in[0], in[1], in[2]), in[3]); }, "",
         x[0] < 600 ? "" : "of hundreds of rows one cancels in bf16; f32 is in reference_test.cpp"});
  }
  for (const int64_t rows : {5, 70}) {
    const auto inputs = [rows](Rng& rng) -> Inputs {
      return {normal(rng, {rows, 3, 6}), normal(rng, {3, 6, 34}) / 2.5, normal(rng, {3, 17, 9}) / 4.0};
    };
    cases.push_back({"ffn", "a network a head, rows " + std::to_string(rows), inputs,
                     [](const Inputs& in) { return ffn(in[0], in[1], in[2]); },
                     [](const Plains& in) { return expected::ffn(in[0], in[1], in[2]); }});
  }
}

void add_residual_ffn_cases(std::vector<OpCase>& cases) {
  const auto weights = [](Rng& rng, const Shape& x, const Shape& gate_up, const Shape& down) -> Inputs {
    return {normal(rng, x), normal(rng, {x[-1]}) + 1.0, normal(rng, gate_up) / 2.0, normal(rng, down) / 2.0};
  };
  for (const bool recompute : {false, true}) {
    const ResidualFfnOptions options{.recompute = recompute, .block_rows = 5};
    const auto run = [options](const Inputs& in) {
      return residual_ffn(in[0], in[1], in[2], in[3], options);
    };
    const auto network = [](const Plains& in) {
      return expected::plus(in[0], expected::ffn(expected::rms_norm(in[0], &in[1], 1e-6), in[2], in[3]));
    };
    const std::string label = recompute ? "in blocks, " : "";
    for (const int64_t rows : {12, 1, 0}) {
      cases.push_back({"residual_ffn", label + std::to_string(rows) + " rows",
                       [=](Rng& rng) {
                         return weights(rng, {rows, 8}, {8, 20}, {10, 8});
                       },
                       run, network});
    }
    cases.push_back({"residual_ffn", label + "odd sizes, more dimensions",
                     [=](Rng& rng) {
                       return weights(rng, {3, 4, 7}, {7, 10}, {5, 7});
                     },
                     run, network});
    cases.push_back({"residual_ffn", label + "a network a head",
                     [=](Rng& rng) {
                       return weights(rng, {9, 3, 6}, {3, 6, 14}, {3, 7, 6});
                     },
                     run, network, "",
                     recompute ? "a row of sums cancels in bf16; without blocks it is compared" : ""});
  }
  cases.push_back({"residual_ffn", "another eps",
                   [=](Rng& rng) {
                     return weights(rng, {6, 8}, {8, 20}, {10, 8});
                   },
                   [](const Inputs& in) { return residual_ffn(in[0], in[1], in[2], in[3], {.eps = .5}); },
                   [](const Plains& in) {
                     return expected::plus(
                         in[0], expected::ffn(expected::rms_norm(in[0], &in[1], .5), in[2], in[3]));
                   }});
}

void add_norm_cases(std::vector<OpCase>& cases) {
  for (const Shape& shape : {Shape{7, 13}, Shape{2, 3, 64}, Shape{300, 5}, Shape{5, 1}, Shape{0, 4},
                             Shape{131}, Shape{19, 384}, Shape{3, 1024}, Shape{2, 1040}}) {
    const auto inputs = [shape](Rng& rng) -> Inputs {
      return {normal(rng, shape), uniform(rng, {shape[-1]}, .5, 2), normal(rng, {shape[-1]})};
    };
    const auto only_x = [shape](Rng& rng) -> Inputs { return {normal(rng, shape)}; };
    const std::string label = shape.to_string();
    // With eps 1, rows of one element still have a gradient that finite differences can see.
    cases.push_back({"rms_norm", label, inputs, [](const Inputs& in) { return rms_norm(in[0], in[1], 1); },
                     [](const Plains& in) { return expected::rms_norm(in[0], &in[1], 1); }});
    cases.push_back({"rms_norm", "plain " + label, only_x,
                     [](const Inputs& in) { return rms_norm(in[0], {}, .1); },
                     [](const Plains& in) { return expected::rms_norm(in[0], nullptr, .1); }});
    // A row of one element is its own mean: the exact gradient is zero, and f32 leaves rounding there.
    const std::string no_low = shape[-1] == 1 ? "relative errors of a gradient that is zero" : "";
    cases.push_back(
        {"layer_norm", label, inputs, [](const Inputs& in) { return layer_norm(in[0], in[1], in[2], 1); },
         [](const Plains& in) { return expected::layer_norm(in[0], &in[1], &in[2], 1); }, "", no_low});
    cases.push_back({"layer_norm", "plain " + label, only_x,
                     [](const Inputs& in) { return layer_norm(in[0], {}, {}, .1); },
                     [](const Plains& in) { return expected::layer_norm(in[0], nullptr, nullptr, .1); }});
  }
  const auto rows = [](Rng& rng) -> Inputs { return {normal(rng, {17, 24}), normal(rng, {24})}; };
  cases.push_back({"rms_norm", "default eps", rows, [](const Inputs& in) { return rms_norm(in[0], in[1]); },
                   [](const Plains& in) { return expected::rms_norm(in[0], &in[1], 1e-6); }});
  // Parameters stay f32 where activations are bf16.
  const auto parameter = [](const Tensor& v) { return v.dtype() == bf16 ? cast(v, f32) : v; };
  cases.push_back({"rms_norm", "an f32 gain under bf16", rows,
                   [=](const Inputs& in) { return rms_norm(in[0], parameter(in[1])); },
                   [](const Plains& in) { return expected::rms_norm(in[0], &in[1], 1e-6); }});
  cases.push_back({"layer_norm", "an f32 gain and a bias of x's dtype", rows,
                   [=](const Inputs& in) { return layer_norm(in[0], parameter(in[1]), in[1]); },
                   [](const Plains& in) { return expected::layer_norm(in[0], &in[1], &in[1], 1e-5); }});
  cases.push_back({"layer_norm", "only a bias", rows,
                   [](const Inputs& in) { return layer_norm(in[0], {}, in[1]); },
                   [](const Plains& in) { return expected::layer_norm(in[0], nullptr, &in[1], 1e-5); }});
}

}  // namespace mixrec::test

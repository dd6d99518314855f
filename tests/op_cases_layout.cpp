// Rows of the table for ops/layout, ops/dropout and the maxima of ops/reduce.
#include "mixrec/ops/dropout.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/tests/op_cases.h"

namespace mixrec::test {

using Inputs = std::vector<Tensor>;

void add_layout_cases(std::vector<OpCase>& cases) {
  const auto three = [](Rng& rng) -> Inputs {
    return {normal(rng, {4, 3, 5}), normal(rng, {4, 3, 1}), normal(rng, {4, 3, 11})};
  };
  cases.push_back({"concat", "columns", three, [](const Inputs& in) { return concat(in, -1); },
                   [](const Plains& in) { return expected::joined(in, -1); }});
  cases.push_back({"concat", "rows, one part twice", three,
                   [](const Inputs& in) {
                     return concat({in[0], in[2].narrow(-1, 2, 5), in[0]}, 0);
                   },
                   [](const Plains& in) {
                     return expected::joined({in[0], expected::slice(in[2], -1, 2, 5), in[0]}, 0);
                   }});
  cases.push_back({"concat", "an empty part", three,
                   [](const Inputs& in) {
                     return concat({in[0], in[0].narrow(1, 0, 0), in[0]}, 1);
                   },
                   [](const Plains& in) {
                     return expected::joined({in[0], in[0]}, 1);
                   }});

  const auto cube = [](Rng& rng) -> Inputs { return {normal(rng, {4, 7, 6})}; };
  cases.push_back({"split", "heads", cube,
                   [](const Inputs& in) {
                     const auto parts = split(in[0], 1, {2, 4, 1});
                     return parts[0].reshape({8, 6}) * parts[1].narrow(1, 1, 2).reshape({8, 6});
                   },
                   [](const Plains& in) {
                     return expected::reshaped(
                         expected::combine(expected::slice(in[0], 1, 0, 2), expected::slice(in[0], 1, 3, 2),
                                           [](double a, double b) { return a * b; }),
                         {8, 6});
                   }});
  cases.push_back({"split", "a part nobody uses", cube,
                   [](const Inputs& in) {
                     return split(in[0], -1, {4, 0, 2})[2] * 3;
                   },
                   [](const Plains& in) {
                     return expected::map(expected::slice(in[0], -1, 4, 2), [](double x) { return 3 * x; });
                   }});

  for (const Shape& shape : {Shape{9, 17}, Shape{5, 3, 2}, Shape{40}, Shape{1, 8}}) {
    cases.push_back({"gather_rows", shape.to_string(),
                     [shape](Rng& rng) -> Inputs {
                       return {normal(rng, shape), integers(rng, {23}, shape[0])};
                     },
                     [](const Inputs& in) { return gather_rows(in[0], in[1]); },
                     [](const Plains& in) { return expected::taken(in[0], in[1]); }});
  }
  cases.push_back({"gather_rows", "no ids",
                   [](Rng& rng) -> Inputs {
                     return {normal(rng, {3, 4}), integers(rng, {0}, 3)};
                   },
                   [](const Inputs& in) { return gather_rows(in[0], in[1]); },
                   [](const Plains& in) { return expected::taken(in[0], in[1]); }});

  cases.push_back({"pad_last", "by 3", cube, [](const Inputs& in) { return pad_last(in[0], 3); },
                   [](const Plains& in) {
                     return expected::joined({in[0], Plain::zeros({4, 7, 3})}, -1);
                   }});
  cases.push_back({"pad_last", "by nothing", cube, [](const Inputs& in) { return pad_last(in[0], 0); },
                   [](const Plains& in) { return in[0]; }});
}

void add_dropout_cases(std::vector<OpCase>& cases) {
  for (const Shape& shape : {Shape{3, 7, 11}, Shape{64}, Shape{0, 3}, Shape{5, 1}}) {
    const auto inputs = [shape](Rng& rng) -> Inputs { return {normal(rng, shape)}; };
    for (const double p : {.3, 0.}) {
      const std::string label = std::to_string(p).substr(0, 3) + " of " + shape.to_string();
      cases.push_back({"dropout", label, inputs,
                       [p](const Inputs& in) {
                         Rng rng(3);
                         return dropout(in[0], p, rng, true);
                       },
                       [p](const Plains& in) { return expected::philox_dropout(in[0], p, 3); }});
    }
  }
}

void add_max_cases(std::vector<OpCase>& cases) {
  const auto cube = [](Rng& rng) -> Inputs { return {normal(rng, {4, 30, 3})}; };
  for (const int dim : {0, 1, 2}) {
    cases.push_back({"max", "dim " + std::to_string(dim), cube,
                     [dim](const Inputs& in) { return max(in[0], dim); },
                     [dim](const Plains& in) { return expected::best(in[0], dim); }});
  }
  const auto rows = [](Rng& rng) -> Inputs { return {normal(rng, {3, 2000})}; };
  cases.push_back({"max", "long rows", rows, [](const Inputs& in) { return max(in[0], -1); },
                   [](const Plains& in) { return expected::best(in[0], -1); }});
}

}  // namespace mixrec::test

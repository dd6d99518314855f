#include "mixrec/ops/embedding.h"
#include "mixrec/ops/embedding_columns.h"
#include "mixrec/ops/head_mixing.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/linear_by_request.h"
#include "mixrec/ops/request.h"
#include "mixrec/ops/side_mixing.h"
#include "mixrec/tests/op_cases.h"

namespace mixrec::test {
namespace {

using Inputs = std::vector<Tensor>;

using Kind = EmbeddingColumn::Kind;

// 1, 2, …, 17, 1, 2, …: the values of a numeric feature.
Tensor values_of(int64_t count) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(1 + i % 17));
  return Tensor::from(values);
}

// Inputs of all_kinds(): a table, a vector, three rows to repeat for seven and seven to take as they are, with
// the ids of seven rows and of nine entries.
std::function<Inputs(Rng&)> inputs_of_all_kinds(int64_t width) {
  return [width](Rng& rng) -> Inputs {
    return {normal(rng, {6, width}), normal(rng, {1, width}), normal(rng, {3, width}),
            normal(rng, {7, width}), integers(rng, {7}, 6),   integers(rng, {9}, 6)};
  };
}
std::vector<EmbeddingColumn> all_kinds(const Inputs& in) {
  return {{.kind = Kind::row, .source = in[0], .ids = in[4]},
          {.kind = Kind::product, .source = in[1], .values = beside(in[0], values_of(7))},
          {.kind = Kind::mean,
           .source = in[0],
           .ids = in[5],
           .offsets = beside(in[0], offsets_of({2, 0, 5, 1, 0, 0, 1}))},
          {.kind = Kind::repeat, .source = in[2], .offsets = beside(in[0], offsets_of({3, 0, 4}))},
          {.kind = Kind::repeat, .source = in[3]}};
}

// Row r: the r-th of the numbers of values_of(), times a vector.
Plain multiples(int64_t rows, const Plain& vector) {
  Plain values = Plain::zeros({rows, 1});
  for (int64_t r = 0; r < rows; ++r) values(r, 0) = static_cast<double>(1 + r % 17);
  return expected::combine(values, vector, [](double a, double b) { return a * b; });
}

Plain all_columns(const Plains& in) {
  return expected::joined(
      {expected::taken(in[0], in[4]), multiples(7, in[1]),
       expected::segment_sums(expected::taken(in[0], in[5]), {0, 2, 2, 7, 8, 8, 8, 9}, true),
       expected::expanded(in[2], {0, 3, 3, 7}), in[3]},
      1);
}

}  // namespace

void add_request_cases(std::vector<OpCase>& cases) {
  const std::vector<std::vector<int64_t>> layouts = {{1, 1, 1}, {3, 0, 7, 1}, {0}, {}, {131}, {0, 0, 2, 0}};
  for (const auto& lengths : layouts) {
    const Tensor offsets = offsets_of(lengths);
    const auto requests = static_cast<int64_t>(lengths.size());
    const int64_t total = offsets.to_vector<int64_t>().back();
    const std::string label = std::to_string(requests) + " segments of " + std::to_string(total) + " rows";
    const auto rows = [](int64_t count) {
      return [count](Rng& rng) -> Inputs { return {normal(rng, {count, 3, 11})}; };
    };
    cases.push_back({"expand_by_request", label, rows(requests),
                     [offsets](const Inputs& in) { return expand_by_request(in[0], beside(in[0], offsets)); },
                     [offsets](const Plains& in) { return expected::expanded(in[0], host(offsets)); }});
    cases.push_back(
        {"segment_sum", label, rows(total),
         [offsets](const Inputs& in) { return segment_sum(in[0], beside(in[0], offsets)); },
         [offsets](const Plains& in) { return expected::segment_sums(in[0], host(offsets), false); }});
    cases.push_back(
        {"segment_mean", label, rows(total),
         [offsets](const Inputs& in) { return segment_mean(in[0], beside(in[0], offsets)); },
         [offsets](const Plains& in) { return expected::segment_sums(in[0], host(offsets), true); }});
    cases.push_back(
        {"linear_by_request", label,
         [=](Rng& rng) -> Inputs {
           return {normal(rng, {requests, 3}), normal(rng, {total, 5}), normal(rng, {8, 7}),
                   normal(rng, {7})};
         },
         [offsets](const Inputs& in) {
           return linear_by_request(in[0], in[1], beside(in[0], offsets), in[2], in[3]);
         },
         [offsets](const Plains& in) {
           const Plain both = expected::joined({expected::expanded(in[0], host(offsets)), in[1]}, 1);
           return expected::plus(expected::product(both, in[2]), in[3]);
         }});
    // Chunks of 8 columns, which a card takes in one piece, and of 3.
    for (const int64_t chunk : {8, 3}) {
      cases.push_back(
          {"side_mixing", label + ", chunks of " + std::to_string(chunk),
           [=](Rng& rng) -> Inputs {
             return {normal(rng, {total, 2, 2 * chunk}), normal(rng, {total, 2, 5 * chunk}),
                     normal(rng, {requests, 3, 2 * chunk})};
           },
           [offsets](const Inputs& in) { return side_mixing(in[0], in[1], in[2], beside(in[0], offsets)); },
           [offsets](const Plains& in) {
             return expected::side_mixing(in[0], in[1], &in[2], host(offsets));
           }});
      cases.push_back(
          {"side_mixing", "one side, " + label + ", chunks of " + std::to_string(chunk),
           [=](Rng& rng) -> Inputs {
             return {normal(rng, {total, 3, 5 * chunk}), normal(rng, {total, 3, 6 * chunk})};
           },
           [chunk](const Inputs& in) { return side_mixing(in[0].narrow(2, chunk, 3 * chunk), in[1]); },
           [chunk](const Plains& in) {
             return expected::side_mixing(expected::slice(in[0], 2, chunk, 3 * chunk), in[1], nullptr, {});
           }});
    }
  }
}

void add_head_mixing_cases(std::vector<OpCase>& cases) {
  for (const Shape& shape :
       {Shape{5, 4, 8}, Shape{3, 3, 33}, Shape{3, 4, 64}, Shape{2, 1, 5}, Shape{0, 2, 4}, Shape{2, 3, 0}}) {
    for (const int64_t user_heads : {0, 1, 2}) {
      if (user_heads >= shape[1]) continue;
      cases.push_back({"head_mixing", shape.to_string() + " user heads " + std::to_string(user_heads),
                       [shape](Rng& rng) -> Inputs { return {normal(rng, shape)}; },
                       [user_heads](const Inputs& in) { return head_mixing(in[0], user_heads); },
                       [user_heads](const Plains& in) { return expected::head_mixing(in[0], user_heads); }});
      cases.push_back({"head_mixing",
                       "residual, " + shape.to_string() + " user heads " + std::to_string(user_heads),
                       [shape](Rng& rng) -> Inputs {
                         return {normal(rng, shape), normal(rng, shape)};
                       },
                       [user_heads](const Inputs& in) { return head_mixing(in[0], user_heads, in[1]); },
                       [user_heads](const Plains& in) {
                         return expected::plus(expected::head_mixing(in[0], user_heads), in[1]);
                       }});
    }
  }
}

void add_embedding_cases(std::vector<OpCase>& cases) {
  for (const Shape& shape : {Shape{9}, Shape{2, 5}, Shape{0}, Shape{}}) {
    cases.push_back({"embedding", shape.to_string(),
                     [shape](Rng& rng) -> Inputs {
                       return {normal(rng, {7, 13}), integers(rng, shape, 7)};
                     },
                     [](const Inputs& in) { return embedding(in[0], in[1]); },
                     [](const Plains& in) { return expected::taken(in[0], in[1]); }});
  }
  cases.push_back({"embedding", "twice one table",
                   [](Rng& rng) -> Inputs {
                     return {normal(rng, {7, 3}), integers(rng, {5}, 7)};
                   },
                   [](const Inputs& in) { return embedding(in[0], in[1]) * embedding(in[0], in[1]); },
                   [](const Plains& in) {
                     return expected::map(expected::taken(in[0], in[1]), [](double x) { return x * x; });
                   }});
  for (const BagMode mode : {BagMode::sum, BagMode::mean}) {
    const std::string name = mode == BagMode::sum ? "sum" : "mean";
    for (const auto& lengths : std::vector<std::vector<int64_t>>{{2, 0, 5, 1}, {0, 0}, {}}) {
      const Tensor offsets = offsets_of(lengths);
      const int64_t total = offsets.to_vector<int64_t>().back();
      cases.push_back({"embedding_bag", name + " of " + std::to_string(total),
                       [total](Rng& rng) -> Inputs {
                         return {normal(rng, {6, 17}), integers(rng, {total}, 6)};
                       },
                       [offsets, mode](const Inputs& in) {
                         return embedding_bag(in[0], in[1], beside(in[0], offsets), mode);
                       },
                       [offsets, mode](const Plains& in) {
                         return expected::segment_sums(expected::taken(in[0], in[1]), host(offsets),
                                                       mode == BagMode::mean);
                       }});
    }
  }
}

void add_embedding_column_cases(std::vector<OpCase>& cases) {
  for (const int64_t width : {1, 5, 8, 40}) {
    const std::string label = "all kinds, " + std::to_string(width) + " wide";
    cases.push_back({"embedding_columns", label, inputs_of_all_kinds(width),
                     [](const Inputs& in) { return embedding_columns(all_kinds(in), 7, in[0].dtype()); },
                     all_columns});
    cases.push_back(
        {"embedding_columns", label + ", padded, between others", inputs_of_all_kinds(width),
         [width](const Inputs& in) {
           return concat({in[3], embedding_columns(all_kinds(in), 7, in[0].dtype(), 6 * width), in[3]}, 1);
         },
         [width](const Plains& in) {
           return expected::joined({in[3], all_columns(in), Plain::zeros({7, width}), in[3]}, 1);
         }});
  }
  cases.push_back({"embedding_columns", "no rows",
                   [](Rng& rng) -> Inputs {
                     return {normal(rng, {3, 4}), integers(rng, {0}, 3), normal(rng, {1, 2})};
                   },
                   [](const Inputs& in) {
                     return embedding_columns(
                         {{.kind = Kind::row, .source = in[0], .ids = in[1]},
                          {.kind = Kind::product, .source = in[2], .values = beside(in[0], values_of(0))}},
                         0, in[0].dtype());
                   }});
  cases.push_back({"embedding_columns", "more columns than one launch takes",
                   [](Rng& rng) -> Inputs {
                     return {normal(rng, {495, 1}), arange(495)};
                   },
                   [](const Inputs& in) {
                     std::vector<EmbeddingColumn> columns;
                     for (int64_t i = 0; i < 45; ++i)
                       columns.push_back({.source = in[0], .ids = in[1].narrow(0, 11 * i, 11)});
                     return embedding_columns(columns, 11, in[0].dtype());
                   },
                   [](const Plains& in) {
                     return expected::swapped(expected::reshaped(in[0], {45, 11}), 0, 1);
                   }});
  cases.push_back({"embedding_columns", "vectors of many rows",
                   [](Rng& rng) -> Inputs {
                     return {normal(rng, {1, 37}), normal(rng, {1, 5})};
                   },
                   [](const Inputs& in) {
                     const Tensor values = beside(in[0], values_of(1100));
                     return embedding_columns({{.kind = Kind::product, .source = in[0], .values = values},
                                               {.kind = Kind::product, .source = in[1], .values = values}},
                                              1100, in[0].dtype());
                   },
                   [](const Plains& in) {
                     return expected::joined({multiples(1100, in[0]), multiples(1100, in[1])}, 1);
                   }});
}

}  // namespace mixrec::test

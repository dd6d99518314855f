// The documented errors of the recommender ops, and facts about them that the op table cannot see.
#include "mixrec/autograd/meta.h"
#include "mixrec/core/error.h"
#include "mixrec/core/rng.h"
#include "mixrec/ops/attention/attend.h"
#include "mixrec/ops/attention/cross_attention.h"
#include "mixrec/ops/embedding.h"
#include "mixrec/ops/embedding_columns.h"
#include "mixrec/ops/head_mixing.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/linear_by_request.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/reference.h"
#include "mixrec/ops/request.h"
#include "mixrec/ops/side_mixing.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;

namespace {

Tensor integers(const std::vector<int64_t>& values) { return Tensor::from(values); }

template <class F>
void check_error(F f, const std::string& expected) {
  try {
    f();
    FAIL_CHECK("no error; expected: ", expected);
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(message.find(expected) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("embedding: an id outside the table is named with its position") {
  const Tensor table = ones({3, 2});
  check_error(
      [&] {
        embedding(table, Tensor::from(std::vector<int64_t>{0, 2, 1, 3}, {2, 2}));
      },
      "[embedding] id 3 at position 3 of [2, 2] is outside a table of 3 rows");
  check_error([&] { embedding(table, integers({0, -1})); }, "id -1 at position 1 of [2]");
  check_error(
      [&] {
        embedding_bag(table, integers({7}), integers({0, 1}), BagMode::sum);
      },
      "[embedding_bag] id 7 at position 0 of [1] is outside a table of 3 rows");
  check_error([&] { embedding(table, ones({2})); }, "ids must be i64");
  check_error([&] { embedding(ones({3}), integers({0})); }, "needs a table [rows, width], got [3]");
}

TEST_CASE("embedding: only a leaf is a table") {
  Tensor table = ones({3, 2}).requires_grad();
  check_error([&] { embedding(table * 2.0, integers({0})); }, "only a leaf can collect look-ups");
}

TEST_CASE("embedding: a backward leaves look-ups, not a dense gradient") {
  Tensor table = ones({5, 2}).requires_grad();
  sum(embedding(table, integers({4, 1, 4}))).backward();
  sum(embedding_bag(table, integers({0, 1}), integers({0, 0, 2}), BagMode::mean)).backward();
  CHECK_FALSE(table.meta()->grad.defined());
  REQUIRE(table.meta()->lookups.size() == 2);
  CHECK(table.meta()->lookups[0].dy.strides()[1] == 1);
  CHECK(table.meta()->lookups[0].ids.to_vector<int64_t>() == std::vector<int64_t>{4, 1, 4});
  CHECK_FALSE(table.meta()->lookups[0].rows.defined());
  CHECK(table.meta()->lookups[1].rows.to_vector<int64_t>() == std::vector<int64_t>{1, 1});
  CHECK(table.meta()->lookups[1].weights.to_vector() == std::vector<float>{.5f, .5f});
  CHECK(table.grad().to_vector() == std::vector<float>{.5f, .5f, 1.5f, 1.5f, 0, 0, 0, 0, 2, 2});
  table.zero_grad();
  CHECK_FALSE(table.grad().defined());
}

TEST_CASE("embedding: an f32 table gives bf16 rows, and keeps f32 gradients") {
  Tensor table = Tensor::from({1.f, 1.00390625f, 3.f, -1.01171875f, 5.f, 6.f}, {3, 2}).requires_grad();
  const Tensor rows = embedding(table, integers({1, 0, 1}), bf16);
  CHECK(rows.dtype() == bf16);
  CHECK(rows.to_vector() == std::vector<float>{3, -1.015625f, 1, 1, 3, -1.015625f});
  rows.backward(ones({3, 2}, bf16));
  // The sum of a bag is rounded once, at the end.
  const Tensor bag =
      embedding_bag(table, integers({0, 0, 0, 0, 2}), integers({0, 4, 5}), BagMode::mean, bf16);
  CHECK(bag.to_vector() == std::vector<float>{1, 1, 5, 6});
  bag.backward(ones({2, 2}, bf16));
  CHECK(table.meta()->lookups[0].dy.dtype() == bf16);
  CHECK(table.meta()->lookups[1].weights.dtype() == f32);
  CHECK(table.grad().to_vector() == std::vector<float>{2, 2, 2, 2, 1, 1});
  check_error([&] { embedding(table, integers({0}), f64); },
              "[embedding] a table in f32 has no rows in f64; there are rows in the table's dtype");
}

TEST_CASE("embedding columns: what is wrong is named with its column") {
  using Kind = EmbeddingColumn::Kind;
  const Tensor table = ones({3, 2}), vector = ones({1, 2}), values = ones({2});
  const EmbeddingColumn good{.kind = Kind::row, .source = table, .ids = integers({0, 2})};
  const auto fails = [&](const EmbeddingColumn& bad, const std::string& message, DType dtype = f32) {
    check_error([&] { embedding_columns({good, bad}, 2, dtype); }, "[embedding_columns] " + message);
  };
  fails({.source = table, .ids = integers({0, 3})},
        "column 1: id 3 at position 1 of [2] is outside a table of 3 rows");
  fails({.source = table, .ids = integers({0})}, "column 1: ids are [1] for 2 rows");
  fails({.source = table}, "column 1: ids must be i64");
  fails({.ids = integers({0, 1})}, "column 1: needs a source of two dimensions");
  fails({.kind = Kind::mean, .source = table, .ids = integers({0, 1, 2}), .offsets = integers({0, 1, 2})},
        "column 1: offsets end at 2 but there are 3 values");
  fails({.kind = Kind::mean, .source = table, .ids = integers({0, 1}), .offsets = integers({0, 2})},
        "column 1: offsets are for 1 rows, there are 2");
  fails({.kind = Kind::product, .source = table, .values = values}, "column 1: needs a vector [1, width]");
  fails({.kind = Kind::product, .source = vector, .values = ones({3})},
        "column 1: values are [3] for 2 rows");
  fails({.kind = Kind::product, .source = vector}, "column 1: values must be f32");
  fails({.kind = Kind::repeat, .source = table}, "column 1: repeats 3 rows, there are 2");
  fails({.kind = Kind::repeat, .source = table, .offsets = integers({0, 1, 2})},
        "column 1: repeats 3 rows, its offsets are for 2");
  fails({.kind = Kind::repeat, .source = ones({2, 2})}, "column 1: repeats rows in f32 among rows in bf16",
        bf16);
  fails({.source = ones({3, 2}, f64), .ids = integers({0, 1})},
        "column 1: a source in f64 beside one in f32");
  check_error([] { embedding_columns({}, 2, f32); }, "[embedding_columns] needs at least one column");
  check_error(
      [&] {
        embedding_columns({good, good}, 2, f32, 3);
      },
      "[embedding_columns] the columns are 4 wide together, more than 3");
}

TEST_CASE("embedding columns: the same bits as the ops one by one, and look-ups of slices in place") {
  using Kind = EmbeddingColumn::Kind;
  Tensor table = Tensor::from({1.f, 1.00390625f, 3.f, -1.01171875f, 5.f, 6.f}, {3, 2}).requires_grad();
  const Tensor ids = integers({1, 0, 2}), offsets = integers({0, 2, 2, 3}), x = ones({3, 1}, bf16);
  const Tensor y = embedding_columns({{.kind = Kind::row, .source = table, .ids = ids},
                                      {.kind = Kind::repeat, .source = x},
                                      {.kind = Kind::mean, .source = table, .ids = ids, .offsets = offsets}},
                                     3, bf16, 8);
  const Tensor expected =
      concat({embedding(table, ids, bf16), x, embedding_bag(table, ids, offsets, BagMode::mean, bf16),
              zeros({3, 3}, bf16)},
             1);
  CHECK(y.to_vector() == expected.to_vector());
  y.backward(ones({3, 8}, bf16));
  const auto& lookups = table.meta()->lookups;
  REQUIRE(lookups.size() == 2);
  for (const auto& lookup : lookups) {
    CHECK(lookup.dy.dtype() == bf16);
    CHECK(lookup.dy.shape() == Shape{3, 2});
    CHECK(lookup.dy.strides()[0] == 8);
    CHECK(lookup.dy.storage() == lookups[0].dy.storage());
  }
  CHECK(lookups[1].weights.to_vector() == std::vector<float>{.5f, .5f, 1});
  CHECK(table.grad().to_vector() == std::vector<float>{1.5f, 1.5f, 1.5f, 1.5f, 2, 2});
}

TEST_CASE("expand_by_request: the number of candidates may be given") {
  const Tensor x = Tensor::from({1.f, 2.f}, {2, 1});
  CHECK(expand_by_request(x, integers({0, 1, 3}), 3).to_vector() == std::vector<float>{1, 2, 2});
  check_error(
      [&] {
        expand_by_request(x, integers({0, 1, 3}), 4);
      },
      "[expand_by_request] offsets end at 3 but there are 4 values");
}

TEST_CASE("segments: offsets are checked") {
  const Tensor x = ones({3, 2});
  check_error(
      [&] {
        segment_sum(x, integers({0, 2}));
      },
      "[segment_sum] offsets end at 2 but there are 3 values");
  check_error([&] { segment_mean(x, integers({0, 2, 1, 3})); }, "offsets fall from 2 to 1 at row 1");
  check_error([&] { segment_sum(x, integers({1, 3})); }, "offsets must start at 0, start at 1");
  check_error(
      [&] {
        expand_by_request(x, integers({0, 2}));
      },
      "[expand_by_request] offsets are for 1 requests, there are 3");
  check_error([&] { expand_by_request(x, integers({0, 2, 1, 3})); }, "offsets fall from 2 to 1 at row 1");
  check_error(
      [&] {
        embedding_bag(x, integers({0}), integers({0, 2}), BagMode::sum);
      },
      "offsets end at 2 but there are 1 values");
}

TEST_CASE("head mixing: two heads of width four") {
  const Tensor x = Tensor::from({1.f, 2.f, 3.f, 4.f, 5.f, 6.f, 7.f, 8.f}, {1, 2, 4});
  CHECK(head_mixing(x).to_vector() == std::vector<float>{1, 2, 5, 6, 3, 4, 7, 8});
  CHECK(head_mixing(x, 1).to_vector() == std::vector<float>{1, 2, 0, 0, 3, 4, 7, 8});
  CHECK(head_mixing(head_mixing(x)).to_vector() == x.to_vector());
}

TEST_CASE("request ops: an upstream gradient may be a broadcast one") {
  Tensor x = ones({2, 2, 4}).requires_grad();
  (sum(head_mixing(x)) + sum(expand_by_request(x, integers({0, 3, 4}))) +
   sum(segment_mean(x, integers({0, 2}))))
      .backward();
  const std::vector<float> grads = x.grad().to_vector();
  CHECK(grads == std::vector<float>{4.5f, 4.5f, 4.5f, 4.5f, 4.5f, 4.5f, 4.5f, 4.5f,  //
                                    2.5f, 2.5f, 2.5f, 2.5f, 2.5f, 2.5f, 2.5f, 2.5f});
}

TEST_CASE("head mixing: impossible sizes") {
  check_error(
      [] {
        head_mixing(ones({2, 3, 8}));
      },
      "[head_mixing] the number of heads N = 3 must divide the width D = 8");
  check_error([] { head_mixing(ones({3, 8})); }, "needs [batch, heads, width], got [3, 8]");
  check_error([] { head_mixing(ones({1, 4, 8}), 4); }, "user_heads must be in [0, 4), got 4");
  check_error([] { head_mixing(ones({1, 4, 8}), -1); }, "user_heads must be in [0, 4), got -1");
}

TEST_CASE("side mixing: shapes and offsets are checked") {
  const Tensor own = ones({2, 3, 6}), residual = ones({2, 3, 10}), offsets = integers({0, 2});
  check_error(
      [&] {
        side_mixing(ones({2, 3, 7}), residual);
      },
      "[side_mixing] needs [batch, heads n, n chunks of a column or more], got [2, 3, 7]");
  check_error([&] { side_mixing(own, ones({2, 2, 10})); }, "the residual is [2, 2, 10], own is [2, 3, 6]");
  check_error(
      [&] {
        side_mixing(own, residual, ones({1, 2, 4}), offsets);
      },
      "shared is [1, 2, 4], own is [2, 3, 6]");
  check_error(
      [&] {
        side_mixing(own, residual, ones({1, 3, 6}), offsets);
      },
      "chunks take 12 columns, the residual has 10");
  check_error(
      [&] {
        side_mixing(own, residual, ones({1, 2, 6}), integers({0, 1}));
      },
      "offsets end at 1 but there are 2 values");
  check_error([&] { side_mixing(own, residual, ones({1, 2, 6})); }, "offsets must be i64 [2]");
}

TEST_CASE("linear by request: shapes and offsets are checked") {
  const Tensor shared = ones({1, 2}), own = ones({3, 4}), w = ones({6, 5}), offsets = integers({0, 3});
  check_error(
      [&] {
        linear_by_request(shared, own, offsets, ones({5, 5}));
      },
      "[linear_by_request] shared [1, 2] and own [3, 4] do not fit the weight [5, 5]");
  check_error([&] { linear_by_request(shared, own, offsets, w, ones({4})); },
              "the bias [4] does not fit the weight [6, 5]");
  check_error(
      [&] {
        linear_by_request(shared, own, integers({0, 2}), w);
      },
      "offsets end at 2 but there are 3 values");
  check_error(
      [&] {
        linear_by_request(shared, own, integers({0, 1, 3}), w);
      },
      "offsets must be i64 [2] for as many requests as shared has");
}

TEST_CASE("attend: shapes and offsets are checked") {
  const Tensor u = ones({2, 2, 3}), h = ones({4, 6}), events = integers({0, 1, 4}),
               candidates = integers({0, 1, 2});
  check_error(
      [&] {
        attend(u, ones({4, 8}), events, candidates);
      },
      "[attend] events are 8 wide, 2 heads of 3 need 6");
  check_error(
      [&] {
        attend(u, h, integers({0, 1, 3}), candidates);
      },
      "history offsets end at 3 but there are 4 values");
  check_error(
      [&] {
        attend(u, h, events, integers({0, 3}));
      },
      "candidate offsets end at 3 but there are 2 values");
  check_error(
      [&] {
        attend(u, h, events, integers({0, 2}));
      },
      "history offsets are for 2 requests, candidate offsets for 1");
  check_error([&] { attend(u, ones({4, 6}, f64), events, candidates); }, "u is f32 and h is f64");
  check_error(
      [&] {
        attend(ones({2, 6}), h, events, candidates);
      },
      "needs queries [candidates, heads, width]");
}

TEST_CASE("attend: by hand") {
  // One head of width one: scores 1·0 and 1·ln 3 give weights 1/4 and 3/4.
  const double ln3 = std::log(3.0);
  const Tensor h = Tensor::from({0.0, ln3}, {2, 1}), u = Tensor::from({1.0, 5.0}, {2, 1, 1});
  const Tensor m = attend(u, h, integers({0, 2, 2}), integers({0, 1, 2}));
  CHECK(m.to_vector<double>()[0] == doctest::Approx(.75 * ln3));
  CHECK(m.to_vector<double>()[1] == 0);  // no history
}

TEST_CASE("attend: a candidate has the same bits alone and in company") {
  Rng rng(3);
  Tensor h = empty({150, 24}), u = empty({21, 3, 8});
  rng.fill_normal(h, 0, 1);
  rng.fill_normal(u, 0, 1);
  const std::vector<float> together = attend(u, h, integers({0, 150}), integers({0, 21})).to_vector();
  for (int64_t c = 0; c < 21; ++c) {
    const auto alone = attend(u.narrow(0, c, 1), h, integers({0, 150}), integers({0, 1})).to_vector();
    CHECK(std::equal(alone.begin(), alone.end(), together.begin() + c * 24));
  }
}

TEST_CASE("attend: large scores do not overflow") {
  const Tensor h = Tensor::from({1000.f, -1000.f, 999.f}, {3, 1}), u = ones({1, 1, 1});
  const float m = attend(u, h, integers({0, 3}), integers({0, 1})).to_vector()[0];
  CHECK(m == doctest::Approx(1000 - 1 / (1 + std::exp(1.0))));
}

TEST_CASE("cross attention: the form without K and V agrees with the literal one") {
  Rng rng(11);
  const auto normal = [&](const Shape& shape) {
    Tensor x = empty(shape, f64);
    rng.fill_normal(x, 0, 1);
    return x.requires_grad();
  };
  std::vector<Tensor> in = {normal({6, 2, 4}), normal({2, 3, 4}), normal({2, 3, 4}), normal({80, 6})};
  const Tensor events = integers({0, 70, 70, 80}), candidates = integers({0, 3, 4, 6});
  const Tensor upstream = normal({6, 2, 4}).detach();
  std::vector<std::vector<double>> fused;
  for (const auto function : {cross_attention, reference::cross_attention}) {
    for (Tensor& x : in) x.zero_grad();
    const Tensor z = function(in[0], in[1], in[2], in[3], events, candidates, in[0]);
    z.backward(upstream);
    std::vector<std::vector<double>> found{z.to_vector<double>()};
    for (const Tensor& x : in) found.push_back(x.grad().to_vector<double>());
    if (fused.empty()) fused = found;
    for (size_t i = 0; i < found.size(); ++i) {
      for (size_t j = 0; j < found[i].size(); ++j)
        CHECK(found[i][j] == doctest::Approx(fused[i][j]).epsilon(1e-10));
    }
  }
}

TEST_CASE("cross attention: weights must fit") {
  const Tensor q = ones({2, 2, 4}), h = ones({3, 6}), events = integers({0, 1, 3}),
               candidates = integers({0, 1, 2});
  check_error(
      [&] {
        cross_attention(q, ones({2, 3, 5}), ones({2, 3, 5}), h, events, candidates);
      },
      "[cross_attention] key weights [2, 3, 5] do not fit queries [2, 2, 4]");
  check_error(
      [&] {
        cross_attention(q, ones({2, 3, 4}), ones({2, 4, 4}), h, events, candidates);
      },
      "value weights are [2, 4, 4], key weights [2, 3, 4]");
}

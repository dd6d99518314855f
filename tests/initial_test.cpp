// What modules start with: deviations, gains, biases, and the rows of values that were never seen.
#include "mixrec/models/mlp.h"
#include "mixrec/nn/embedding.h"
#include "mixrec/nn/ffn.h"
#include "mixrec/nn/linear.h"
#include "mixrec/nn/mlp.h"
#include "mixrec/nn/norm.h"
#include "mixrec/tests/golden_batch.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

double deviation(const Tensor& x) {
  double squares = 0;
  for (const double v : x.to_vector<double>()) squares += v * v;
  return std::sqrt(squares / static_cast<double>(x.numel()));
}

bool all_are(const Tensor& x, double value) {
  for (const double v : x.to_vector<double>())
    if (v != value) return false;
  return true;
}

// The deviation of some ten thousand normal numbers is known to a hundredth.
void check_deviation(const Tensor& x, double expected) {
  CAPTURE(x.shape());
  CHECK(deviation(x) == doctest::Approx(expected).epsilon(.03));
  CHECK(x.needs_grad());
}

}  // namespace

TEST_CASE("initial weights have the deviation of their inputs' number, times a gain") {
  Rng rng(3);
  const Linear linear(100, 400, rng), small(100, 400, rng, {.bias = false, .gain = .5});
  check_deviation(linear.weight, .1);
  check_deviation(small.weight, .05);
  CHECK(all_are(linear.bias, 0));
  CHECK(!small.bias.defined());
  check_deviation(PerHeadLinear(4, 25, 100, rng).weight, .2);
  check_deviation(PerHeadLinear(4, 25, 100, rng, 3).weight, .6);
  const MLP mlp({64, 256, 100}, rng);
  check_deviation(mlp.layers[0].weight, 1. / 8);
  check_deviation(mlp.layers[1].weight, 1. / 16);
}

TEST_CASE("initial down projections are smaller by their scale") {
  Rng rng(4);
  const SwiGLU ffn(64, 256, rng), large(64, 256, rng, {.down_scale = .5});
  check_deviation(ffn.gate_up, 1. / 8);
  check_deviation(ffn.down, .01 / 16);
  check_deviation(large.down, .5 / 16);
  const PerHeadFFN heads(3, 64, 256, rng), large_heads(3, 64, 256, rng, {.down_scale = .5});
  check_deviation(heads.gate_up, 1. / 8);
  check_deviation(heads.down, .01 / 16);
  check_deviation(large_heads.down, .5 / 16);
}

TEST_CASE("initial norms do nothing") {
  CHECK(all_are(RMSNorm(7).gain, 1));
  CHECK(all_are(LayerNorm(7).gain, 1));
  CHECK(all_are(LayerNorm(7).bias, 0));
  const Tensor x = Tensor::from({1.f, -1.f}, {1, 2});
  CHECK(LayerNorm(2, .5).forward(x).to_vector<double>()[0] == doctest::Approx(1 / std::sqrt(1.5)));
  CHECK(RMSNorm(2, .5).forward(x).to_vector<double>()[1] == doctest::Approx(-1 / std::sqrt(1.5)));
}

TEST_CASE("initial tables have the given deviation, and the row of unknown values is zero") {
  Rng rng(5);
  check_deviation(Embedding(500, 20, rng).table, .005);
  check_deviation(Embedding(500, 20, rng, .1).table, .1);
  check_deviation(EmbeddingBag(500, 20, rng, .2).table, .2);
  FeatureSet spec = golden_spec();
  for (FeatureSpec& f : spec.features) f.rows *= 1000, f.width = 10;
  spec.histories.clear();
  FeatureEmbedding embedding(spec, rng, {.table_deviation = .3});
  int tables = 0;
  for (const Parameter& p : parameters(embedding)) {
    if (p.kind != ParameterKind::table) continue;
    CAPTURE(p.name);
    ++tables;
    check_deviation(p.value, .3);
    CHECK(all_are(p.value.narrow(0, 0, 1), 0));
    CHECK_FALSE(all_are(p.value.narrow(0, 1, 1), 0));
  }
  CHECK(tables == 6);
  FeatureEmbedding usual(spec, rng);
  check_deviation(parameters(usual)[0].value, .005);
}

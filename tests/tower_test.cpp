// A tower against loops over plain numbers: product and bias, norm, activation, layer by layer.
#include "mixrec/nn/tower.h"

#include "mixrec/tests/expected.h"
#include "mixrec/tests/op_cases.h"

#include <cmath>
#include <doctest/doctest.h>
#include <map>

using namespace mixrec;
using namespace mixrec::test;

TEST_CASE("towers: each layer is a product with bias, a norm, then an activation") {
  for (const std::string norm : {"none", "layer", "rms"}) {
    CAPTURE(norm);
    Rng rng(3);
    Tower tower(5, {.widths = {7, 4}, .activation = "silu", .norm = norm}, rng);
    to_dtype(tower, f64);
    std::map<std::string, Plain> weights;
    for (const Parameter& p : parameters(tower)) {
      rng.fill_normal(p.value.detach(), .2, .8);
      weights[p.name] = {{p.value.shape().begin(), p.value.shape().end()}, p.value.to_vector<double>()};
    }
    const Tensor x = normal(rng, {6, 5});
    Plain y{{6, 5}, x.to_vector<double>()};
    for (const std::string layer : {"0.", "1."}) {
      y = expected::plus(expected::product(y, weights.at(layer + "weight")), weights.at(layer + "bias"));
      if (norm == "layer")
        y = expected::layer_norm(y, &weights.at(layer + "norm.gain"), &weights.at(layer + "norm.bias"), 1e-5);
      if (norm == "rms") y = expected::rms_norm(y, &weights.at(layer + "norm.gain"), 1e-6);
      y = expected::map(y, [](double v) { return v / (1 + std::exp(-v)); });
    }
    Pass pass;
    const auto got = tower.forward(x, pass).to_vector<double>();
    REQUIRE(got.size() == y.values.size());
    for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(y.values[i]).epsilon(1e-11));
  }
}

// Training a model on the golden batch: tests/oracle/mixformer_golden.py.
#pragma once

#include "mixrec/nn/module.h"
#include "mixrec/nn/pass.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/golden_batch.h"

#include <doctest/doctest.h>

namespace mixrec::test {

// The sum of the tasks' losses.
template <class Model>
Tensor golden_loss(const Model& model, const RequestBatch& batch) {
  Pass pass;
  const Tensor logits = model.forward(batch, pass);
  return sum(bce_with_logits_per_task(logits, cast(batch.labels, logits.dtype()),
                                      cast(batch.weights, logits.dtype())));
}

// Losses before each of ten steps and after the last are the script's, with either of its optimisers.  make() gives
// the golden model afresh.
template <class Make>
void check_golden_losses(const Golden& golden, const Make& make, Device device = kCpu) {
  const OptimizerOptions plain{.dense = {.name = "sgd", .lr = .05}, .tables = {.name = "sgd", .lr = .05}};
  const OptimizerOptions adaptive{.dense = {.name = "adamw", .lr = .01, .weight_decay = .01},
                                  .tables = {.name = "adagrad", .lr = .05, .eps = 1e-10}};
  const RequestBatch batch = golden_batch(golden, golden_spec()).to(device);
  for (const bool is_plain : {true, false}) {
    auto model = make();
    to_device(model, device);
    Optimizer optimizer(parameters(model), is_plain ? plain : adaptive);
    const auto expected = golden[is_plain ? "losses.sgd" : "losses.adamw"].template to_vector<double>();
    REQUIRE(expected.size() == 11);
    for (const double value : expected) {
      const Tensor loss = golden_loss(model, batch);
      CHECK(loss.item() == doctest::Approx(value).epsilon(1e-10));
      loss.backward();
      optimizer.step();
      optimizer.zero_grad();
    }
  }
}

}  // namespace mixrec::test

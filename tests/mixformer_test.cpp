// MixFormer against golden files that a PyTorch script wrote from the equations:
// tests/oracle/mixformer_golden.py.
#include "mixrec/models/unified/mixformer.h"

#include "mixrec/autograd/gradcheck.h"
#include "mixrec/core/error.h"
#include "mixrec/tests/card.h"
#include "mixrec/tests/golden.h"
#include "mixrec/tests/golden_batch.h"
#include "mixrec/tests/golden_training.h"
#include "mixrec/tests/message_of.h"

#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

MixFormerOptions golden_options(bool pooled) {
  MixFormerOptions options{.heads = 4, .width = 8, .layers = 2, .event_width = 3, .ffn_hidden = 6};
  options.sequence_hidden = 7, options.head_hidden = 5, options.pooled_history = pooled;
  return options;
}

// The golden model, in f64, with the golden weights.
MixFormer golden_model(const Golden& golden, const MixFormerOptions& options) {
  Rng rng(1);
  MixFormer model(golden_spec(), options, rng);
  to_dtype(model, f64);
  for (Parameter& p : parameters(model)) p.value.copy_from(golden["weight." + p.name]);
  return model;
}

void check_golden(Device device) {
  for (const bool pooled : {false, true}) {
    for (const char* recompute : {"none", "ffn", "block"}) {
      CAPTURE(pooled);
      CAPTURE(recompute);
      const Golden golden(pooled ? "mixformer_pooled" : "mixformer");
      const FeatureSet spec = golden_spec();
      const RequestBatch batch = golden_batch(golden, spec).to(device);
      MixFormerOptions options = golden_options(pooled);
      options.recompute = recompute;
      MixFormer model = golden_model(golden, options);
      to_device(model, device);
      Pass pass;
      CHECK(relative_difference(model.forward(batch, pass), golden["logits"]) < 1e-10);
      const Tensor loss = golden_loss(model, batch);
      CHECK(relative_difference(loss, golden["loss"]) < 1e-10);
      loss.backward();
      for (const Parameter& p : parameters(model)) {
        CAPTURE(p.name);
        CHECK(relative_difference(p.value.grad(), golden["gradient." + p.name]) < 1e-10);
      }
    }
  }
}

void check_golden_losses(Device device) {
  const Golden golden("mixformer");
  check_golden_losses(
      golden, [&] { return golden_model(golden, golden_options(false)); }, device);
}

}  // namespace

TEST_CASE("MixFormer: logits, loss and every gradient are those of the PyTorch script") {
  check_golden(kCpu);
}
TEST_CASE("MixFormer: ten training losses are those of the PyTorch script") { check_golden_losses(kCpu); }
TEST_CASE("cuda: MixFormer: logits, loss and every gradient are those of the PyTorch script") {
  if (has_card("MixFormer's golden files on a card")) check_golden(kCard);
}
TEST_CASE("cuda: MixFormer: ten training losses are those of the PyTorch script") {
  if (has_card("MixFormer's golden losses on a card")) check_golden_losses(kCard);
}

TEST_CASE("MixFormer: gradients of the whole model agree with finite differences") {
  const Golden golden("mixformer_pooled");
  const FeatureSet spec = golden_spec();
  const RequestBatch batch = golden_batch(golden, spec);
  MixFormer model = golden_model(golden, golden_options(true));
  std::vector<Tensor> weights;
  for (const Parameter& p : parameters(model)) weights.push_back(p.value);
  // The model reads its own weights, which gradcheck nudges in place.
  const auto result = gradcheck([&](const std::vector<Tensor>&) { return golden_loss(model, batch); },
                                weights, {.max_elements = 64});
  CHECK_MESSAGE(result.passed, result.message);
}

TEST_CASE("MixFormer: impossible sizes are refused with both numbers") {
  CHECK(message_of([] {
          MixFormerOptions{.heads = 16, .width = 386}.resolved();
        }).find("width 386 must be a multiple of its heads 16") != std::string::npos);
  CHECK(message_of([] { MixFormerOptions{.preset = "large"}.resolved(); }).find("'small' and 'medium'") !=
        std::string::npos);
  CHECK(MixFormerOptions{.preset = "small"}.resolved().width == 384);
}

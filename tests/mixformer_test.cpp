// MixFormer against golden files that a PyTorch script wrote from the equations:
// tests/oracle/mixformer_golden.py.
#include "mixrec/models/mixformer.h"

#include "mixrec/autograd/gradcheck.h"
#include "mixrec/core/error.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/train/safetensors.h"

#include <cmath>
#include <cstring>
#include <doctest/doctest.h>

using namespace mixrec;
using mixrec::test::message_of;

namespace {

class Golden {
 public:
  explicit Golden(const std::string& model) : file_("tests/golden/" + model + ".safetensors") {}

  Tensor operator()(const std::string& name) const {
    const TensorHeader* header = file_.find(name);
    REQUIRE_MESSAGE(header, name, " is not in the golden file");
    Shape shape;
    for (const int64_t size : header->shape) shape.append(size);
    Tensor value = empty(shape, header->dtype == "F64" ? f64 : header->dtype == "F32" ? f32 : i64);
    file_.read(*header, value.raw_data());
    return value;
  }

 private:
  SafetensorsFile file_;
};

FeatureSpec feature(const char* name, FeatureScope scope, int64_t rows, int64_t width,
                    FeatureKind kind = FeatureKind::categorical) {
  return {.name = name, .scope = scope, .kind = kind, .rows = rows, .width = width};
}

FeatureSet golden_spec() {
  using enum FeatureScope;
  FeatureSet spec;
  spec.features = {feature("user", request, 6, 2),
                   feature("country", request, 4, 3),
                   feature("age", request, 0, 2, FeatureKind::numeric),
                   feature("hour", request, 5, 3),
                   feature("item", candidate, 9, 7),
                   feature("genres", candidate, 6, 3, FeatureKind::list),
                   feature("position", candidate, 4, 2)};
  spec.histories = {
      {"seen",
       4,
       {feature("item", event, 9, 7), feature("liked", event, 3, 2), feature("gap", event, 4, 2)}}};
  spec.tasks = {{.name = "click"}, {.name = "long_view"}};
  return spec;
}

RequestBatch golden_batch(const Golden& golden, const FeatureSet& spec) {
  RequestBatch batch;
  batch.requests = 3, batch.candidates = 5;
  batch.offsets = golden("batch.offsets");
  for (const FeatureSpec& f : spec.features) {
    const std::string name = "batch.features." + f.name;
    if (f.kind == FeatureKind::numeric) {
      batch.features.push_back({.values = golden(name + ".values")});
    } else if (f.kind == FeatureKind::list) {
      batch.features.push_back({.ids = golden(name + ".ids"), .offsets = golden(name + ".offsets")});
    } else {
      batch.features.push_back({.ids = golden(name + ".ids")});
    }
  }
  HistoryBatch history{golden("batch.histories.seen.offsets"), {}};
  for (const FeatureSpec& f : spec.histories[0].features) {
    history.columns.push_back({.ids = golden("batch.histories.seen." + f.name + ".ids")});
  }
  batch.histories.push_back(history);
  batch.labels = golden("batch.labels");
  batch.weights = golden("batch.weights");
  return batch;
}

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
  for (Parameter& p : parameters(model)) p.value.copy_from(golden("weight." + p.name));
  return model;
}

Tensor loss_of(const MixFormer& model, const RequestBatch& batch) {
  Pass pass;
  return sum(bce_with_logits_per_task(model.forward(batch, pass), cast(batch.labels, f64),
                                      cast(batch.weights, f64)));
}

double relative_distance(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  REQUIRE(x.size() == y.size());
  double gap = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i) gap += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
  return std::sqrt(gap) / std::max(std::sqrt(size), 1e-12);
}

std::vector<double> losses_of(const Golden& golden, const OptimizerOptions& options) {
  const FeatureSet spec = golden_spec();
  const RequestBatch batch = golden_batch(golden, spec);
  MixFormer model = golden_model(golden, golden_options(false));
  Optimizer optimizer(parameters(model), options);
  std::vector<double> losses;
  for (int step = 0; step < 11; ++step) {
    const Tensor loss = loss_of(model, batch);
    losses.push_back(loss.item());
    loss.backward();
    optimizer.step();
    optimizer.zero_grad();
  }
  return losses;
}

void check_losses(const std::vector<double>& got, const Tensor& expected) {
  const auto want = expected.to_vector<double>();
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(want[i]).epsilon(1e-10));
}

}  // namespace

TEST_CASE("MixFormer: logits, loss and every gradient are those of the PyTorch script") {
  for (const bool pooled : {false, true}) {
    for (const char* recompute : {"none", "ffn", "block"}) {
      CAPTURE(pooled);
      CAPTURE(recompute);
      const Golden golden(pooled ? "mixformer_pooled" : "mixformer");
      const FeatureSet spec = golden_spec();
      const RequestBatch batch = golden_batch(golden, spec);
      MixFormerOptions options = golden_options(pooled);
      options.recompute = recompute;
      MixFormer model = golden_model(golden, options);
      Pass pass;
      CHECK(relative_distance(model.forward(batch, pass), golden("logits")) < 1e-10);
      const Tensor loss = loss_of(model, batch);
      CHECK(relative_distance(loss, golden("loss")) < 1e-10);
      loss.backward();
      for (const Parameter& p : parameters(model)) {
        CAPTURE(p.name);
        CHECK(relative_distance(p.value.grad(), golden("gradient." + p.name)) < 1e-10);
      }
    }
  }
}

TEST_CASE("MixFormer: ten training losses are those of the PyTorch script") {
  const Golden golden("mixformer");
  check_losses(losses_of(golden, {.dense = {.name = "sgd", .lr = .05}, .tables = {.name = "sgd", .lr = .05}}),
               golden("losses.sgd"));
  check_losses(losses_of(golden, {.dense = {.name = "adamw", .lr = .01, .weight_decay = .01},
                                  .tables = {.name = "adagrad", .lr = .05, .eps = 1e-10}}),
               golden("losses.adamw"));
}

TEST_CASE("MixFormer: gradients of the whole model agree with finite differences") {
  const Golden golden("mixformer_pooled");
  const FeatureSet spec = golden_spec();
  const RequestBatch batch = golden_batch(golden, spec);
  MixFormer model = golden_model(golden, golden_options(true));
  std::vector<Tensor> weights;
  for (const Parameter& p : parameters(model)) weights.push_back(p.value);
  // The model reads its own weights, which gradcheck nudges in place.
  const auto result = gradcheck([&](const std::vector<Tensor>&) { return loss_of(model, batch); }, weights,
                                {.max_elements = 64});
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

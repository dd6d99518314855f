// UI-MixFormer against golden files that a PyTorch script wrote from the equations
// (tests/oracle/mixformer_golden.py), and its two forms against each other.
#include "mixrec/models/unified/ui_mixformer.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/tests/card.h"
#include "mixrec/tests/golden.h"
#include "mixrec/tests/golden_batch.h"
#include "mixrec/tests/golden_training.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/op_cases.h"

#include <doctest/doctest.h>
#include <thread>

using namespace mixrec;
using namespace mixrec::test;

namespace {

constexpr int64_t kUserHeads = 2;

UiMixFormerOptions golden_options() {
  UiMixFormerOptions options;
  options.heads = 4, options.width = 8, options.layers = 2, options.event_width = 3, options.ffn_hidden = 6;
  options.sequence_hidden = 7, options.head_hidden = 5, options.pooled_history = false;
  return options;
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  if (const size_t at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
}

// The script keeps the weights of all heads in one tensor, named as in MixFormer: its tensor for a parameter of
// ours, cut to the heads of the parameter's side.
Tensor golden_tensor(const Golden& golden, const std::string& kind, std::string name) {
  const bool user = name.find(".user.") != std::string::npos, item = name.find(".item.") != std::string::npos;
  replace(name, user ? ".user." : ".item.", ".");
  replace(name, ".mixer_norm.", ".query_mixer.ffn_norm.");
  replace(name, ".fusion_norm.", ".output_fusion.norm.");
  replace(name, ".mixer.", ".query_mixer.ffn.");
  replace(name, ".fusion.", ".output_fusion.ffn.");
  replace(name, ".sequence.", ".attention.");
  for (const char* at : {".0", ".1"}) {
    const std::string block = std::string("blocks") + at;
    replace(name, block + ".norm.", block + ".query_mixer.norm.");
    replace(name, block + ".key", block + ".attention.key");
    replace(name, block + ".value", block + ".attention.value");
  }
  const Tensor all = golden[kind + "." + name];
  if (user) return all.narrow(0, 0, kUserHeads);
  return item ? all.narrow(0, kUserHeads, all.dim(0) - kUserHeads) : all;
}

UiMixFormer golden_model(const Golden& golden, const UiMixFormerOptions& options) {
  Rng rng(1);
  UiMixFormer model(golden_spec(), options, rng);
  to_dtype(model, f64);
  for (Parameter& p : parameters(model)) p.value.copy_from(golden_tensor(golden, "weight", p.name));
  return model;
}

Tensor random_ids(int64_t count, int64_t rows, Rng& rng) {
  Tensor ids = empty({count}, i64);
  for (int64_t i = 0; i < count; ++i)
    ids.data<int64_t>()[i] = static_cast<int64_t>(rng.below(static_cast<uint64_t>(rows)));
  return ids;
}

FeatureColumn random_column(const FeatureSpec& f, int64_t rows, Rng& rng) {
  if (f.kind == FeatureKind::numeric) {
    Tensor values = empty({rows});
    rng.fill_normal(values, 0, 1);
    return {.values = values};
  }
  if (f.kind == FeatureKind::categorical) return {.ids = random_ids(rows, f.rows, rng)};
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < rows; ++i) lengths.push_back(static_cast<int64_t>(rng.below(3)));
  const Tensor offsets = offsets_of(lengths);
  return {.ids = random_ids(offsets.data<int64_t>()[rows], f.rows, rng), .offsets = offsets};
}

// Requests with these numbers of candidates and events.
RequestBatch random_batch(const std::vector<int64_t>& candidates, const std::vector<int64_t>& events,
                          Rng& rng) {
  const FeatureSet spec = golden_spec();
  RequestBatch batch;
  batch.offsets = offsets_of(candidates);
  batch.requests = static_cast<int64_t>(candidates.size());
  batch.candidates = batch.offsets.data<int64_t>()[batch.requests];
  for (const FeatureSpec& f : spec.features) {
    const bool request = f.scope == FeatureScope::request;
    batch.features.push_back(random_column(f, request ? batch.requests : batch.candidates, rng));
  }
  HistoryBatch history{offsets_of(events), {}};
  for (const FeatureSpec& f : spec.histories[0].features)
    history.columns.push_back(random_column(f, history.offsets.data<int64_t>()[batch.requests], rng));
  batch.histories.push_back(history);
  batch.labels = empty({batch.candidates, 2}), batch.weights = ones({batch.candidates, 2});
  for (int64_t i = 0; i < 2 * batch.candidates; ++i)
    batch.labels.data<float>()[i] = rng.uniform() < .4 ? 1.f : 0.f;
  batch.validate(spec);
  return batch;
}

// A model whose residual branches are as strong as its states, so that a difference in any of them shows.
UiMixFormer random_model(bool decoupled, DType dtype) {
  UiMixFormerOptions options;
  options.heads = 4, options.width = 16, options.layers = 3, options.event_width = 5, options.ffn_hidden = 12;
  options.sequence_hidden = 14, options.head_hidden = 8, options.down_scale = 1, options.table_deviation = 1;
  options.item_heads = 1, options.decoupled = decoupled;
  Rng rng(7);
  UiMixFormer model(golden_spec(), options, rng);
  to_dtype(model, dtype);
  return model;
}

void check_golden(Device device) {
  const Golden golden("ui_mixformer");
  const FeatureSet spec = golden_spec();
  const RequestBatch batch = golden_batch(golden, spec).to(device);
  for (const bool decoupled : {true, false}) {
    for (const char* recompute : {"none", "ffn"}) {
      CAPTURE(decoupled);
      CAPTURE(recompute);
      UiMixFormerOptions options = golden_options();
      options.decoupled = decoupled, options.recompute = recompute;
      UiMixFormer model = golden_model(golden, options);
      to_device(model, device);
      CHECK(model.user_heads() == kUserHeads);
      Pass pass;
      CHECK(relative_difference(model.forward(batch, pass), golden["logits"]) < 1e-10);
      const Tensor loss = golden_loss(model, batch);
      CHECK(relative_difference(loss, golden["loss"]) < 1e-10);
      loss.backward();
      for (const Parameter& p : parameters(model)) {
        CAPTURE(p.name);
        CHECK(relative_difference(p.value.grad(), golden_tensor(golden, "gradient", p.name).contiguous()) <
              1e-10);
      }
    }
  }
}

}  // namespace

TEST_CASE("UI-MixFormer: logits, loss and every gradient are those of the PyTorch script") {
  check_golden(kCpu);
}
TEST_CASE("cuda: UI-MixFormer: logits, loss and every gradient are those of the PyTorch script") {
  if (has_card("UI-MixFormer's golden files on a card")) check_golden(kCard);
}

TEST_CASE("UI-MixFormer: ten training losses are those of the PyTorch script") {
  const Golden golden("ui_mixformer");
  check_golden_losses(golden, [&] { return golden_model(golden, golden_options()); });
}

TEST_CASE("UI-MixFormer: decoupled, masked and on an expanded batch it is one function, gradients included") {
  Rng rng(3);
  const RequestBatch batches[] = {random_batch({3, 1, 5, 2}, {4, 0, 9, 1}, rng), random_batch({1}, {0}, rng),
                                  random_batch({1000, 1}, {17, 3}, rng)};
  for (const DType dtype : {f64, f32}) {
    const double bound = dtype == f64 ? 1e-12 : 1e-5;
    UiMixFormer decoupled = random_model(true, dtype), masked = random_model(false, dtype);
    for (const RequestBatch& batch : batches) {
      const RequestBatch rows = batch.expanded();
      const auto run = [&](UiMixFormer& model, const RequestBatch& on) {
        for (const Parameter& p : parameters(model)) Tensor(p.value).zero_grad();
        golden_loss(model, on).backward();
        std::vector<Tensor> all;
        Pass pass;
        all.push_back(model.forward(on, pass).detach());
        for (const Parameter& p : parameters(model)) all.push_back(p.value.grad());
        return all;
      };
      const auto expected = run(masked, rows);
      for (const auto& got : {run(decoupled, batch), run(decoupled, rows), run(masked, batch)}) {
        REQUIRE(got.size() == expected.size());
        for (size_t i = 0; i < got.size(); ++i) {
          CAPTURE(i);
          CHECK(got[i].defined() == expected[i].defined());
          if (expected[i].defined()) CHECK(relative_difference(got[i], expected[i]) < bound);
        }
      }
    }
  }
}

TEST_CASE("UI-MixFormer: the user side has the same bits whatever the candidates are") {
  Rng rng(5);
  const RequestBatch batch = random_batch({3, 1, 2}, {4, 0, 9}, rng);
  RequestBatch other = random_batch({1, 8, 4}, {1, 1, 1}, rng);
  other.histories = batch.histories;
  for (size_t f = 0; f < batch.features.size(); ++f)
    if (golden_spec().features[f].scope == FeatureScope::request) other.features[f] = batch.features[f];
  UiMixFormer model = random_model(true, f32);
  const auto taps = [&](const RequestBatch& on) {
    std::vector<std::vector<float>> seen;
    Pass pass;
    pass.listener = [&](const std::string& name, const Tensor& x) {
      if (name.starts_with("user.")) seen.push_back(x.to_vector());
    };
    model.forward(on, pass);
    return seen;
  };
  CHECK(taps(batch).size() == 4);
  CHECK(taps(batch) == taps(other));

  // And a candidate's logits do not depend on its neighbours.
  Pass pass;
  const NoGrad off;
  const UiMixFormer::UserState user = model.user_side(batch, pass);
  CHECK(model.item_side(user, batch, pass).to_vector() == model.forward(batch, pass).to_vector());
}

TEST_CASE("cuda: both sides at once have the bits of one after the other, eager and recorded") {
  if (!has_card("UI-MixFormer's sides at once")) return;
  Rng rng(6);
  const RequestBatch batch = random_batch({30, 1, 2, 40}, {40, 0, 3, 90}, rng).to(kCard);
  UiMixFormer model = random_model(true, f32);
  to_device(model, kCard);
  const NoGrad off;
  for (const DType compute : {f32, bf16}) {
    CAPTURE(compute);
    Pass pass;
    pass.compute = compute;
    const std::vector<float> want = model.item_side(model.user_side(batch, pass), batch, pass).to_vector();
    for (int i = 0; i < 5; ++i) CHECK(model.forward(batch, pass).to_vector() == want);
    Tensor logits;
    cuda::Graph graph([&] { logits = model.forward(batch, pass); });
    for (int i = 0; i < 5; ++i) {
      logits.fill(0);
      graph.replay();
      CHECK(logits.to_vector() == want);
    }
  }
}

TEST_CASE("cuda: what a thread's branch made at first use outlives the thread") {
  if (!has_card("weights in bf16 of a thread that has ended")) return;
  Rng rng(7);
  const RequestBatch batch = random_batch({5, 9}, {4, 20}, rng).to(kCard);
  UiMixFormer model = random_model(true, f32);
  to_device(model, kCard);
  const auto score = [&] {
    const NoGrad off;
    Pass pass;
    pass.compute = bf16;
    return model.forward(batch, pass).to_vector();
  };
  std::vector<float> first;
  Tensor large;  // above what is kept in lists: given back to the driver on its stream
  std::thread([&] {
    first = score();
    const cuda::Stream stream;
    const cuda::StreamScope here(stream);
    large = full({1 << 20}, 3, f32, kCard);
  }).join();
  CHECK(score() == first);
  CHECK(sum(large).item() == 3 << 20);
}

TEST_CASE("UI-MixFormer: heads are shared out by width, and impossible shares are refused") {
  Rng rng(1);
  UiMixFormerOptions options = golden_options();
  const int64_t item = 7 + 3 + 2, all = item + 2 + 3 + 2 + 3;
  CHECK(UiMixFormer(golden_spec(), options, rng).item_heads() == item * 4 / all);
  options.item_heads = 3;
  CHECK(UiMixFormer(golden_spec(), options, rng).item_heads() == 3);
  options.item_heads = 4;
  CHECK(message_of([&] { UiMixFormer(golden_spec(), options, rng); }).find("got 4 of 4") !=
        std::string::npos);
}

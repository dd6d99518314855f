// Training on a card: what a run promises there, and that it is the run of the host.
#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"
#include "mixrec/data/prefetcher.h"
#include "mixrec/data/simulate/simulate.h"
#include "mixrec/models/list.h"
#include "mixrec/models/unified/mixformer.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/card.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/evaluate.h"

#include <cmath>
#include <csignal>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>

using namespace mixrec;
using namespace mixrec::test;

namespace {

constexpr const char* kModels[] = {"mixformer", "ui_mixformer", "mlp", "logistic_regression"};

Config card_config(const std::string& data, const std::string& device) {
  Config config = small_config(data);
  config.train.device = device;
  return config;
}

std::unique_ptr<RankingModel> built(const std::string& name, const Dataset& data) {
  Rng rng(3);
  const std::string options =
      name == "mixformer" ? R"({"heads": 4, "width": 8, "table_deviation": 0.05})" : "{}";
  return find_model(name, {}).build(data.spec(), options, rng);
}

FitResult run(const std::string& model, const Dataset& data, const Config& config,
              const std::string& out = "", bool resume = false) {
  return fit_model(*built(model, data), data,
                   {.config = config, .out = out, .resume = resume, .quiet = true});
}

std::vector<double> numbers_after(const std::string& text, const std::string& key) {
  std::vector<double> numbers;
  for (size_t at = 0; (at = text.find(key, at)) != std::string::npos;)
    numbers.push_back(std::stod(text.substr(at += key.size())));
  return numbers;
}

// Losses of the first `steps` steps.
std::vector<double> losses(const std::string& model, const Dataset& data, Config config,
                           const std::string& out, int64_t steps) {
  config.train.max_steps = steps;
  config.train.log_every = 1;
  config.schedule = {};
  run(model, data, config, out);
  return numbers_after(read_file(out + "/metrics.jsonl"), R"("loss":)");
}

double largest_gap(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double gap = 0;
  for (size_t i = 0; i < a.size(); ++i) gap = std::max(gap, std::abs(a[i] - b[i]) / std::abs(b[i]));
  return gap;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = a.contiguous().to(kCpu), y = b.contiguous().to(kCpu);
  return x.shape() == y.shape() && x.dtype() == y.dtype() &&
         std::memcmp(x.raw_data(), y.raw_data(), static_cast<size_t>(x.numel()) * size_of(x.dtype())) == 0;
}

void check_same_batch(const RequestBatch& a, const RequestBatch& b) {
  const auto same = [](const Tensor& x, const Tensor& y) {
    REQUIRE(x.defined() == y.defined());
    if (x.defined()) CHECK(same_bits(x, y));
  };
  const auto same_column = [&](const FeatureColumn& x, const FeatureColumn& y) {
    same(x.ids, y.ids), same(x.offsets, y.offsets), same(x.values, y.values);
  };
  same(a.offsets, b.offsets), same(a.labels, b.labels), same(a.weights, b.weights);
  for (size_t f = 0; f < a.features.size(); ++f) same_column(a.features[f], b.features[f]);
  for (size_t h = 0; h < a.histories.size(); ++h) {
    same(a.histories[h].offsets, b.histories[h].offsets);
    for (size_t c = 0; c < a.histories[h].columns.size(); ++c)
      same_column(a.histories[h].columns[c], b.histories[h].columns[c]);
  }
}

// A model with its optimiser, and one training step of both.
struct Training {
  MixFormer model;
  Optimizer optimizer;
  Pass pass;

  static MixFormer model_for(const Dataset& data) {
    Rng rng(3);
    MixFormer model(data.spec(), {.heads = 4, .width = 8, .table_deviation = .05}, rng);
    to_device(model, kCard);
    return model;
  }

  Training(const Dataset& data, DType compute)
      : model(model_for(data)),
        optimizer(parameters(model), {.dense = {.name = "adamw", .lr = .01, .weight_decay = .01},
                                      .tables = {.name = "adagrad", .lr = .05, .eps = 1e-10},
                                      .clip_norm = 1}) {
    pass.training = true;
    pass.compute = compute;
  }

  Tensor step(const RequestBatch& batch) {
    const std::vector<double> counts(static_cast<size_t>(batch.labels.dim(1)), 32);
    const Tensor loss =
        sum(bce_with_logits_per_task(model.forward(batch, pass), batch.labels, batch.weights, counts));
    loss.backward();
    optimizer.step({.loss = loss.detach()});
    optimizer.zero_grad();
    return loss.detach();
  }
};

}  // namespace

TEST_SUITE("cuda") {
  TEST_CASE("cuda: a prefetcher's batches are those of the host, however long they are kept") {
    if (!has_card("batches on a card")) return;
    const TemporaryFolder folder;
    const Dataset data = open_data(card_config(write_small_data(folder), "cuda").data);
    const LoaderOptions options{.batch_size = 32, .workers = 2};
    Loader loader(data, Split::train, options);
    Prefetcher batches(Loader(data, Split::train, options), kCard);
    batches.start(0, 2);
    CHECK(batches.next().has_value());  // and one more is on its way when the place changes
    for (const int64_t from : {0, 4}) {
      loader.start(1, from), batches.start(1, from);
      std::vector<PlacedBatch> kept;
      while (auto batch = batches.next()) {
        CHECK(batches.position().batch == from + static_cast<int64_t>(kept.size()) + 1);
        kept.push_back(std::move(*batch));
      }
      CHECK(from + static_cast<int64_t>(kept.size()) == batches.batches());
      for (const PlacedBatch& batch : kept) {
        const auto expected = loader.next();
        REQUIRE(expected.has_value());
        CHECK(batch.placed.labels.device() == kCard);
        CHECK(batch.host.row == expected->row);
        check_same_batch(batch.host, *expected);
        check_same_batch(batch.placed, *expected);
      }
    }
  }

  TEST_CASE("cuda: the first training losses are those of the host") {
    if (!has_card("training losses on a card")) return;
    const TemporaryFolder folder;
    const std::string path = write_small_data(folder);
    const Dataset data = open_data(card_config(path, "cuda").data);
    for (const char* model : kModels) {
      CAPTURE(model);
      const auto out = [&](const char* what) { return folder / (std::string(model) + what); };
      const auto host = losses(model, data, card_config(path, "cpu"), out("host"), 3);
      CHECK(host.size() == 3);
      CHECK(largest_gap(losses(model, data, card_config(path, "cuda"), out("card"), 3), host) < 1e-4);
      Config low = card_config(path, "cuda");
      low.train.precision = "bf16";
      CHECK(largest_gap(losses(model, data, low, out("bf16"), 3), host) < 2e-2);
    }
  }

  TEST_CASE("cuda: two runs end in the same bits, also when one of them was interrupted") {
    if (!has_card("two equal runs on a card")) return;
    const TemporaryFolder folder;
    for (const char* precision : {"f32", "bf16"}) {
      CAPTURE(precision);
      Config config = card_config(write_small_data(folder), "cuda");
      config.train.precision = precision;
      config.train.accumulate = 2;
      const Dataset data = open_data(config.data);
      const auto out = [&](const char* name) { return folder / (name + std::string(precision)); };
      CHECK(run("mixformer", data, config, out("once")).finished);
      CHECK(run("mixformer", data, config, out("twice")).finished);
      check_same_runs(out("once"), out("twice"));

      SmallModel whole(data), stopped(data), resumed(data);
      fit(whole, data, {.config = config, .out = out("whole"), .quiet = true});
      stopped.before = [](int64_t pass) {
        if (pass == 9) std::raise(SIGTERM);
      };
      CHECK(!fit(stopped, data,
                 {.config = config, .out = out("stopped"), .quiet = true, .stop_on_signals = true})
                 .finished);
      CHECK(fit(resumed, data, {.config = config, .out = out("stopped"), .resume = true, .quiet = true})
                .finished);
      check_same_runs(out("whole"), out("stopped"));
    }
  }

  TEST_CASE("cuda: a checkpoint that was written on one device is resumed on the other") {
    if (!has_card("checkpoints between the host and a card")) return;
    const TemporaryFolder folder;
    const std::string path = write_small_data(folder);
    const Dataset data = open_data(card_config(path, "cpu").data);
    SmallModel whole(data);
    const FitResult expected = fit(whole, data, {.config = card_config(path, "cpu"), .quiet = true});
    const auto want = all_weights(whole);
    for (const auto& [first, second] : {std::pair{"cpu", "cuda"}, std::pair{"cuda", "cpu"}}) {
      CAPTURE(first);
      const std::string out = folder / first;
      SmallModel begun(data), resumed(data);
      begun.before = [](int64_t pass) {
        if (pass == 9) std::raise(SIGTERM);
      };
      CHECK(!fit(begun, data,
                 {.config = card_config(path, first), .out = out, .quiet = true, .stop_on_signals = true})
                 .finished);
      const FitResult result = fit(
          resumed, data, {.config = card_config(path, second), .out = out, .resume = true, .quiet = true});
      CHECK(result.finished);
      CHECK(result.best_step == expected.best_step);
      CHECK(result.test[0].auc == doctest::Approx(expected.test[0].auc).epsilon(1e-2));
      double gap = 0, size = 0;
      const auto got = all_weights(resumed);
      for (size_t i = 0; i < want.size(); ++i)
        gap += std::pow(got[i] - want[i], 2), size += std::pow(want[i], 2);
      CHECK(std::sqrt(gap / size) < 1e-2);
    }
  }

  TEST_CASE("cuda: one set of weights is evaluated alike on both devices") {
    if (!has_card("evaluation on a card")) return;
    const TemporaryFolder folder;
    simulate({.out = folder / "log", .rows = 20'000});
    const Dataset data = Dataset::open(find_schema(folder / "log"), folder / "log");
    for (const char* name : kModels) {
      CAPTURE(name);
      const auto model = built(name, data);
      Config config;
      config.train.max_steps = 20;
      config.train.device = "cpu";
      fit_model(*model, data, {.config = config, .quiet = true});
      const auto host = evaluate(*model, data, Split::test);
      to_device(model->parameters(), kCard);
      const auto card = evaluate(*model, data, Split::test);
      CHECK(std::abs(card[0].auc - host[0].auc) < 1e-5);
      CHECK(std::abs(card[0].log_loss - host[0].log_loss) < 1e-5);
      const auto low = evaluate(*model, data, Split::test, {.compute = bf16});
      CHECK(std::abs(low[0].auc - host[0].auc) < 2e-3);  // 5e-4 is for a model that was trained to its end
    }
  }

  TEST_CASE("cuda: a whole training step is recorded into a graph, and replays are the bits of eager steps") {
    if (!has_card("a training step as a graph")) return;
    const TemporaryFolder folder;
    const Dataset data = open_data(card_config(write_small_data(folder), "cuda").data);
    Loader loader(data, Split::train, {.batch_size = 32, .workers = 0});
    const RequestBatch batch = loader.next()->to(kCard);
    for (const DType compute : {f32, bf16}) {
      CAPTURE(compute);
      Training eager(data, compute), recorded(data, compute);
      // The first step takes the memory that stays.
      CHECK(same_bits(eager.step(batch), recorded.step(batch)));
      Tensor loss;
      cuda::Graph graph([&] { loss = recorded.step(batch); });
      for (int replay = 0; replay < 3; ++replay) {
        recorded.optimizer.prepare({});
        graph.replay();
        CHECK(same_bits(loss, eager.step(batch)));
      }
      CHECK(eager.optimizer.report().applied);
      CHECK(recorded.optimizer.report().applied);
      CHECK(recorded.optimizer.steps() == eager.optimizer.steps());
      const auto a = parameters(recorded.model), b = parameters(eager.model);
      for (size_t i = 0; i < a.size(); ++i) {
        CAPTURE(a[i].name);
        CHECK(same_bits(a[i].value, b[i].value));
      }
    }
  }

  TEST_CASE("cuda: a loss that is not finite ends the run at the next logging point and names the step") {
    if (!has_card("NaN on a card")) return;
    const TemporaryFolder folder;
    Config config = card_config(write_small_data(folder), "cuda");
    config.train.log_every = 4;
    config.train.eval_every = 100;
    config.train.checkpoint_every = 0;
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    model.before = [&](int64_t pass) {
      if (pass != 6) return;
      for (const Parameter& parameter : parameters(model))
        if (parameter.name == "mlp.1.weight") parameter.value.detach().narrow(0, 2, 1).fill(NAN);
    };
    const std::string message =
        message_of([&] { fit(model, data, {.config = config, .out = folder / "run", .quiet = true}); });
    CAPTURE(message);
    CHECK(message.find("step 6: ") != std::string::npos);
    CHECK(message.find("is not finite; the first tensor that is not is the weight mlp.1.weight in row 2") !=
          std::string::npos);
    CHECK_FALSE(std::filesystem::exists(folder / "run"));
  }

  TEST_CASE("cuda: out of memory says how much was asked for and leaves the last checkpoint") {
    if (!has_card("out of device memory")) return;
    const TemporaryFolder folder;
    const Config config = card_config(write_small_data(folder), "cuda");
    const Dataset data = open_data(config.data);
    const std::string out = folder / "run";
    SmallModel model(data), resumed(data), whole(data);
    model.before = [](int64_t pass) {
      if (pass == 8) empty({int64_t{1} << 42}, f32, kCard);
    };
    const std::string message =
        message_of([&] { fit(model, data, {.config = config, .out = out, .quiet = true}); });
    CAPTURE(message);
    CHECK(message.find("out of device memory: asked for 16384") != std::string::npos);
    CHECK(fit(resumed, data, {.config = config, .out = out, .resume = true, .quiet = true}).finished);
    fit(whole, data, {.config = config, .quiet = true});
    CHECK(all_weights(resumed) == all_weights(whole));
  }

  TEST_CASE("cuda: memory does not grow from step to step") {
    if (!has_card("memory of a long run on a card")) return;
    const TemporaryFolder folder;
    const Dataset data = open_data(card_config(write_small_data(folder), "cuda").data);
    Training training(data, bf16);
    Prefetcher batches(Loader(data, Split::train, {.batch_size = 32}), kCard);
    size_t in_use = 0;
    for (int64_t epoch = 0; epoch < 20; ++epoch) {
      batches.start(epoch);
      while (const auto batch = batches.next()) training.step(batch->placed);
      cuda::synchronize();
      if (epoch == 5) in_use = cuda::memory().in_use;
      if (epoch > 5) CHECK(cuda::memory().in_use <= in_use);
    }
  }
}

// What a program that calls the library may rely on: its process stays its own, and no setting is lost silently.
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/models/list.h"
#include "mixrec/nn/embedding.h"
#include "mixrec/nn/linear.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/cli.h"

#include <cmath>
#include <csignal>
#include <cstdio>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void ignore_signal(int) {}

struct OwnOptions {
  int64_t hidden = 8;
  void visit(OptionVisitor& v) { v.number("hidden", hidden, between(1, 64), "of the MLP"); }
};
struct OwnModel : Module {
  MlpModel mlp;
  OwnModel(const FeatureSet& spec, const OwnOptions& options, Rng& rng)
      : mlp(spec, {.hidden = options.hidden}, rng) {}
  Tensor forward(const RequestBatch& batch, Pass& pass) { return mlp.forward(batch, pass); }
  void visit(Visitor& v) { mlp.visit(v); }
};

int call_cli(std::vector<std::string> arguments, const std::vector<ModelEntry>& own) {
  std::vector<const char*> argv{"mixrec"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::fflush(stdout);
  const int out = ::dup(STDOUT_FILENO), nowhere = ::open("/dev/null", O_WRONLY);
  ::dup2(nowhere, STDOUT_FILENO);  // results are read from the run folder
  const int code = cli(static_cast<int>(argv.size()), argv.data(), own);
  std::fflush(stdout);
  ::dup2(out, STDOUT_FILENO);
  ::close(out), ::close(nowhere);
  return code;
}

// Linear layers under an optimiser: what happens to them afterwards is the test's.
struct Trained {
  Rng rng{1};
  Linear first{3, 3, rng}, second{3, 2, rng};
  Embedding table{5, 3, rng};

  void visit(Visitor& v) { v.module("first", first), v.module("second", second), v.module("table", table); }
  void backward() {
    const Tensor ids = Tensor::from<int64_t>({1, 2}, {2});
    second.forward(first.forward(table.forward(ids))).backward(ones({2, 2}, first.weight.dtype()));
  }
};

}  // namespace

TEST_SUITE("api") {
  TEST_CASE("fit() leaves handlers of signals and the number of threads as they are") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.train.threads = 1;
    const Dataset data = open_data(config.data);
    const int threads = num_threads();
    set_num_threads(3);
    struct sigaction own {
    }, before[2], seen[2], after[2];
    own.sa_handler = ignore_signal;
    const int signals[2] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; ++i) sigaction(signals[i], &own, &before[i]);
    int seen_threads = 0;
    SmallModel model(data);
    model.before = [&](int64_t pass) {
      if (pass != 4) return;
      seen_threads = num_threads();
      for (int i = 0; i < 2; ++i) sigaction(signals[i], nullptr, &seen[i]);
      std::raise(SIGTERM), std::raise(SIGINT);  // ours: the run goes on
    };
    const FitResult result = fit(model, data, {.config = config, .quiet = true});
    for (int i = 0; i < 2; ++i) sigaction(signals[i], &before[i], &after[i]);
    CHECK(result.finished);
    CHECK(seen_threads == 3);
    CHECK(num_threads() == 3);
    for (int i = 0; i < 2; ++i) {
      CHECK((seen[i].sa_handler == ignore_signal));
      CHECK((after[i].sa_handler == ignore_signal));
    }
    set_num_threads(threads);
  }

  TEST_CASE("a run that stopped on a signal does not stop the next one") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    SmallModel stopped(data), next(data), caught(data);
    stopped.before = [](int64_t pass) {
      if (pass == 4) std::raise(SIGTERM);
    };
    CHECK(fit(stopped, data, {.config = config, .quiet = true, .stop_on_signals = true}).signal == SIGTERM);
    CHECK(fit(next, data, {.config = config, .quiet = true}).finished);
    CHECK(fit(caught, data, {.config = config, .quiet = true, .stop_on_signals = true}).finished);
  }

  TEST_CASE("results name the model that was trained, whatever the configuration says") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.model.name = "mixformer";
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    CHECK(contains(fit(model, data, {.config = config, .quiet = true}).json, R"({"model":"SmallModel",)"));
    Rng rng(1);
    const auto built = find_model("logistic_regression").build(data.spec(), "{}", rng);
    CHECK(built->name() == "logistic_regression");
    CHECK(contains(fit_model(*built, data, {.config = config, .quiet = true}).json,
                   R"({"model":"logistic_regression",)"));
  }

  TEST_CASE("cli(): one own model is the default, and the caller's number of threads comes back") {
    const TemporaryFolder folder;
    const std::string data = write_small_data(folder);
    const int threads = num_threads();
    set_num_threads(2);
    const std::vector<ModelEntry> one{model_entry<OwnModel, OwnOptions>("own", "a model of this test")};
    const auto train = [&](const std::string& out, std::vector<std::string> more,
                           const std::vector<ModelEntry>& own) {
      std::vector<std::string> arguments{"train",      "--data",  data,        "--out",
                                         folder / out, "--quiet", "--threads", "1",
                                         "--device",   "cpu",     "--set",     "train.max_steps=3"};
      arguments.insert(arguments.end(), more.begin(), more.end());
      REQUIRE(call_cli(arguments, own) == 0);
      return read_file(folder / (out + "/result.json"));
    };
    CHECK(contains(train("a", {}, one), R"({"model":"own",)"));
    CHECK(contains(read_file(folder / "a/config.json"), R"("name": "own")"));
    CHECK(contains(train("b", {"--set", "model.hidden=9"}, one), R"({"model":"own",)"));
    CHECK(contains(train("c", {"--set", "model.name=mlp"}, one), R"({"model":"mlp",)"));
    std::vector<ModelEntry> two = one;
    two.push_back(model_entry<OwnModel, OwnOptions>("other", "the same again"));
    CHECK(contains(train("d", {"--set", "model.heads=4", "--set", "model.width=8"}, two),
                   R"({"model":"mixformer",)"));
    CHECK(num_threads() == 2);
    set_num_threads(threads);
  }

  TEST_CASE("an optimiser refuses parameters that were changed behind it") {
    const auto changed = [](const std::function<void(Trained&)>& change) {
      Trained model;
      Optimizer optimizer(parameters(model), {});
      model.backward();
      CHECK(optimizer.step().applied);
      optimizer.zero_grad();
      change(model);
      return error_of([&] { optimizer.step(); });
    };
    CHECK(changed([](Trained& m) { m.backward(); }) == "no error");
    CHECK(contains(changed([](Trained& m) { freeze(parameters(m), "first.*"); }),
                   "the parameter first.weight was frozen after the optimiser was made"));
    CHECK(contains(changed([](Trained& m) { freeze(parameters(m), "table.table"); }),
                   "table.table was frozen"));
    CHECK(contains(changed([](Trained& m) { to_dtype(m, f64); }),
                   "the parameter first.weight was converted to f64 after the optimiser was made"));
    CHECK(contains(changed([](Trained& m) { to_dtype(parameters(m.table), f64); }),
                   "table.table was converted to f64"));
    CHECK(contains(changed([](Trained& m) { Optimizer(parameters(m), {}); }),
                   "first.weight was moved after the optimiser was made"));
    CHECK(changed([](Trained& m) { to_dtype(m, f32); }) == "no error");

    Trained model;
    freeze(parameters(model), "second.bias");
    Optimizer optimizer(parameters(model), {});
    freeze(parameters(model), "second.bias", false);
    CHECK(contains(error_of([&] { optimizer.step(); }), "second.bias was set to require a gradient after"));
  }

  TEST_CASE("a model that was converted is trained by an optimiser that is made afterwards") {
    Trained model;
    const std::vector<Parameter> before = parameters(model);
    { Optimizer in_f32(before, {}); }
    to_dtype(model, f64);
    CHECK(before[0].value.dtype() == f64);  // handles follow
    Optimizer optimizer(before, {.dense = {.name = "sgd", .lr = 1}});
    const auto weights = model.first.weight.to_vector<double>();
    model.backward();
    CHECK(model.first.weight.grad().dtype() == f64);
    optimizer.step();
    CHECK(model.first.weight.to_vector<double>() != weights);
  }

  TEST_CASE("an index that is not there is an error") {
    Rng rng(1);
    FeatureSet spec;
    spec.features.push_back({.name = "u", .rows = 3, .width = 2});
    const FeatureEmbedding without(spec, rng);
    CHECK(contains(error_of([&] { (void)without.event_width(0); }),
                   "there is no history 0: the data set has 0"));
    spec.histories.push_back(
        {.name = "h", .features = {{.name = "e", .scope = FeatureScope::event, .rows = 3, .width = 4}}});
    const FeatureEmbedding with(spec, rng);
    CHECK(with.event_width(0) == 4);
    CHECK(
        contains(error_of([&] { (void)with.event_width(1); }), "there is no history 1: the data set has 1"));
    RequestBatch batch;
    batch.requests = batch.candidates = 1;
    CHECK(contains(error_of([&] { with.events(batch, 0); }), "there is no history 0: the batch has 0"));
    CHECK(contains(error_of([&] { with.events(batch, 3); }), "there is no history 3"));
    CHECK(contains(error_of([&] { with.requests(batch); }),
                   "the batch has 0 columns, the model reads column 0"));
    CHECK(contains(error_of([&] { (void)batch.history(2); }), "there is no history 2: the batch has 0"));
    CHECK(contains(error_of([&] { (void)batch.feature(0); }), "there is no feature 0: the batch has 0"));
  }

  TEST_CASE("initial weights have the deviation that their layer says") {
    Rng rng(3);
    const auto moments = [](const Tensor& x) {
      double mean = 0, square = 0;
      const auto values = x.to_vector<double>();
      for (const double value : values) mean += value, square += value * value;
      mean /= static_cast<double>(values.size());
      return std::pair(mean, std::sqrt(square / static_cast<double>(values.size()) - mean * mean));
    };
    // Of 40,000 draws the deviation is known to 0.35 % and the mean to half a percent of it.
    const auto check = [&](const Tensor& x, double deviation) {
      REQUIRE(x.numel() >= 40000);
      const auto [mean, found] = moments(x);
      CHECK(found == doctest::Approx(deviation).epsilon(0.015));
      CHECK(std::abs(mean) < 0.02 * deviation);
    };
    check(Linear(100, 400, rng).weight, 1 / std::sqrt(100.0));
    check(Linear(400, 100, rng, {.gain = 0.5}).weight, 0.5 / std::sqrt(400.0));
    check(PerHeadLinear(10, 64, 64, rng).weight, 1 / std::sqrt(64.0));
    check(Embedding(5000, 8, rng).table, 0.005);
    check(EmbeddingBag(5000, 8, rng, 0.2).table, 0.2);
    FeatureSet spec;
    spec.features.push_back({.name = "u", .rows = 5001, .width = 8});
    spec.features.push_back({.name = "i", .scope = FeatureScope::candidate, .rows = 5001, .width = 8});
    spec.tasks.push_back({.name = "click"});
    const auto table_of = [&](const std::string& model, const std::string& options) {
      for (const Parameter& p : find_model(model).build(spec, options, rng)->parameters())
        if (p.kind == ParameterKind::table) return p.value.narrow(0, 1, 5000);
      return Tensor();
    };
    check(table_of("mlp", "{}"), 0.005);
    check(table_of("mlp", R"({"table_deviation": 0.1})"), 0.1);
    check(table_of("mixformer", "{}"), 0.005);
    check(table_of("ui_mixformer", R"({"table_deviation": 0.02})"), 0.02);
  }
}

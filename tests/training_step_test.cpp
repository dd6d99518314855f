// One training step by hand: models of a few numbers, whose gradients are known.
#include "mixrec/data/loader.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/evaluate.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

// Logits are one bias per task.
struct Biases : Module {
  Tensor bias = zeros({2}).requires_grad();
  std::vector<std::vector<double>> trained_at, judged_at;  // the bias at each forward pass

  Tensor forward(const RequestBatch& batch, Pass& pass) {
    (pass.training ? trained_at : judged_at).push_back(bias.to_vector<double>());
    return broadcast_to(bias, {batch.candidates, 2}) + 0.0;
  }
  void visit(Visitor& v) { v.parameter("bias", bias); }
};

Config plain_config(const std::string& data) {
  Config config = small_config(data);
  config.data.batch_size = 1000;  // a step is the whole training part: 360 rows
  config.train = {};
  config.train.device = "cpu";
  config.train.epochs = 100;
  config.train.max_steps = 1;
  config.optimizer = {.name = "sgd", .lr = .1};
  config.table_optimizer = {.name = "sgd", .lr = .1};
  config.schedule = {};
  config.schedule.name = "constant";
  return config;
}

struct Setup {
  TemporaryFolder folder;
  Config config = plain_config(write_small_data(folder));
  Dataset data = open_data(config.data);

  Biases train() const {
    Biases model;
    fit(model, data, {.config = config, .quiet = true});
    return model;
  }
  // The share of positives of a task in the training part.
  std::vector<double> rates() const {
    std::vector<double> sums(2);
    double rows = 0;
    Loader loader(data, Split::train, {.batch_size = 100});
    while (const auto batch = loader.next()) {
      const auto labels = batch->labels.to_vector<double>();
      for (size_t i = 0; i < labels.size(); ++i) sums[i % 2] += labels[i];
      rows += static_cast<double>(batch->candidates);
    }
    return {sums[0] / rows, sums[1] / rows};
  }
};

bool near(double a, double b) { return std::abs(a - b) < 1e-6; }

}  // namespace

TEST_CASE("a training step follows the gradient of the weighted tasks") {
  const Setup setup;
  const auto rates = setup.rates();
  const auto bias = setup.train().bias.to_vector<double>();
  CHECK(near(bias[0], -.1 * 1.0 * (.5 - rates[0])));  // σ(0) - label, averaged
  CHECK(near(bias[1], -.1 * 0.5 * (.5 - rates[1])));  // "loss_weight": 0.5
}

TEST_CASE("a training step is scaled by the schedule's factor of that step") {
  Setup setup;
  const auto whole = setup.train().bias.to_vector<double>();
  setup.config.schedule.warmup_steps = 4;
  const auto first = setup.train().bias.to_vector<double>();
  for (const size_t task : {0, 1}) CHECK(near(first[task], whole[task] / 4));
}

TEST_CASE("only training passes are said to be training") {
  Setup setup;
  setup.config.train.max_steps = 5;
  setup.config.train.eval_every = 2;
  const Biases model = setup.train();
  CHECK(model.trained_at.size() == 5);
  CHECK(model.judged_at.size() >= 3 + 1);  // after steps 2, 4 and 5, and the test rows
}

TEST_CASE("validation and the end of a run see the averaged weights") {
  Setup setup;
  setup.config.optimizer.lr = 2;
  std::vector<double> average(2);
  double norm = 0;
  for (int64_t steps = 1; steps <= 4; ++steps) {  // the weights after each step, without averages
    setup.config.train.max_steps = steps;
    setup.config.train.ema = 0;
    setup.config.train.eval_every = 100;
    const auto bias = setup.train().bias.to_vector<double>();
    norm = .5 * norm + 1;
    for (const size_t task : {0, 1}) average[task] += (bias[task] - average[task]) / norm;
  }
  setup.config.train.ema = .5;
  const Biases model = setup.train();
  for (const auto& seen : model.judged_at)
    for (const size_t task : {0, 1}) CHECK(near(seen[task], average[task]));
  for (const size_t task : {0, 1}) CHECK(near(model.bias.to_vector<double>()[task], average[task]));

  write_file(setup.config.data.path + "/schema.json", small_schema_text(R"("test_days": 1)"));
  setup.config.train.ema = 0;
  setup.data = open_data(setup.config.data);
  setup.config.train.max_steps = 1;
  const auto first = setup.train().bias.to_vector<double>();
  setup.config.train.max_steps = 2;
  const auto second = setup.train().bias.to_vector<double>();
  setup.config.train.ema = .5;
  const auto end = setup.train().bias.to_vector<double>();  // nothing was chosen
  for (const size_t task : {0, 1}) CHECK(near(end[task], (.5 * first[task] + second[task]) / 1.5));
}

TEST_CASE("a refit begins with the first weights, and lasts as long as the choice") {
  Setup setup;
  setup.config.train.refit = true;
  setup.config.train.max_steps = 3;
  setup.config.train.eval_every = 1;
  const Biases model = setup.train();
  const std::vector<double> start{0, 0};
  REQUIRE(model.trained_at.size() > 3);
  for (size_t i = 0; i < model.trained_at.size(); ++i)
    CHECK((model.trained_at[i] == start) == (i == 0 || i == 3));
}

TEST_CASE("of steps that score the same the first is kept") {
  Setup setup;
  setup.config.optimizer.lr = 0;
  setup.config.train.max_steps = 6;
  setup.config.train.eval_every = 2;
  Biases model;
  CHECK(fit(model, setup.data, {.config = setup.config, .quiet = true}).best_step == 2);
}

TEST_CASE("evaluation does not depend on the size of its batches") {
  const Setup setup;
  SmallModel model(setup.data, 0);
  const auto whole = evaluate(model, setup.data, Split::test, {.batch_size = 4096});
  CHECK(whole[0].request.used > 3);
  for (const int64_t batch_size : {1, 7, 30}) {
    CAPTURE(batch_size);
    const auto parts = evaluate(model, setup.data, Split::test, {.batch_size = batch_size});
    for (const size_t task : {0, 1}) {
      CHECK(parts[task].auc == whole[task].auc);
      CHECK(parts[task].user.mean == whole[task].user.mean);
      CHECK(parts[task].request.mean == whole[task].request.mean);
      CHECK(parts[task].request.used == whole[task].request.used);
      CHECK(parts[task].log_loss == doctest::Approx(whole[task].log_loss).epsilon(1e-12));
    }
  }
}

TEST_CASE("validation while a run chooses does not know values that only the validation days have") {
  Setup setup;
  std::string log = small_log_text();
  for (int row = 0; row < 8;
       ++row)  // on day 6, the validation day: an item that is new, seen often enough to count
    log += std::to_string(row) + ",999," + std::to_string(6 * 86'400 + 70'000 + row) + "," +
           std::to_string(row % 2) + ",0\n";
  write_file(setup.config.data.path + "/log.csv", log);
  setup.data = open_data(setup.config.data);
  struct Watching : Biases {
    int64_t unknown = 0, largest = 0;  // in evaluations
    Tensor forward(const RequestBatch& batch, Pass& pass) {
      if (!pass.training) {
        for (const int64_t id : batch.features[1].ids.to_vector<int64_t>())
          unknown += id == kUnknownRow, largest = std::max(largest, id);
      }
      return Biases::forward(batch, pass);
    }
  };
  REQUIRE(setup.data.spec().features[1].name == "item");
  const int64_t rows = setup.data.spec().features[1].rows;
  setup.config.train.test = false;
  Watching model;
  fit(model, setup.data, {.config = setup.config, .quiet = true});
  CHECK(model.unknown == 8);
  CHECK(model.largest < rows - 1);
}

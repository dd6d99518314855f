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

// Logits are one bias per task; an auxiliary loss is the sum of `extra`.
struct Biases : Module {
  Tensor bias = zeros({2}).requires_grad(), extra = ones({3}).requires_grad();
  std::vector<std::vector<double>> trained_at, judged_at;  // the bias at each forward pass

  Tensor forward(const RequestBatch& batch, Pass& pass) {
    (pass.training ? trained_at : judged_at).push_back(bias.to_vector<double>());
    if (pass.training) pass.add_loss(sum(extra));
    return broadcast_to(bias, {batch.candidates, 2}) + 0.0;
  }
  void visit(Visitor& v) { v.parameter("bias", bias), v.parameter("extra", extra); }
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

TEST_CASE("a training step adds auxiliary losses, averaged over the batches of a step") {
  Setup setup;
  for (const int64_t accumulate : {1, 3}) {
    setup.config.data.batch_size = 60;
    setup.config.train.accumulate = accumulate;
    for (const double value : setup.train().extra.to_vector<double>()) CHECK(near(value, 1 - .1));
  }
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

TEST_CASE("selection takes the metric that it names, and a smaller log loss is better") {
  std::vector<BinaryMetrics> metrics(2);
  metrics[0].auc = .6, metrics[1].auc = .8;
  metrics[0].user.mean = .7, metrics[1].user.mean = .4;
  metrics[0].log_loss = .3, metrics[1].log_loss = .5;
  CHECK(near(selection_score(metrics, "auc"), .7));
  CHECK(near(selection_score(metrics, "uauc"), .55));
  CHECK(near(selection_score(metrics, "log_loss"), -.4));
}

TEST_CASE("thinned negatives are corrected by the logarithm of the share that was kept") {
  TaskSpec thinned{.name = "a"};
  thinned.kept_negatives = .1;
  const auto shifts = logit_shifts({{.name = "b"}, thinned});
  CHECK(shifts[0] == 0);
  // p' of rows of which a tenth of the negatives was kept, to p of all: p' / (p' + (1 - p') / w).
  for (const double kept : {.2, .5, .9}) {
    const double logit = std::log(kept / (1 - kept)), all = kept / (kept + (1 - kept) / .1);
    CHECK(near(1 / (1 + std::exp(-(logit + shifts[1]))), all));
  }
}

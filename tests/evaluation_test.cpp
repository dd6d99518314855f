// An evaluation looks at every row of a part, as it is: what only the optimiser does stays with the optimiser.
#include "mixrec/core/error.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/evaluate.h"
#include "mixrec/train/report.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>
#include <limits>

using namespace mixrec;
using namespace mixrec::test;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Days 1 to 3 of 100 rows each; every fifth row is positive.
std::string rare_clicks(const std::string& task, const std::string& item = R"("item")") {
  return R"({"log": {"files": "log.csv", "user": "user", "item": "item", "time": {"column": "day", "unit": "day"}},
    "tasks": {"click": )" +
         task + R"(}, "features": {"item": [)" + item +
         R"(]}, "split": {"by": "date", "test_days": 1, "validation_days": 1}})";
}

std::string write_rare_clicks(const TemporaryFolder& folder, const std::string& schema) {
  std::string text = "user,item,day,click,shown\n";
  for (int k = 0; k < 300; ++k) {
    const bool click = k % 20 == 0 || k % 20 == 2 || k % 20 == 4 || k % 20 == 7;
    text += concat_message("u", k % 5, ",", k % 2 ? "b" : "a", ",", 1 + k / 100, ",", click ? 1 : 0, ",",
                           k % 3 ? 1 : 0, "\n");
  }
  const std::string path = folder / "log";
  std::filesystem::create_directories(path);
  write_file(path + "/log.csv", text);
  write_file(path + "/schema.json", schema);
  return path;
}

// The number behind "NAME": in a line of JSON.
double number_of(const std::string& json, const std::string& name) {
  const size_t at = json.find("\"" + name + "\":");
  CAPTURE(json);
  REQUIRE(at != std::string::npos);
  return std::stod(json.substr(at + name.size() + 3));
}

// The TensorBoard events of a run.
std::string event_text(const std::string& run) {
  std::string text;
  for (const auto& entry : std::filesystem::directory_iterator(run))
    if (entry.path().filename().string().starts_with("events")) text += read_file(entry.path());
  return text;
}

// Every row of a part, with what the model says of it, corrected or not.
struct Rows {
  std::vector<float> logits, labels, weights;
};
Rows rows_of(SmallModel& model, const Dataset& data, Split split) {
  Rows rows;
  ModelHolder<SmallModel&> holder(model);
  for_each_prediction(holder, data, split, {}, [&](const RequestBatch& batch, std::span<const float> logits) {
    rows.logits.insert(rows.logits.end(), logits.begin(), logits.end());
    for (const float label : batch.labels.to_vector()) rows.labels.push_back(label);
    for (const float weight : batch.weights.to_vector()) rows.weights.push_back(weight);
  });
  return rows;
}

}  // namespace

TEST_SUITE("evaluation") {
  TEST_CASE("eval gives every row of the training part with the documented correction") {
    const TemporaryFolder folder;
    struct Case {
      std::string schema;
      int64_t rows, refit_rows;
    };
    const Case cases[] = {{rare_clicks(R"({"label": "click", "kept_negatives": 0.1})"), 100, 200},
                          {rare_clicks(R"({"label": "click", "where": "shown == 1", "kept_negatives": 0.3})",
                                       R"({"column": "item", "unknown_rate": 0.5})"),
                           66, 133}};
    for (const Case& one : cases) {
      const std::string data = write_rare_clicks(folder, one.schema), run = folder / "run";
      std::filesystem::remove_all(run);
      REQUIRE(run_mixrec({"train", "--data", data, "--out", run, "--quiet", "--set", "train.epochs=30",
                          "--set", "table_optimizer.lr=0.1", "--set", "model.name=logistic_regression"},
                         folder)
                  .code == 0);
      const std::string train = run_mixrec({"eval", run, "--split", "train"}, folder).out;
      const std::string validation = run_mixrec({"eval", run, "--split", "validation"}, folder).out;
      const std::string refit = run_mixrec({"eval", run, "--split", "refit"}, folder).out;
      CHECK(number_of(train, "rows") == static_cast<double>(one.rows));
      CHECK(number_of(refit, "rows") == static_cast<double>(one.refit_rows));
      // The days repeat each other, so that their numbers do.
      CHECK(number_of(train, "log_loss") == doctest::Approx(number_of(validation, "log_loss")).epsilon(0.02));
      CHECK(number_of(train, "calibration") ==
            doctest::Approx(number_of(validation, "calibration")).epsilon(0.1));
    }
  }

  TEST_CASE("predictions are corrected by p / (p + (1 - p) / w)") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.data.overrides.text = R"({"tasks": {"liked": {"label": "liked == 1", "kept_negatives": 0.2},
                                               "shared": {"label": "shared == 1", "kept_negatives": 0.05}}})";
    const Dataset thinned = open_data(config.data);
    config.data.overrides.text = "{}";
    const Dataset whole = open_data(config.data);
    SmallModel model(thinned);
    const Rows corrected = rows_of(model, thinned, Split::train), plain = rows_of(model, whole, Split::train);
    REQUIRE(corrected.logits.size() == 2 * 360);
    CHECK(corrected.labels == plain.labels);
    CHECK(corrected.weights == plain.weights);
    for (size_t i = 0; i < plain.logits.size(); ++i) {
      const double w = i % 2 ? 0.05 : 0.2, p = 1 / (1 + std::exp(-double{plain.logits[i]}));
      CHECK(probability(corrected.logits[i]) == doctest::Approx(p / (p + (1 - p) / w)).epsilon(1e-6));
    }
    const auto shifts = logit_shifts(thinned.spec().tasks);
    CHECK(shifts[0] == doctest::Approx(std::log(0.2)));
  }

  TEST_CASE("dropout is off where a model is evaluated") {
    const TemporaryFolder folder;
    const Dataset data = open_data(small_config(write_small_data(folder)).data);
    SmallModel dropping(data, 0.7), whole(data, 0.0);
    for (const Split split : {Split::train, Split::test})
      CHECK(rows_of(dropping, data, split).logits == rows_of(whole, data, split).logits);
  }

  TEST_CASE("train.select_by takes the metric that it names, over the tasks that have it") {
    BinaryMetrics a, b;
    a.auc = 0.7, a.user.mean = 0.6, a.log_loss = 0.4;
    b.auc = 0.9, b.user.mean = 0.5, b.log_loss = 0.2;
    CHECK(selection_score({a, b}, "auc") == doctest::Approx(0.8));
    CHECK(selection_score({a, b}, "uauc") == doctest::Approx(0.55));
    CHECK(selection_score({a, b}, "log_loss") == doctest::Approx(-0.3));
    b.auc = b.user.mean = kNaN;
    CHECK(selection_score({b, a}, "auc") == doctest::Approx(0.7));
    CHECK(selection_score({a, b}, "uauc") == doctest::Approx(0.6));
    CHECK(std::isnan(selection_score({b}, "auc")));
    a.rmse = 0.3, a.mae = 0.2, a.calibration = 0.5, a.normalised_entropy = 0.8, a.request.mean = 0.55;
    a.lists = {{parse_metric("ndcg@10", ""), 0.4, 1, 0}, {parse_metric("user_ndcg@10", ""), 0.6, 1, 0}};
    CHECK(selection_score({a}, "rmse") == -0.3);
    CHECK(selection_score({a}, "mae") == -0.2);
    CHECK(selection_score({a}, "normalised_entropy") == -0.8);
    CHECK(selection_score({a}, "request_auc") == 0.55);
    CHECK(selection_score({a}, "ndcg@10") == 0.4);
    CHECK(selection_score({a}, "user_ndcg@10") == 0.6);
    CHECK(selection_score({a}, "calibration") == doctest::Approx(std::log(0.5)));
    CHECK(std::isnan(selection_score({a}, "ndcg@5")));

    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    for (const std::string select_by :
         {"auc", "uauc", "log_loss", "ndcg@3", "mrr", "user_hr@2", "rmse", "mae", "request_auc"}) {
      config.train.select_by = select_by;
      SmallModel model(data);
      fit(model, data, {.config = config, .out = folder / select_by, .quiet = true});
      const std::string log = read_file(folder / select_by + "/metrics.jsonl");
      const std::string line = log.substr(log.find(R"({"phase":"validation")"));
      const double liked = number_of(line, select_by);
      const double shared = number_of(line.substr(line.find("\"shared\"")), select_by);
      const double sign = select_by == "log_loss" || select_by == "rmse" || select_by == "mae" ? -1 : 1;
      CHECK(number_of(line, "score") == doctest::Approx(sign * (liked + shared) / 2).epsilon(1e-12));
      const std::string events = event_text(folder / select_by);
      CHECK(events.find("validation/liked/" + select_by) != std::string::npos);
    }
  }

  TEST_CASE("train.metrics says what is computed, select_by is computed beside it") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    config.train.metrics = {"hr@3", "mae", "hr@3"};
    config.train.select_by = "user_mrr";
    SmallModel model(data);
    const FitResult result = fit(model, data, {.config = config, .out = folder / "run", .quiet = true});
    REQUIRE(result.validation.size() == 2);
    REQUIRE(result.validation[0].names.size() == 3);
    const std::string log = read_file(folder / "run/metrics.jsonl");
    for (const std::string& text : {log.substr(log.find(R"({"phase":"validation")")), result.json}) {
      for (const char* key :
           {"\"hr@3\":", "\"hr@3_requests\":", "\"mae\":", "\"user_mrr\":", "\"user_mrr_users\":"})
        CHECK(text.find(key) != std::string::npos);
      for (const char* key : {"auc", "log_loss", "rmse", "calibration"})
        CHECK(text.find(key) == std::string::npos);
    }
    // What a resumed run reads of its best step is what was measured there.
    const BinaryMetrics& m = result.validation[0];
    const auto now = evaluate(model, data, Split::validation, {.metrics = config.train.metrics_to_compute()});
    for (const MetricName& name : m.names) CHECK(m.value(name) == now[0].value(name));
    const std::string line = metrics_text(data.spec().tasks[0], m);
    CHECK(line.find("  HR@3 " + metric_number(m, m.names[0])) != std::string::npos);
    CHECK(line.find("  user MRR " + metric_number(m, m.names[2])) != std::string::npos);
    CHECK(line.find("AUC") == std::string::npos);

    for (const auto& [key, value] :
         {std::pair{"select_by", "ndcg@0"}, std::pair{"metrics", "[\"auc\",\"hr\"]"}}) {
      const std::string set = std::string("train.") + key + "=" + value;
      const std::string message = message_of([&] { load_config("", std::vector<std::string>{set}); });
      CHECK(message.find(std::string("train.") + key + ": '") != std::string::npos);
      CHECK(message.find("needs a k between 1 and 1000000") != std::string::npos);
    }
  }

  TEST_CASE("an auxiliary loss counts once per step, whatever the number of batches") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    // The auxiliary loss of every batch is `weight`, whose gradient is 1; nothing else depends on it.
    struct Auxiliary : SmallModel {
      Tensor weight = zeros({1}, f32).requires_grad();
      explicit Auxiliary(const Dataset& data) : SmallModel(data) {}
      Tensor forward(const RequestBatch& batch, Pass& pass) {
        if (pass.training) pass.losses.push_back(sum(weight));
        return SmallModel::forward(batch, pass);
      }
      void visit(Visitor& v) { SmallModel::visit(v), v.parameter("weight", weight); }
    };
    for (const int64_t accumulate : {1, 3}) {
      config.optimizer = {.name = "sgd", .lr = 0.125};
      config.schedule = {};
      config.train.clip_norm = config.train.ema = 0;
      config.train.accumulate = accumulate;
      config.train.max_steps = 2;
      Auxiliary model(data);
      fit(model, data, {.config = config, .quiet = true});
      CHECK(model.weight.to_vector()[0] == doctest::Approx(-0.25).epsilon(1e-6));
    }
  }

  TEST_CASE("a prediction that is not finite is told by its row and its cause") {
    const TemporaryFolder folder;
    const Dataset data = open_data(small_config(write_small_data(folder)).data);
    SmallModel model(data);
    for (const Parameter& parameter : parameters(model))
      if (parameter.kind == ParameterKind::dense)
        Tensor(parameter.value).fill(std::numeric_limits<float>::infinity());
    const std::string message = message_of([&] { evaluate(model, data, Split::test); });
    CAPTURE(message);
    CHECK(message.find("the prediction of 'liked' for row ") != std::string::npos);
    CHECK(message.find("the first tensor that is not is the weight ") != std::string::npos);
  }
}

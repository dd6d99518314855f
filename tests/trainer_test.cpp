// Training as a whole: runs that are interrupted anywhere end in the same bits, and what is chosen is best.
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/evaluate.h"

#include <csignal>
#include <doctest/doctest.h>
#include <filesystem>
#include <set>

using namespace mixrec;
using namespace mixrec::test;

namespace {

FitResult run(const Dataset& data, const Config& config, const std::string& out = "",
              const std::function<void(int64_t)>& before = {}, bool resume = false) {
  SmallModel model(data);
  model.before = before;
  return fit(model, data,
             {.config = config, .out = out, .resume = resume, .quiet = true, .stop_on_signals = true});
}

struct Crash {};

}  // namespace

TEST_SUITE("trainer") {
  TEST_CASE("a run that dies before any forward pass and resumes ends in the same bits") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.train.refit = true;
    config.train.refit_for = "passes";
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    const FitResult whole = fit(model, data, {.config = config, .out = folder / "whole", .quiet = true});
    CHECK(whole.finished);
    const int64_t passes = model.passes;
    // Before the first checkpoint there is nothing to resume.
    for (int64_t crash = 5; crash <= passes; crash += 19) {
      CAPTURE(crash);
      const std::string out = folder / ("crash" + std::to_string(crash));
      const auto die = [&](int64_t pass) {
        if (pass == crash) throw Crash{};
      };
      CHECK_THROWS_AS(run(data, config, out, die), Crash);
      CHECK(run(data, config, out, {}, true).finished);
      check_same_runs(folder / "whole", out);
    }
  }

  TEST_CASE("SIGKILL at any moment, then --resume: the same bits") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.train.epochs = 5;
    write_file(folder / "c.json", dump_config(config));
    const auto train = [&](const std::string& out, const std::vector<std::string>& more, int64_t lines) {
      std::vector<std::string> arguments = {"train", "--quiet", "--threads", "1", "--out", out};
      arguments.insert(arguments.end(), more.begin(), more.end());
      const auto reached = [&] {
        const std::string log = read_file(out + "/metrics.jsonl");
        return std::count(log.begin(), log.end(), '\n') >= lines;
      };
      return run_mixrec(arguments, folder, SIGKILL, lines > 0 ? reached : std::function<bool()>());
    };
    const ChildResult whole = train(folder / "whole", {"--config", folder / "c.json"}, 0);
    CAPTURE(whole.err);
    REQUIRE(whole.code == 0);
    CHECK(whole.out == read_file(folder / "whole/result.json"));
    const std::string out = folder / "killed";
    ChildResult last = train(out, {"--config", folder / "c.json"}, 3);
    int kills = 0;
    for (int64_t lines = 6; last.code == 128 + SIGKILL && kills < 3; lines += 3, ++kills)
      last = train(out, {"--resume"}, lines);
    CAPTURE(last.err);
    CHECK(kills > 0);
    REQUIRE(train(out, {"--resume"}, 0).code == 0);
    check_same_runs(folder / "whole", out);
  }

  TEST_CASE("SIGTERM finishes the step, saves and exits with 143") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.train.checkpoint_every = 0;
    const Dataset data = open_data(config.data);
    CHECK(run(data, config, folder / "whole").finished);
    const FitResult stopped = run(data, config, folder / "stopped", [](int64_t pass) {
      if (pass == 8) std::raise(SIGTERM);
    });
    CHECK_FALSE(stopped.finished);
    CHECK(stopped.signal == SIGTERM);
    CHECK(std::filesystem::exists(folder / "stopped/checkpoint.safetensors"));
    CHECK(run(data, config, folder / "stopped", {}, true).finished);
    check_same_runs(folder / "whole", folder / "stopped");

    config.train.epochs = 100'000;
    write_file(folder / "c.json", dump_config(config));
    const auto started = [&] { return std::filesystem::exists(folder / "long/metrics.jsonl"); };
    const ChildResult child =
        run_mixrec({"train", "--config", folder / "c.json", "--out", folder / "long", "--threads", "1"},
                   folder, SIGTERM, started);
    CHECK(child.code == 143);
    CHECK(child.out.empty());
    CHECK(std::filesystem::exists(folder / "long/checkpoint.safetensors"));
    CHECK(child.err.find("continue with --resume") != std::string::npos);
  }

  TEST_CASE("one thread and two give the same bits") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    const int before = num_threads();
    set_num_threads(1);
    run(data, config, folder / "one");
    set_num_threads(2);
    run(data, config, folder / "two");
    set_num_threads(before);
    check_same_runs(folder / "one", folder / "two");
  }

  TEST_CASE("k batches of a step count as one batch") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.train.max_steps = 4;
    config.train.clip_norm = 0;
    const Dataset data = open_data(config.data);
    const auto weights = [&](int64_t batch_size, int64_t accumulate) {
      config.data.batch_size = batch_size;
      config.train.accumulate = accumulate;
      SmallModel model(data, 0);
      const FitResult result = fit(model, data, {.config = config, .quiet = true});
      CHECK(result.steps == 4);
      return all_weights(model);
    };
    const auto once = weights(48, 1), thrice = weights(16, 3), start = [&] {
      SmallModel model(data, 0);
      return all_weights(model);
    }();
    double difference = 0, moved = 0;
    for (size_t i = 0; i < once.size(); ++i) {
      difference = std::max(difference, std::abs(double(once[i]) - thrice[i]));
      moved = std::max(moved, std::abs(double(once[i]) - start[i]));
    }
    CHECK(moved > 0.01);
    CHECK(difference < 1e-5);
  }

  TEST_CASE("the step that is best on the validation rows is kept, and patience ends the run") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.train.epochs = 40;
    config.train.eval_every = 3;
    config.train.patience = 4;
    config.schedule = {};
    config.table_optimizer.lr = 0.5;  // overfits soon
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    const FitResult result = fit(model, data, {.config = config, .out = folder / "run", .quiet = true});
    std::vector<std::pair<int64_t, double>> scores;
    const std::string log = read_file(folder / "run/metrics.jsonl");
    for (size_t at = 0; (at = log.find(R"({"phase":"validation","step":)", at)) != std::string::npos; ++at) {
      const size_t score = log.find(R"("score":)", at);
      scores.emplace_back(std::stoll(log.substr(at + 29)), std::stod(log.substr(score + 8)));
    }
    REQUIRE(scores.size() > 4);
    const auto best =
        std::max_element(scores.begin(), scores.end(), [](auto& a, auto& b) { return a.second < b.second; });
    CHECK(result.best_step == best->first);
    CHECK(scores.end() - best == 5);  // it and the four after it
    // The weights that fit() leaves in the model are those of the best step.
    const auto now = evaluate(model, data, Split::validation);
    CHECK((now[0].auc + now[1].auc) / 2 == doctest::Approx(best->second).epsilon(1e-12));
    CHECK(result.validation[0].auc == doctest::Approx(now[0].auc).epsilon(1e-12));
  }

  TEST_CASE("a refit trains on every row of the whole training period once a pass, from the first weights") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.train.epochs = 1;
    config.train.eval_every = 0;
    config.train.refit = true;
    config.train.refit_for = "passes";
    const Dataset data = open_data(config.data);
    struct Watching : SmallModel {
      using SmallModel::SmallModel;
      std::vector<int64_t> rows;
      Tensor forward(const RequestBatch& batch, Pass& pass) {
        if (pass.training) rows.insert(rows.end(), batch.row.begin(), batch.row.end());
        return SmallModel::forward(batch, pass);
      }
    };
    Watching model(data);
    fit(model, data, {.config = config, .quiet = true});
    // 480 rows a day of 60: six days to choose on, one to validate, one to test.
    REQUIRE(model.rows.size() == 360 + 420);
    const std::set<int64_t> chosen(model.rows.begin(), model.rows.begin() + 360);
    const std::set<int64_t> refitted(model.rows.begin() + 360, model.rows.end());
    CHECK(chosen.size() == 360);
    CHECK(refitted.size() == 420);
    CHECK(*refitted.rbegin() < 420 + 1);  // rows are in the order of time; none of the test day
  }

  TEST_CASE("with train.test off nothing is said of the test rows") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    const FitResult with = run(data, config, folder / "with");
    config.train.test = false;
    const FitResult without = run(data, config, folder / "without");
    CHECK(with.test.size() == 2);
    CHECK(without.test.empty());
    CHECK(without.json.find("\"test\"") == std::string::npos);
    CHECK(without.validation[0].auc == with.validation[0].auc);
    auto chosen = run_content(folder / "with/best.safetensors"),
         same = run_content(folder / "without/best.safetensors");
    chosen.erase("scalar config"), same.erase("scalar config");
    CHECK(chosen == same);
  }

  TEST_CASE("without validation rows the last weights are taken") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    write_file(config.data.path + "/schema.json", small_schema_text(R"("test_days": 1)"));
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    const FitResult result = fit(model, data, {.config = config, .out = folder / "run", .quiet = true});
    CHECK(result.best_step == 0);
    CHECK(result.validation.empty());
    CHECK(result.steps == 2 * ((420 + 31) / 32));
    CHECK(run_content(folder / "run/best.safetensors").size() > 3);
  }
}

// What cannot be trained is refused in one sentence, and leaves nothing behind.
#include "mixrec/core/error.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/checkpoint.h"
#include "mixrec/train/evaluate.h"

#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>
#include <limits>

using namespace mixrec;
using namespace mixrec::test;

namespace {

namespace fs = std::filesystem;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

#define CHECK_CONTAINS(text, part)                   \
  do {                                               \
    const std::string message_ = text;               \
    CAPTURE(message_);                               \
    CHECK(message_.find(part) != std::string::npos); \
  } while (0)

// The error of a run in folder/run, which must not exist afterwards.
std::string refused(const TemporaryFolder& folder, const Config& config,
                    const std::function<void(SmallModel&)>& change = {}) {
  const std::string message = error_of([&] {
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    if (change) change(model);
    fit(model, data, {.config = config, .out = folder / "run", .quiet = true});
  });
  CHECK_FALSE(fs::exists(folder / "run"));
  return message;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

}  // namespace

TEST_SUITE("trainer errors") {
  TEST_CASE("data that cannot be trained on is refused before anything is written") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    const std::string schema = config.data.path + "/schema.json", log = config.data.path + "/log.csv";
    SUBCASE("a label with one class") {
      write_file(schema, replaced(small_schema_text(), "liked == 1", "liked >= 0"));
      CHECK_CONTAINS(refused(folder, config), "the label 'liked' is 1 in all 360 train rows");
    }
    SUBCASE("no test rows") {
      write_file(schema, small_schema_text(R"("test_from": "1990-01-01", "validation_days": 1)"));
      CHECK_CONTAINS(refused(folder, config),
                     "leaves no test row: the log runs from 1970-01-01 to 1970-01-08");
      write_file(schema, small_schema_text(R"("test_from": "1960-01-01", "validation_days": 1)"));
      CHECK_CONTAINS(refused(folder, config),
                     "leaves no train row: the log runs from 1970-01-01 to 1970-01-08");
    }
    SUBCASE("refit without validation rows") {
      write_file(schema, small_schema_text(R"("test_days": 1)"));
      Config refit = config;
      refit.train.refit = true;
      CHECK_CONTAINS(refused(folder, refit), "train.refit needs validation rows");
    }
    SUBCASE("a missing file") {
      fs::remove(log);
      CHECK_CONTAINS(refused(folder, config), "log.csv");
    }
    SUBCASE("a short row") {
      write_file(log, small_log_text() + "3,104\n");
      CHECK_CONTAINS(refused(folder, config), "log.csv");
    }
    SUBCASE("text where a number belongs") {
      write_file(log, small_log_text() + "3,104,soon,1,0\n");
      CHECK_CONTAINS(refused(folder, config), "soon");
    }
    SUBCASE("an optimiser that does not exist") {
      Config unknown = config;
      unknown.optimizer.name = "adamm";
      CHECK_CONTAINS(refused(folder, unknown), "did you mean adam");
    }
    SUBCASE("a group that matches nothing") {
      Config group = config;
      group.groups = {{.pattern = "mlp.weight"}};
      CHECK_CONTAINS(refused(folder, group), "matches no parameter");
    }
  }

  TEST_CASE("a run folder is never overwritten") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    fit(model, data, {.config = config, .out = folder / "run", .quiet = true});
    const auto again = [&] { fit(model, data, {.config = config, .out = folder / "run", .quiet = true}); };
    CHECK_CONTAINS(error_of(again), "already holds a run");
    CHECK(fs::exists(folder / "run/result.json"));
  }

  TEST_CASE("NaN in the loss names the step, the first tensor and the row, and changes no weight") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.train.eval_every = 100;
    config.train.checkpoint_every = 0;
    const auto poison = [](int64_t at, const std::string& name) {
      return [at, name](SmallModel& model) {
        model.before = [&model, at, name](int64_t pass) {
          if (pass != at) return;
          for (const Parameter& parameter : parameters(model))
            if (parameter.name == name) parameter.value.data<float>()[3] = kNaN;
        };
      };
    };
    SUBCASE("in a weight") {
      const std::string message = refused(folder, config, poison(7, "mlp.1.weight"));
      CHECK_CONTAINS(message, "step 7: the loss is not finite");
      CHECK_CONTAINS(message, "the weight mlp.1.weight in row 0");
      CHECK_CONTAINS(message, "of the data set");
    }
    SUBCASE("made by an op, for one row") {
      struct Overflowing : SmallModel {
        using SmallModel::SmallModel;
        int64_t bad_row = -1;
        Tensor forward(const RequestBatch& batch, Pass& pass) {
          const Tensor logits = SmallModel::forward(batch, pass);
          Tensor factor = ones({batch.candidates, 1});
          if (pass.training && passes >= 5) {
            if (bad_row < 0) bad_row = batch.row[11];
            factor.data<float>()[11] = 3e38F;
          }
          return logits * factor * 1e38;
        }
      };
      const Dataset data = open_data(config.data);
      Overflowing model(data);
      const std::string message =
          error_of([&] { fit(model, data, {.config = config, .out = folder / "run", .quiet = true}); });
      CHECK_CONTAINS(message, "step 5: the loss is not finite");
      CHECK_CONTAINS(message, "the output of affine");
      CHECK_CONTAINS(message, "at row " + std::to_string(model.bad_row) + " of the data set");
    }
  }

  TEST_CASE("a gradient that is not finite is named by its parameter, and no weight is changed") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    struct Steep : SmallModel {
      using SmallModel::SmallModel;
      Tensor forward(const RequestBatch& batch, Pass& pass) {
        const Tensor logits = SmallModel::forward(batch, pass);
        return passes < 4 ? logits : logits + sqrt(logits * 0.0);  // the slope of sqrt at 0
      }
    };
    const Dataset data = open_data(config.data);
    Steep model(data);
    const std::string message = error_of([&] { fit(model, data, {.config = config, .quiet = true}); });
    CHECK_CONTAINS(message, "step 4: the gradient of mlp.0.weight is not finite");
    CHECK_CONTAINS(message, "of the data set");
    const std::vector<float> left = all_weights(model);
    CHECK(std::all_of(left.begin(), left.end(), [](float w) { return std::isfinite(w); }));
  }

  TEST_CASE("a checkpoint that is cut, or of another shape, is refused with the tensor named") {
    const TemporaryFolder folder;
    const Tensor a = Tensor::from({1.F, 2.F, 3.F, 4.F}, {2, 2}), b = Tensor::from({5.F}, {1});
    const std::vector<NamedTensor> saved = {{"a", a}, {"b", b}};
    const std::string path = folder / "w.safetensors";
    save_tensors(path, saved, {{"step", "7"}});
    Tensor to_a = zeros({2, 2}), to_b = zeros({1});
    SUBCASE("whole") {
      const std::vector<NamedTensor> to = {{"b", to_b}, {"a", to_a}};
      CHECK(load_tensors(path, to).at("step") == "7");
      CHECK(to_a.to_vector() == a.to_vector());
      CHECK(to_b.item() == 5);
    }
    SUBCASE("another shape") {
      const std::vector<NamedTensor> to = {{"a", zeros({4})}, {"b", to_b}};
      CHECK_CONTAINS(error_of([&] { load_tensors(path, to); }), "a is F32 [2, 2], the model needs F32 [4]");
    }
    SUBCASE("missing and unexpected names; nothing is changed") {
      const std::vector<NamedTensor> more = {{"a", to_a}, {"b", to_b}, {"c", zeros({1})}};
      CHECK_CONTAINS(error_of([&] { load_tensors(path, more); }), "lacks the tensor c [1]");
      const std::vector<NamedTensor> fewer = {{"a", to_a}};
      CHECK_CONTAINS(error_of([&] { load_tensors(path, fewer); }), "holds b, which the model does not have");
      CHECK(to_a.to_vector() == std::vector<float>(4));
    }
    SUBCASE("truncated") {
      const std::string bytes = read_file(path);
      write_file(path, bytes.substr(0, bytes.size() - 1));
      CHECK_CONTAINS(error_of([&] { load_tensors(path, saved); }), path);
    }
  }

  TEST_CASE("a disk that is full while saving leaves the last checkpoint, and the run can go on") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    const std::string out = folder / "run", temporary = out + "/checkpoint.safetensors.tmp";
    SmallModel model(data);
    model.before = [&](int64_t pass) {
      // Writes to this name end on a device that is always full.
      if (pass == 8) fs::create_symlink("/dev/full", temporary);
    };
    const std::string message =
        error_of([&] { fit(model, data, {.config = config, .out = out, .quiet = true}); });
    CHECK_CONTAINS(message, "No space left on device");
    CHECK_FALSE(fs::exists(fs::symlink_status(temporary)));
    SmallModel resumed(data), whole(data);
    CHECK(fit(resumed, data, {.config = config, .out = out, .resume = true, .quiet = true}).finished);
    fit(whole, data, {.config = config, .quiet = true});
    CHECK(all_weights(resumed) == all_weights(whole));
  }

  TEST_CASE("memory that runs out in a step ends the run with a sentence and leaves the last checkpoint") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    const std::string out = folder / "run";
    SmallModel model(data), resumed(data), whole(data);
    model.before = [](int64_t pass) {
      if (pass == 8) MR_FAIL("out of device memory: asked for 3 GiB");  // as an allocator would
    };
    const std::string message =
        error_of([&] { fit(model, data, {.config = config, .out = out, .quiet = true}); });
    CHECK_CONTAINS(message, "asked for 3 GiB");
    CHECK(fit(resumed, data, {.config = config, .out = out, .resume = true, .quiet = true}).finished);
    fit(whole, data, {.config = config, .quiet = true});
    CHECK(all_weights(resumed) == all_weights(whole));
  }

  TEST_CASE("a resume with another configuration or model is refused") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    fit(model, data, {.config = config, .out = folder / "run", .quiet = true});
    const auto resume = [&] {
      SmallModel again(data);
      fit(again, data, {.config = config, .out = folder / "run", .resume = true, .quiet = true});
    };
    config.train.threads = 1;  // changes no bit
    CHECK(error_of(resume) == "no error");
    config.optimizer.lr = 0.02;
    CHECK_CONTAINS(error_of(resume), "optimizer.lr: 0.01 -> 0.02");
  }

  TEST_CASE("wrong usage exits with 2, errors with 1, help with 0") {
    const TemporaryFolder folder;
    CHECK(run_mixrec({}, folder).code == 2);
    CHECK(run_mixrec({"trian"}, folder).code == 2);
    CHECK(run_mixrec({"train"}, folder).code == 2);
    const ChildResult help = run_mixrec({"train", "--help"}, folder);
    CHECK(help.code == 0);
    CHECK_CONTAINS(help.out, "train.epochs = 1");
    write_file(folder / "c.json", R"({"train": {"epoch": 2}})");
    const ChildResult unknown = run_mixrec(
        {"train", "--config", folder / "c.json", "--data", write_small_data(folder), "--out", folder / "run"},
        folder);
    CHECK(unknown.code == 1);
    CHECK(unknown.out.empty());
    CHECK_CONTAINS(unknown.err, "unknown key train.epoch; did you mean train.epochs?");
    CHECK_FALSE(fs::exists(folder / "run"));
    CHECK(run_mixrec({"eval", folder / "none"}, folder).code == 1);
  }

  TEST_CASE("eval and predict use the chosen weights") {
    const TemporaryFolder folder;
    const std::string data = write_small_data(folder), run = folder / "run";
    write_file(folder / "c.json", R"({"data": {"path": "log", "batch_size": 64},
                                      "model": {"name": "logistic_regression"}})");
    const ChildResult train =
        run_mixrec({"train", "--config", folder / "c.json", "--out", run, "--quiet"}, folder);
    CAPTURE(train.err);
    REQUIRE(train.code == 0);
    const ChildResult eval = run_mixrec({"eval", run}, folder);
    REQUIRE(eval.code == 0);
    const auto test_part = [](const std::string& json) {
      const size_t at = json.find(R"("test":)");
      return json.substr(at, json.find("}}", at) - at);
    };
    CHECK(test_part(eval.out) == test_part(train.out));
    REQUIRE(run_mixrec({"predict", run, "--out", folder / "p.csv"}, folder).code == 0);
    const std::string csv = read_file(folder / "p.csv");
    CHECK(csv.starts_with("row,user,item,time,liked,shared\n"));
    CHECK(std::count(csv.begin(), csv.end(), '\n') == 61);
  }
}

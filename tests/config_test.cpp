#include "mixrec/train/config.h"

#include "mixrec/core/error.h"
#include "mixrec/models/list.h"
#include "mixrec/tests/temporary_folder.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using test::TemporaryFolder;
using test::write_file;

namespace {

Config set(std::vector<std::string> sets) { return load_config("", sets); }

std::string error_of(std::vector<std::string> sets, const std::string& file = "") {
  try {
    load_config(file, sets);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

#define CHECK_CONTAINS(text, part)                   \
  do {                                               \
    const std::string message_ = text;               \
    CAPTURE(message_);                               \
    CHECK(message_.find(part) != std::string::npos); \
  } while (0)

}  // namespace

TEST_SUITE("config") {
  TEST_CASE("defaults, then the file, then --set") {
    const TemporaryFolder folder;
    const std::string path = folder / "c.json";
    write_file(path, R"({
      // a comment
      "train": {"epochs": 3, "max_steps": 1e4, "refit": true},
      "model": {"name": "din", "layers": 2, "sizes": {"hidden": 8, "out": 4}},
      "groups": [{"pattern": "*.bias", "weight_decay": 0}]
    })");
    CHECK(load_config(path, {}).train.epochs == 3);
    const std::vector<std::string> sets = {"train.epochs=5", "model.sizes.out=1", "data.path=/logs/2026 may",
                                           "data.schema=/a.json", "data.tasks=[\"click\"]"};
    const Config config = load_config(path, sets);
    CHECK(config.train.epochs == 5);
    CHECK(config.train.max_steps == 10000);
    CHECK(config.train.refit);
    CHECK(config.train.seed == Config{}.train.seed);
    CHECK(config.data.path == "/logs/2026 may");
    CHECK(config.data.schema == std::vector<std::string>{"/a.json"});
    CHECK(config.data.tasks == std::vector<std::string>{"click"});
    CHECK(config.model.name == "din");
    CHECK(config.model.options.text == R"({"layers":2,"sizes":{"hidden":8,"out":1}})");
    REQUIRE(config.groups.size() == 1);
    CHECK(config.groups[0].pattern == "*.bias");
    CHECK(config.groups[0].lr_scale == 1);

    SUBCASE("the dump gives the same configuration back") {
      write_file(folder / "d.json", dump_config(config));
      CHECK(dump_config(load_config(folder / "d.json", {})) == dump_config(config));
      CHECK(config_differences(config, load_config(folder / "d.json", {})).empty());
    }
    SUBCASE("another model drops the options of the first") {
      CHECK(load_config(path, std::vector<std::string>{"model.name=dlrm"}).model.options.text == "{}");
    }
    SUBCASE("differences name the key and both values") {
      const auto differences = config_differences(config, load_config(path, {}));
      REQUIRE(differences.size() == 5);
      CHECK(std::find(differences.begin(), differences.end(), "train.epochs: 5 -> 3") != differences.end());
    }
  }

  TEST_CASE("unknown keys name their path and the nearest key") {
    CHECK_CONTAINS(error_of({"train.epoch=3"}), "unknown key train.epoch; did you mean train.epochs?");
    CHECK_CONTAINS(error_of({"trian.epochs=3"}), "unknown key trian; did you mean train?");
    CHECK_CONTAINS(error_of({"schedule.warmup_step=3"}), "did you mean schedule.warmup_steps?");
    const TemporaryFolder folder;
    write_file(folder / "c.json", R"({"optimizer": {"learning_rate": 1}})");
    CHECK_CONTAINS(error_of({}, folder / "c.json"),
                   (folder / "c.json") + ": unknown key optimizer.learning_rate");
    write_file(folder / "c.json", R"({"groups": [{"pattern": "a"}, {"patern": "b"}]})");
    CHECK_CONTAINS(error_of({}, folder / "c.json"),
                   "unknown key groups.1.patern; did you mean groups.1.pattern?");
  }

  TEST_CASE("types and ranges are checked with the path named") {
    CHECK_CONTAINS(error_of({"train.epochs=three"}), "train.epochs needs a whole number, got \"three\"");
    CHECK_CONTAINS(error_of({"train.epochs=1.5"}), "train.epochs needs a whole number, got 1.5");
    CHECK_CONTAINS(error_of({"train.refit=1"}), "train.refit needs true or false, got 1");
    CHECK_CONTAINS(error_of({"data.path=7"}), "data.path needs a string, got 7");
    CHECK_CONTAINS(error_of({"train=7"}), "train needs an object, got 7");
    CHECK_CONTAINS(error_of({"data.overrides=7"}), "data.overrides needs an object");
    CHECK_CONTAINS(error_of({"data.batch_size=0"}), "data.batch_size is 0, it must be between 1");
    CHECK_CONTAINS(error_of({"optimizer.lr=-1"}), "optimizer.lr is -1, it must be between 0");
    CHECK_CONTAINS(error_of({"data.shuffle=row"}),
                   "data.shuffle is \"row\", known are rows, requests; did you mean rows?");
    CHECK_CONTAINS(error_of({"train.epochs"}), "expected section.key=value");
    CHECK_CONTAINS(error_of({}, "/no/such/config.json"), "cannot read /no/such/config.json: No such file");
    const TemporaryFolder folder;
    write_file(folder / "c.json", "{\"train\": {");
    CHECK_CONTAINS(error_of({}, folder / "c.json"), "c.json is not valid JSON");
  }

  TEST_CASE("every number has a range, which its error states") {
    const std::pair<const char*, const char*> refused[] = {
        {"train.epochs=0", "train.epochs is 0, it must be between 1 and 9e+15"},
        {"train.accumulate=0", "train.accumulate is 0, it must be between 1"},
        {"train.threads=4294967297", "train.threads is 4294967297, it must be between 0 and 4096"},
        {"train.threads=1e15", "it must be between 0 and 4096"},
        {"train.seed=-1", "train.seed is -1, it must be between 0"},
        {"train.ema=1", "train.ema is 1, it must be at least 0 and below 1"},
        {"data.workers=257", "data.workers is 257, it must be between 0 and 256"},
        {"schedule.step_factor=-1", "schedule.step_factor is -1, it must be above 0"},
        {"schedule.step_factor=0", "schedule.step_factor is 0, it must be above 0"},
        {"optimizer.beta1=1", "optimizer.beta1 is 1, it must be at least 0 and below 1"},
        {"table_optimizer.beta2=1.5", "table_optimizer.beta2 is 1.5, it must be at least 0 and below 1"},
        {"groups=[{\"pattern\":\"x\",\"lr_scale\":-1}]", "groups.0.lr_scale is -1, it must be between 0"}};
    for (const auto& [setting, message] : refused) {
      CAPTURE(setting);
      CHECK_CONTAINS(error_of({setting}), message);
    }
    Config config;
    config.train.clip_norm = std::nan("");
    CHECK_THROWS_WITH(check_config(config), "train.clip_norm is nan, it must be between 0 and 9e+15");
    config = {};
    config.groups.push_back({.pattern = "x", .lr_scale = -2});
    CHECK_THROWS_WITH(check_config(config), "groups.0.lr_scale is -2, it must be between 0 and 1000000");
  }

  TEST_CASE("numbers are read alike in every section, however a person writes them") {
    for (const char* section : {"train.max_steps", "schedule.warmup_steps", "data.max_events"})
      for (const char* number : {"100", "1e2", "100.0", "100.", "+100", "1.e2"}) {
        CAPTURE(section);
        CHECK(error_of({std::string(section) + "=" + number}) == "accepted");
      }
    CHECK(set({"train.max_steps=1e2"}).train.max_steps == 100);
    CHECK(set({"train.ema=.98"}).train.ema == .98);
    CHECK(set({"optimizer.weight_decay=+.5"}).optimizer.weight_decay == .5);
    const Config mlp = set({"model.name=mlp", "model.dropout=.25", "model.hidden=1.6e1"});
    CHECK(mlp.model.options.text == R"({"dropout":0.25,"hidden":16.0})");
    const ModelEntry& entry = find_model("mlp");
    FeatureSet spec;
    spec.features.push_back({.name = "f", .scope = FeatureScope::candidate, .rows = 3, .width = 2});
    spec.tasks.push_back({.name = "click"});
    Rng rng(1);
    const auto model = entry.build(spec, mlp.model.options.text, rng);
    CHECK(model->parameters().at(1).value.dim(1) == 16);
    const std::pair<const char*, const char*> refused[] = {
        {R"({"hidden": 2.5})", "mlp: model.hidden needs a whole number, got 2.5"},
        {R"({"hidden": 0})", "mlp: model.hidden is 0, it must be between 1 and 1048576"},
        {R"({"dropout": 1})", "mlp: model.dropout is 1, it must be at least 0 and below 1"},
        {R"({"table_deviation": -1})", "mlp: model.table_deviation is -1, it must be between 0 and 1000"}};
    for (const auto& [options, message] : refused) {
      CAPTURE(options);
      CHECK_THROWS_WITH(entry.build(spec, options, rng), message);
    }
    CHECK_THROWS_WITH(find_model("mixformer").build(spec, R"({"layers": 1e9})", rng),
                      "mixformer: model.layers is 1000000000.0, it must be between 1 and 1000");
    CHECK_THROWS_WITH(find_model("ui_mixformer").build(spec, R"({"ffn_hidden": -5})", rng),
                      "ui_mixformer: model.ffn_hidden is -5, it must be between 0 and 1048576");
  }

  TEST_CASE("keys that come twice, deep nesting and odd bytes are errors") {
    const TemporaryFolder folder;
    write_file(folder / "c.json", R"({"train": {"epochs": 3, "epochs": 4}})");
    CHECK_CONTAINS(error_of({}, folder / "c.json"), "'epochs' stands twice in train");
    write_file(folder / "c.json", R"({"model": {"name": "mlp"}, "model": {"name": "mlp"}})");
    CHECK_CONTAINS(error_of({}, folder / "c.json"), "'model' stands twice in it");
    write_file(folder / "c.json", R"({"data": {"overrides": )" + std::string(100000, '['));
    CHECK_CONTAINS(error_of({}, folder / "c.json"), "nested more than 64 levels deep");
    CHECK_CONTAINS(error_of({"model.x=" + std::string(100000, '[') + std::string(100000, ']')}), "deep");
    CHECK_CONTAINS(error_of({"train.epochs=d\xff"}), "train.epochs needs a whole number");
    const std::string key(5000000, 'k');
    CHECK(error_of({"train." + key + "=1"}).size() < 500);
  }

  TEST_CASE("paths in a file are relative to it, paths of --set to the current folder") {
    const TemporaryFolder folder;
    write_file(folder / "c.json", R"({"data": {"path": "log", "schema": ["../s.json", "/abs.json"]}})");
    const Config config = load_config(folder / "c.json", {});
    CHECK(config.data.path == folder / "log");
    CHECK(config.data.schema.at(0) == std::filesystem::path(folder.path()).parent_path() / "s.json");
    CHECK(config.data.schema.at(1) == "/abs.json");
    const std::vector<std::string> sets = {"data.path=other"};
    CHECK(load_config(folder / "c.json", sets).data.path == "other");
  }

  TEST_CASE("values of --set are JSON where they can be") {
    CHECK(set({"train.clip_norm=0.5"}).train.clip_norm == 0.5);
    CHECK(set({"train.clip_norm=2"}).train.clip_norm == 2);
    CHECK(set({"model.name=a=b"}).model.name == "a=b");
    CHECK(set({"model.name=\"7\""}).model.name == "7");
    CHECK(set({"model.layers=4"}).model.options.text == R"({"layers":4})");
    CHECK(set({"groups=[{\"pattern\":\"x\",\"freeze\":true}]"}).groups.at(0).freeze);
  }

  TEST_CASE("the help names every key with its default") {
    const std::string help = describe_config();
    CHECK_CONTAINS(help, "schedule.final_share = 0");
    CHECK_CONTAINS(help, "model.name = \"mixformer\"");
    CHECK_CONTAINS(help, "table_optimizer.lr = ");
  }
}

// predictions.csv joins back to the log that it was made from.
#include "mixrec/train/predictions.h"

#include "mixrec/core/error.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/trainer_setup.h"

#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>
#include <map>
#include <sys/stat.h>
#include <utility>

using namespace mixrec;
using namespace mixrec::test;

namespace {

namespace fs = std::filesystem;

// A reader of RFC 4180, written for these tests.
std::vector<std::vector<std::string>> fields_of(const std::string& csv) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> row;
  for (size_t at = 0; at < csv.size();) {
    std::string field;
    if (csv[at] == '"') {
      for (++at; csv[at] != '"' || csv[at + 1] == '"'; ++at) {
        if (csv[at] == '"') ++at;
        field += csv[at];
      }
      ++at;
    } else {
      while (csv[at] != ',' && csv[at] != '\n') field += csv[at++];
    }
    row.push_back(field);
    if (csv[at++] == '\n') rows.push_back(std::exchange(row, {}));
  }
  return rows;
}

void write_data(const std::string& path, const std::string& log, const std::string& schema) {
  fs::create_directories(path);
  write_file(path + "/log.csv", log);
  write_file(path + "/schema.json", schema);
}

std::string schema_of(const std::string& log_keys, const std::string& tasks,
                      const std::string& split = R"("by": "date", "test_days": 1)") {
  return R"({"log": {"files": "log.csv", "user": "user", "item": "item", )" + log_keys + R"(}, "tasks": {)" +
         tasks + R"(}, "features": {"item": ["item"]}, "split": {)" + split + "}}";
}

void train(const TemporaryFolder& folder, const std::string& data) {
  fs::remove_all(folder / "run");
  const ChildResult result = run_mixrec({"train", "--data", data, "--out", folder / "run", "--set",
                                         "model.name=logistic_regression", "--set", "table_optimizer.lr=0.1"},
                                        folder);
  INFO(result.err);
  REQUIRE(result.code == 0);
}

std::string predict(const TemporaryFolder& folder, const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments{"predict", folder / "run", "--out", folder / "p.csv"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const ChildResult result = run_mixrec(arguments, folder);
  INFO(result.err);
  REQUIRE(result.code == 0);
  return read_file(folder / "p.csv");
}

using Fields = std::vector<std::vector<std::string>>;

// The first columns of every line.
Fields keys_of(const std::string& csv, size_t columns) {
  Fields keys;
  for (auto row : fields_of(csv))
    keys.push_back({row.begin(), row.begin() + static_cast<std::ptrdiff_t>(columns)});
  return keys;
}

}  // namespace

TEST_SUITE("predictions") {
  TEST_CASE("the log's own cells in the log's order, names quoted, every number read back as it was") {
    const TemporaryFolder folder;
    write_data(
        folder / "log",
        "user,item,day,click\nzoe,a,3,1\nbob,a,1,1\nzoe,b,2,1\nbob,b,3,0\nzoe,a,1,0\nbob,a,2,0\nzoe,b,3,0\n"
        "bob,b,3,1\n",
        schema_of(R"("time": {"column": "day", "unit": "day"})",
                  R"("click, buy": "click", "a \"b\"": "click")"));
    train(folder, folder / "log");
    const std::string csv = predict(folder);
    CHECK(csv.starts_with("row,user,item,time,\"click, buy\",\"a \"\"b\"\"\"\n"));
    CHECK(keys_of(csv, 4) == Fields{{"row", "user", "item", "time"},
                                    {"log.csv:2", "zoe", "a", "3"},
                                    {"log.csv:5", "bob", "b", "3"},
                                    {"log.csv:8", "zoe", "b", "3"},
                                    {"log.csv:9", "bob", "b", "3"}});
    const auto rows = fields_of(csv);
    CHECK(rows[1][4] != rows[2][4]);
    CHECK(rows[2][4] == rows[4][4]);
    CHECK(keys_of(predict(folder, {"--split", "train"}), 1) ==
          Fields{{"row"}, {"log.csv:3"}, {"log.csv:4"}, {"log.csv:6"}, {"log.csv:7"}});
    CHECK(fields_of(predict(folder, {"--split", "all"})).size() == 9);

    const Config config = load_config(folder / "run/config.json", {});
    const Dataset data = open_data(config.data);
    CHECK(fields_of(csv)[0].size() == 4 + data.spec().tasks.size());
  }

  TEST_CASE("several files, a request column, a date, cells with quotes and line breaks, dropped rows") {
    const TemporaryFolder folder;
    std::string schema = schema_of(
        R"("date": {"column": "day", "format": "%Y%m%d"}, "request": "page", "where": "kind == 'show'",
           "duplicates": ["user", "item", "day"])",
        R"("click": "click")");
    schema.replace(schema.find("\"log.csv\""), 9, R"(["log.csv", "more.csv"])");
    write_data(
        folder / "log",
        "user,item,day,page,kind,click\r\n\"a,b\",x,20220501,1,show,1\r\n\r\n\"a,b\",y,20220501,1,show,0\r\n"
        "u,x,20220501,2,ping,\r\nu,x,20220502,3,show,1\r\n",
        schema);
    write_file(folder / "log/more.csv",
               "click,kind,page,day,item,user\n0,show,4,20220502,\"two\nlines\",\"say "
               "\"\"hi\"\"\"\n1,show,4,20220502,"
               "x,u\n0,show,4,20220502,y,u\n");
    train(folder, folder / "log");
    CHECK(keys_of(predict(folder, {"--split", "all"}), 5) ==
          Fields{{"row", "user", "item", "time", "request"},
                 {"log.csv:2", "a,b", "x", "20220501", "1"},
                 {"log.csv:4", "a,b", "y", "20220501", "1"},
                 {"log.csv:6", "u", "x", "20220502", "3"},
                 {"more.csv:2", "say \"hi\"", "two\nlines", "20220502", "4"},
                 {"more.csv:5", "u", "y", "20220502", "4"}});
  }

  TEST_CASE("probabilities are those of evaluation, whatever fits into memory at once") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    ModelHolder<SmallModel&> holder(model);
    std::map<int64_t, std::vector<float>> expected;  // by line
    for_each_prediction(
        holder, data, Split::refit, {}, [&](const RequestBatch& batch, std::span<const float> logits) {
          for (size_t c = 0; c < batch.row.size(); ++c)
            expected[2 + batch.row[c]] = {probability(logits[2 * c]), probability(logits[2 * c + 1])};
        });
    std::string first;
    for (const int64_t at_once : {7, 1000}) {
      CHECK(write_predictions(holder, data, config.data.path, Split::refit, folder / "p.csv",
                              {.rows_at_once = at_once}) == 420);
      const std::string csv = read_file(folder / "p.csv");
      if (first.empty()) first = csv;
      CHECK(csv == first);
    }
    auto rows = fields_of(first);
    rows.erase(rows.begin());
    REQUIRE(rows.size() == expected.size());
    auto next = expected.begin();
    for (const auto& row : rows) {
      CHECK(row[0] == "log.csv:" + std::to_string(next->first));
      CHECK(std::stof(row[4]) == next->second[0]);
      CHECK(std::stof(row[5]) == next->second[1]);
      ++next;
    }
    // Nothing is left of what lay beside the file.
    for (const auto& entry : fs::directory_iterator(folder.path()))
      CHECK(entry.path().filename().string().find("p.csv.") == std::string::npos);
  }

  TEST_CASE("a log that changes while rows are predicted is refused, and the old file stays") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    SmallModel model(data);
    ModelHolder<SmallModel&> holder(model);
    write_file(folder / "p.csv", "old");
    const auto refused = [&](const std::string& log) {
      write_file(config.data.path + "/log.csv", log);
      return message_of(
          [&] { write_predictions(holder, data, config.data.path, Split::test, folder / "p.csv"); });
    };
    const std::string log = small_log_text();
    CHECK(refused(log + "3,104,700000,1,0\n").find("log.csv has changed since the data set was prepared") !=
          std::string::npos);
    CHECK(refused(log.substr(0, log.rfind('\n', log.size() - 2) + 1)).find("log.csv has changed") !=
          std::string::npos);
    std::string other = log;
    other.back() = ' ';
    other[log.size() - 2] = log[log.size() - 2] == '0' ? '1' : '0';
    CHECK(refused(other).find("log.csv has changed") != std::string::npos);
    CHECK(read_file(folder / "p.csv") == "old");
    CHECK(refused(log).empty());
  }

  TEST_CASE("tasks cannot be called as another column") {
    for (const std::string name : {"row", "user", "item", "time", "request"})
      CHECK(message_of([&] {
              parse_schema(schema_of(R"("time": "day")", "\"" + name + "\": \"click\""));
            }).find("tasks." + name + ": '" + name + "' is another column of predictions") !=
            std::string::npos);
    CHECK_NOTHROW(parse_schema(schema_of(R"("time": "day")", R"("rows": "click")")));
  }

  TEST_CASE("a folder of rows to be predicted needs no training rows and no labels that differ") {
    const TemporaryFolder folder;
    const std::string schema = schema_of(R"("time": {"column": "day", "unit": "day"})",
                                         R"("click": {"label": "click", "where": "day < 4"})",
                                         R"("by": "date", "test_from": "1970-01-04")");
    write_data(folder / "log", "user,item,day,click\nu,a,1,1\nu,b,1,0\nv,a,2,1\nv,b,2,0\nu,a,3,1\nu,b,3,0\n",
               schema);
    train(folder, folder / "log");
    write_data(folder / "next", "user,item,day,click\nw,b,5,7\nu,a,5,7\n", schema);
    const auto rows = fields_of(predict(folder, {"--data", folder / "next"}));
    REQUIRE(rows.size() == 3);
    CHECK(rows[1][1] == "w");
    CHECK(std::stof(rows[1][4]) < 1);
    // Neither labels, nor the columns that they are read from.
    write_data(folder / "bare", "day,item,user\n5,b,w\n5,a,u\n", schema);
    const auto bare = fields_of(predict(folder, {"--data", folder / "bare"}));
    REQUIRE(bare.size() == 3);
    for (size_t r = 1; r < 3; ++r) CHECK(bare[r][4] == rows[r][4]);
    const ChildResult eval = run_mixrec({"eval", folder / "run", "--data", folder / "next"}, folder);
    INFO(eval.err);
    CHECK(eval.code == 0);
    CHECK(eval.out.find(R"("auc":null)") != std::string::npos);
    CHECK(eval.err.find("no label of the part counts") != std::string::npos);
  }

  TEST_CASE("rows without labels have no signals either, and are predicted as those with labels are") {
    const TemporaryFolder folder;
    std::string schema = schema_of(R"("time": {"column": "day", "unit": "day"}, "weight": "w")",
                                   R"("click": "click")", R"("by": "date", "test_from": "1970-01-05")");
    schema.replace(schema.find(R"(["item"])"), 8, R"([{"column": "item", "hash": 16}])");
    schema.insert(
        schema.find(R"("split")"),
        R"("histories": {"h": {"from": [{"log": true, "where": "click >= 0", "signals": {"click": "click"}}],
                     "features": ["item"]}}, )");
    std::string log = "user,item,day,click,w\n";
    for (int k = 0; k < 60; ++k)
      log += concat_message("u", k % 3, ",i", k % 5, ",", 1 + k / 20, ",", k % 2, ",1\n");
    write_data(folder / "log", log + "u1,i1,4,1,1\nu2,i2,4,,\n", schema);
    fs::remove_all(folder / "run");
    const ChildResult trained =
        run_mixrec({"train", "--data", folder / "log", "--out", folder / "run", "--set", "model.name=mlp",
                    "--set", "model.hidden=4", "--set", "train.test=false"},
                   folder);
    INFO(trained.err);
    REQUIRE(trained.code == 0);
    const auto rows = fields_of(predict(folder));
    REQUIRE(rows.size() == 3);
    const std::string lacking = "user,item,day\nu1,i1,4\nu2,i2,4\n";
    write_data(folder / "next", lacking, schema);
    REQUIRE(fields_of(predict(folder, {"--data", folder / "next", "--split", "all"})).size() == 3);
    // Who trains is told which column is missing.
    const ChildResult refused =
        run_mixrec({"train", "--data", folder / "next", "--out", folder / "other"}, folder);
    CHECK(refused.code == 1);
  }

  TEST_CASE("a path that config.json cannot hold is refused before a run folder is made") {
    const TemporaryFolder folder;
    write_data(folder / "d\xff", "user,item,day,click\nu,a,1,1\nu,b,1,0\nu,a,2,1\nu,b,2,0\n",
               schema_of(R"("time": {"column": "day", "unit": "day"})", R"("click": "click")"));
    for (const std::string& data : {folder / "d\xff", folder / "absent/\xe9"}) {
      const ChildResult result = run_mixrec({"train", "--data", data, "--out", folder / "run"}, folder);
      CHECK(result.code == 1);
      CHECK_MESSAGE(
          result.err.find("is not UTF-8, so that a run's config.json cannot hold it") != std::string::npos,
          result.err);
      CHECK(!fs::exists(folder / "run"));
    }
  }

  TEST_CASE("an output that is an input, a file of the run or a device is refused, and a link stays one") {
    const TemporaryFolder folder;
    const std::string log = "user,item,day,click\nu,a,1,1\nu,b,1,0\nu,a,2,1\nu,b,2,0\nu,a,3,1\nu,b,3,0\n";
    write_data(folder / "log", log,
               schema_of(R"("time": {"column": "day", "unit": "day"})", R"("click": "click")"));
    train(folder, folder / "log");
    fs::create_symlink(folder / "log/log.csv", folder / "link.csv");
    const std::string config = read_file(folder / "run/config.json"),
                      schema = read_file(folder / "log/schema.json");
    write_file(folder / "in.jsonl", "{\"candidates\":[\"a\"]}\n");
    const auto error = [&](std::vector<std::string> arguments, const std::string& out) {
      arguments.insert(arguments.end(), {"--out", out});
      const ChildResult result = run_mixrec(arguments, folder);
      CHECK(result.code == 1);
      return result.err;
    };
    const std::string run = folder / "run";
    const auto has = [](const std::string& text, const std::string& part) {
      CHECK_MESSAGE(text.find(part) != std::string::npos, text);
    };
    for (const char* name : {"config.json", "best.safetensors", "encoders/index.json", "../run/run.json"})
      has(error({"predict", run}, run + "/" + name), "is a file of the run");
    for (const char* name : {"log/log.csv", "log/schema.json", "link.csv", "run/../log/log.csv"})
      has(error({"predict", run}, folder / name), "which is read; name another file");
    has(error({"score", "--run", run, "--in", folder / "in.jsonl"}, folder / "in.jsonl"), "which is read");
    has(error({"score", "--run", run, "--in", folder / "in.jsonl"}, run + "/metrics.jsonl"),
        "a file of the run");
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    has(error({"predict", run}, folder / "pipe"), "is a device or a pipe");
    CHECK(fs::is_fifo(folder / "pipe"));
    CHECK(read_file(folder / "log/log.csv") == log);
    CHECK(read_file(folder / "log/schema.json") == schema);
    CHECK(read_file(run + "/config.json") == config);

    write_file(folder / "target.csv", "old");
    fs::create_symlink("target.csv", folder / "to.csv");
    CHECK(run_mixrec({"predict", run, "--out", folder / "to.csv"}, folder).code == 0);
    CHECK(fs::is_symlink(folder / "to.csv"));
    CHECK(read_file(folder / "target.csv").starts_with("row,user,item,time,click\n"));
    CHECK(run_mixrec({"predict", run, "--out", run + "/predictions.csv"}, folder).code == 0);
    CHECK(run_mixrec({"predict", run, "--out", run + "/predictions.csv"}, folder).code == 0);
  }
}

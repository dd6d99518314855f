// One line of a request never touches another, and an answer says what was unknown or left out.
#include "mixrec/train/serve/score_lines.h"

#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"
#include "mixrec/data/json_reader.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/load_model.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <filesystem>
#include <limits>
#include <sstream>

using namespace mixrec;
using namespace mixrec::test;

namespace {

namespace fs = std::filesystem;

constexpr int64_t kDay = 86'400;

// A log of ten days with a price, an item list, and events of earlier days.
struct Run {
  TemporaryFolder folder;

  explicit Run(const std::string& snapshot = "day") {
    std::string text = "user,item,time,price,genres,click\n";
    for (int64_t k = 0; k < 200; ++k)
      text += concat(k % 4, ",i", k % 7, ",", 1'600'000'000 + k / 20 * kDay + k % 20 * 60, ",", k % 5, ".5,",
                     k % 3 ? "a|b" : "c", ",", k % 7 < 3 || k % 5 == 0 ? 1 : 0, "\n");
    fs::create_directories(folder / "log");
    write_file(folder / "log/log.csv", text);
    write_file(folder / "log/schema.json",
               R"({"log": {"files": "log.csv", "user": "user", "item": "item", "time": "time"}, "width": 4,
                   "tasks": {"click": "click"}, "snapshot": ")" +
                   snapshot +
                   R"(", "features": {"user": ["user"], "item": ["item"],
                       "context": [{"column": "price", "numeric": "standard"}, {"column": "genres", "list": "|"}]},
                   "histories": {"seen": {"length": 3, "from": [{"log": true, "signals": {"click": "click"}}],
                                          "features": ["item"], "gap": true}},
                   "split": {"by": "date", "test_days": 1, "validation_days": 1}})");
    const ChildResult result = run_mixrec({"train", "--data", folder / "log", "--out", path(), "--quiet",
                                           "--set", "model.name=mlp", "--set", "model.hidden=8"},
                                          folder);
    INFO(result.err);
    REQUIRE(result.code == 0);
  }
  std::string path() const { return folder / "run"; }

 private:
  template <class... T>
  static std::string concat(const T&... parts) {
    std::ostringstream out;
    (out << ... << parts);
    return out.str();
  }
};

// A model whose logits are infinite for items that it does not know.
struct FragileOptions {
  int64_t hidden = 8;

  void visit(OptionVisitor& v) { v.number("hidden", hidden, between(1, 4096), "of the MLP"); }
};
struct Fragile : Module {
  MlpModel mlp;

  Fragile(const FeatureSet& spec, const FragileOptions& options, Rng& rng)
      : mlp(spec, {.hidden = options.hidden}, rng) {}
  Tensor forward(const RequestBatch& batch, Pass& pass) const {
    std::vector<float> more;
    for (const int64_t id : batch.features[1].ids.to_vector<int64_t>())
      more.push_back(id == kUnknownRow && !pass.training ? std::numeric_limits<float>::infinity() : 0.0f);
    return mlp.forward(batch, pass) + Tensor::from(more, {batch.candidates, 1});
  }
  void visit(Visitor& v) { mlp.visit(v); }
};

const Run& day_run() {
  static const Run run;
  return run;
}

std::vector<std::string> answers(const Scorer& scorer, const std::string& lines) {
  std::istringstream in(lines);
  std::string out;
  score_lines(scorer, in, [&](const std::string& text) { out += text; });
  std::vector<std::string> each;
  std::istringstream split(out);
  for (std::string line; std::getline(split, line);) each.push_back(line);
  return each;
}

std::string answer(const Scorer& scorer, const std::string& line) {
  return answer_score_line(scorer, line, 1);
}

bool holds(const std::string& text, const std::string& part) {
  INFO(text);
  const bool found = text.find(part) != std::string::npos;
  CHECK_MESSAGE(found, "not found: ", part);
  return found;
}

const std::string kGood = R"({"user": "1", "candidates": ["i1", "i2"]})";

// Lines that cannot be answered.
std::vector<std::string> bad_lines() {
  return {"{\"candidates\":[\"caf\xe9\"]}",
          "\xff\xfe",
          "{\"candidates\":[\"\xed\xa0\x80\"]}",
          "{\"\xc3\": 1}",
          "{\"candidates\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}",
          std::string(100'000, '{'),
          R"({"candidates": ["i1"], "values": {"price": 1e39}})",
          R"({"candidates": ["i1"], "values": {"price": 1e999}})",
          R"({"candidates": ["i1"], "values": {"price": "nan"}})",
          R"({"candidates": ["i1"], "time": 1e300})",
          R"({"candidates": ["i1"], "candidates": ["i2"]})",
          R"({"candidates": [{"item": null}]})",
          R"({"candidates": ["i1"]} {})",
          "[]",
          "nan"};
}

}  // namespace

TEST_SUITE("score lines") {
  TEST_CASE("a line that cannot be answered is an error of its own, in valid JSON") {
    const Scorer scorer(day_run().path());
    const std::string good = answer(scorer, kGood).substr(10);
    holds(good, R"("probabilities":{"click":[0.)");
    std::string lines;
    for (const std::string& bad : bad_lines()) lines += bad + "\n" + kGood + "\n";
    const auto all = answers(scorer, lines);
    REQUIRE(all.size() == 2 * bad_lines().size());
    for (size_t l = 0; l < all.size(); ++l) {
      INFO("line ", l + 1, ": ", all[l]);
      CHECK(is_utf8(all[l]));
      CHECK(all[l].size() < 5000);
      JsonObject object = JsonValue::parse(all[l], "answer").object();
      CHECK(object.value("line").whole() == static_cast<int64_t>(l) + 1);
      CHECK(object.has("error") == (l % 2 == 0));
      if (l % 2) CHECK(all[l].substr(all[l].find("\"prob")) == good.substr(good.find("\"prob")));
    }
    holds(all[0], R"(caf\\xE9)");
  }

  TEST_CASE("the command answers every line, to a file too, whatever one of sixty is") {
    const Run& run = day_run();
    for (const std::string& bad : {bad_lines()[0], bad_lines()[4]}) {
      std::string lines;
      for (int l = 1; l <= 60; ++l) lines += (l == 40 ? bad : kGood) + "\n";
      write_file(run.folder / "in.jsonl", lines);
      for (const std::string threads : {"1", "2"}) {
        fs::remove(run.folder / "out.jsonl");
        const ChildResult result = run_mixrec({"score", "--run", run.path(), "--in", run.folder / "in.jsonl",
                                               "--out", run.folder / "out.jsonl", "--threads", threads},
                                              run.folder);
        INFO(result.err);
        CHECK(result.code == 0);
        const std::string out = read_file(run.folder / "out.jsonl");
        CHECK(std::count(out.begin(), out.end(), '\n') == 60);
        holds(out, R"({"line":39,"probabilities")");
        holds(out, R"({"line":40,"error":")");
        holds(out, R"({"line":60,"probabilities")");
      }
    }
    const ChildResult folder =
        run_mixrec({"score", "--run", run.path(), "--in", run.folder.path()}, run.folder);
    CHECK(folder.code == 1);
    holds(folder.err, "is a folder");
  }

  TEST_CASE("a probability that is not finite is an error of its line, never a number that is none") {
    const std::vector<ModelEntry> models{
        model_entry<Fragile, FragileOptions>("fragile", "breaks on unknown items")};
    const Run& run = day_run();
    Config config = small_config(run.folder / "log");
    config.train.epochs = 1;
    config.model.name = "fragile";
    fs::remove_all(run.folder / "fragile");
    const Dataset data = open_data(config.data);
    const auto model = build_model(config, data.spec(), models);
    fit_model(*model, data, {.config = config, .out = run.folder / "fragile", .quiet = true});
    const Scorer scorer(run.folder / "fragile", {}, models);
    const auto all = answers(scorer, kGood + "\n" + R"({"candidates": ["i1", "new"]})" + "\n" + kGood + "\n");
    REQUIRE(all.size() == 3);
    CHECK(all[1] ==
          R"({"line":2,"error":"candidate 1: the model's 'click' is not finite; a number of the request may )"
          R"(be too large for the model"})");
    CHECK(all[0].substr(10) == all[2].substr(10));
    CHECK_THROWS_AS(scorer.score({.candidates = {"new"}}), Error);
  }

  TEST_CASE("unknown values are counted by feature, missing ones are not") {
    const Scorer scorer(day_run().path());
    const auto unknown = [&](const std::string& line) {
      const std::string text = answer(scorer, line);
      const size_t at = text.find(R"("unknown":)");
      return at == std::string::npos ? text.find("error") == std::string::npos ? "" : text
                                     : text.substr(at + 10, text.find('}', at) - at - 9);
    };
    CHECK(unknown(R"({"user": "1", "candidates": ["i1", "i2"]})") == "");
    CHECK(unknown(R"({"user": "1", "candidates": ["i1", "new", "newer"]})") == R"({"item":2})");
    CHECK(unknown(R"({"user": "nobody", "candidates": ["i1"]})") == R"({"user":1})");
    CHECK(unknown(R"({"user": "1", "history": ["new", {"item": "i1"}], "candidates": ["new"]})") ==
          R"({"item":2})");
    CHECK(unknown(R"({"user": "1", "values": {"genres": ["a", "x", "y"]}, "candidates": ["i1"]})") ==
          R"({"genres":2})");
    CHECK(unknown(R"({"user": "1", "values": {"genres": null, "price": null}, "candidates": ["i1"]})") == "");
    CHECK(unknown(R"({"candidates": ["i1"]})") == "");
  }

  TEST_CASE("events that do not lie before the request are left out, as training does, and counted") {
    const int64_t now = 1'600'000'000 + 3 * kDay;
    const auto line = [&](const std::vector<int64_t>& times) {
      std::string text = "{\"user\": \"1\", \"time\": " + std::to_string(now) + ", \"history\": [";
      for (size_t e = 0; e < times.size(); ++e)
        text += (e ? ", " : "") + std::string("{\"item\": \"i") + std::to_string(e) +
                "\", \"time\": " + std::to_string(times[e]) + "}";
      return text + "], \"candidates\": [\"i1\", \"i3\"]}";
    };
    const auto probabilities = [](const std::string& text) {
      const size_t at = text.find("\"prob");
      return text.substr(at, text.find('}', at) - at);
    };
    const int64_t day = now / kDay * kDay;
    {
      const Scorer scorer(day_run().path());
      const std::string before = answer(scorer, line({day - 900, day - 1}));
      CHECK(before.find("later_events") == std::string::npos);
      for (const std::vector<int64_t>& late :
           {std::vector<int64_t>{day}, {now - 1, now}, {now, now + kDay, now + 9}}) {
        std::vector<int64_t> all{day - 900, day - 1};
        all.insert(all.end(), late.begin(), late.end());
        std::sort(all.begin(), all.end());
        const std::string after = answer(scorer, line(all));
        CHECK(probabilities(after) == probabilities(before));
        holds(after, R"("later_events":{"seen":)" + std::to_string(late.size()) + "}");
      }
      // Only events are left out that training would: without a time nothing is known.
      CHECK(answer(scorer,
                   R"({"user": "1", "history": [{"item": "i1", "time": 9999999999}], "candidates": ["i1"]})")
                .find("later_events") == std::string::npos);
    }
    const Run run("time");
    const Scorer scorer(run.path());
    const std::string before = answer(scorer, line({day - 1, now - 1}));
    CHECK(before.find("later_events") == std::string::npos);
    const std::string after = answer(scorer, line({day - 1, now - 1, now}));
    CHECK(probabilities(after) == probabilities(before));
    holds(after, R"("later_events":{"seen":1})");
  }

  TEST_CASE("null is a missing cell wherever a value may stand; an item is named once") {
    const Scorer scorer(day_run().path());
    const auto same = [&](const std::string& with, const std::string& without) {
      CHECK(answer(scorer, with) == answer(scorer, without));
    };
    same(R"({"user": "1", "time": null, "candidates": ["i1"]})", R"({"user": "1", "candidates": ["i1"]})");
    for (const char* missing :
         {R"("history": null)", R"("values": null)", R"("key": null)", R"("history": {"seen": null})"})
      same(R"({"user": "1", )" + std::string(missing) + R"(, "candidates": ["i1"]})",
           R"({"user": "1", "candidates": ["i1"]})");
    same(R"({"user": "1", "history": [{"item": "i1", "time": null, "click": null}], "candidates": ["i1"]})",
         R"({"user": "1", "history": ["i1"], "candidates": ["i1"]})");
    same(R"({"user": "1", "values": {"price": null}, "candidates": ["i1"]})",
         R"({"user": "1", "candidates": ["i1"]})");
    holds(answer(scorer, R"({"history": {"sene": null}, "candidates": ["i1"]})"), "sene");
    holds(answer(scorer, R"({"candidates": [{"item": "i1", "item": "i2"}]})"), "stands twice");
  }
}

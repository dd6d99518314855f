// The scorer of a run against its evaluation: plain rows, raw values, lines of JSON, kept user sides, many threads.
#include "mixrec/train/serve/scorer.h"

#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/storage.h"
#include "mixrec/data/csv_reader.h"
#include "mixrec/models/list.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/skip.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/evaluate.h"
#include "mixrec/train/load_model.h"
#include "mixrec/train/serve/recorded_pass.h"
#include "mixrec/train/serve/score_lines.h"
#include "mixrec/train/verify.h"

#include <atomic>
#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>
#include <map>
#include <sstream>
#include <thread>

using namespace mixrec;
using namespace mixrec::test;

namespace {

// A trained run of a model by its name, on the small log; negatives of the first task are thinned out.
struct Run {
  explicit Run(const std::string& model, const std::string& options = "{}") {
    data = write_small_data(folder);
    std::string schema = read_file(data + "/schema.json");
    const std::string rule = R"("liked": "liked == 1")";
    schema.replace(schema.find(rule), rule.size(),
                   R"("liked": {"label": "liked == 1", "kept_negatives": 0.5})");
    write_file(data + "/schema.json", schema);
    Config config = small_config(data);
    config.train.epochs = 1;
    config.model.name = model;
    config.model.options.text = options;
    const Dataset set = open_data(config.data);
    const auto built = build_model(config, set.spec(), {});
    fit_model(*built, set, {.config = config, .out = path(), .quiet = true});
  }
  std::string path() const { return folder / "run"; }

  TemporaryFolder folder;
  std::string data;
};

const std::string kUiOptions =
    R"({"heads": 4, "width": 8, "layers": 2, "event_width": 4, "pooled_history": false, "table_deviation": 0.2})";
const Run& ui_run() {
  static const Run run("ui_mixformer", kUiOptions);
  return run;
}

ScoreRequest some_request(int user = 3) {
  return {.user = std::to_string(user),
          .history = {"101", {"104", {}, {{"liked", 1}}}, "nothing"},
          .candidates = {"100", "113", "102", "never"}};
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("scorer") {
  TEST_CASE("gives the probabilities of evaluation, from batches and from the raw log") {
    for (const char* name : {"mixformer", "mlp", "ui_mixformer"}) {
      const Run run(name, std::string(name) == "mlp" ? R"({"hidden": 8})" : kUiOptions);
      const Scorer scorer(run.path());
      Config config = load_config(run.path() + "/config.json", {});
      const Dataset data = open_data(config.data);
      const RunFolder folder = RunFolder::resume(run.path());
      const auto loaded = load_model(folder, read_record(folder), config, data.spec(), kCpu, {});

      // The log's rows in raw values; histories are the user's rows of earlier days of the training part.
      struct Row {
        std::string user, item, liked;
        int64_t day;
      };
      std::vector<Row> rows;
      CsvReader reader(run.data + "/log.csv", {});
      while (reader.next())
        rows.push_back({std::string(reader.cell(0)), std::string(reader.cell(1)), std::string(reader.cell(3)),
                        std::stoll(std::string(reader.cell(2))) / 86'400});
      int64_t compared = 0;
      for_each_prediction(*loaded.model, data, Split::test, {.batch_size = 16},
                          [&](const RequestBatch& batch, std::span<const float> logits) {
                            const Scores of_batch = scorer.score(batch);
                            for (size_t c = 0; c < batch.row.size(); ++c) {
                              const Row& row = rows[static_cast<size_t>(batch.row[c])];
                              ScoreRequest request{.user = row.user, .candidates = {Candidate(row.item)}};
                              for (const Row& event : rows)
                                if (event.user == row.user && event.day < 6)
                                  request.history.push_back({event.item, {}, {{"liked", event.liked}}});
                              const Scores raw = scorer.score(request);
                              for (size_t t = 0; t < 2; ++t) {
                                const double expected = 1 / (1 + std::exp(-double{logits[2 * c + t]}));
                                CHECK(of_batch(c, t) == doctest::Approx(expected).epsilon(1e-6));
                                CHECK(raw(0, t) == doctest::Approx(expected).epsilon(1e-5));
                                ++compared;
                              }
                            }
                          });
      CHECK(compared == 120);
    }
  }

  TEST_CASE("a kept user side gives the same bits, also for another page of candidates") {
    const Scorer scorer(ui_run().path());
    ScoreRequest request = some_request();
    const std::vector<float> plain = scorer.score(request).values();
    CHECK(scorer.score(request, "3@now").values() == plain);
    CHECK(scorer.score(request, "3@now").values() == plain);
    request.candidates = {"107", "100"};
    const std::vector<float> page = scorer.score(request).values();
    CHECK(scorer.score(request, "3@now").values() == page);
    CHECK(scorer.cache_stats().hits == 2);
    CHECK(scorer.cache_stats().misses == 1);
    // The same promise for encoded batches.
    CHECK(scorer.score(scorer.encoder().encode(request), "3@now").values() == page);
    // A known key is believed: the user's values are not looked at again.
    request.user = "5";
    CHECK(scorer.score(request, "3@now").values() == page);
    CHECK(scorer.score(request).values() != page);
  }

  TEST_CASE("unknown values of a user are counted also where the user's side was kept") {
    for (const bool with_line : {false, true}) {
      const Scorer scorer(ui_run().path());
      const auto unknown = [&](const std::string& candidate) {
        EncodeNotes notes;
        ScoreRequest request{.user = "nobody", .history = {"not", "101", "known"}};
        request.candidates.emplace_back(candidate);
        if (!with_line) return scorer.score(request, "nobody@now", &notes), notes.unknown;
        const std::string line =
            R"({"user": "nobody", "history": ["not", "101", "known"], "candidates": [")" + candidate +
            R"("], "key": "nobody@now"})";
        const std::string text = answer_score_line(scorer, line, 1);
        std::map<std::string, int64_t> counts;
        for (const char* name : {"user", "item"})
          if (const size_t at = text.find(std::string("\"") + name + "\":"); at != std::string::npos)
            counts[name] = std::stoll(text.substr(at + 7));
        return counts;
      };
      using Counts = std::map<std::string, int64_t>;
      CHECK(unknown("100") == Counts{{"user", 1}, {"item", 2}});
      CHECK(unknown("100") == Counts{{"user", 1}, {"item", 2}});
      CHECK(unknown("never") == Counts{{"user", 1}, {"item", 3}});
      CHECK(scorer.cache_stats().hits == 2);
    }
  }

  TEST_CASE("padding to size buckets changes no bit of a request's probabilities") {
    CHECK(size_bucket(0) == 8);
    CHECK(size_bucket(7) == 8);
    CHECK(size_bucket(8) == 16);
    CHECK(size_bucket(500) == 512);
    CHECK(size_bucket(512) == 576);
    const Scorer scorer(ui_run().path());
    const FeatureSet& spec = scorer.encoder().spec();
    for (const size_t candidates : {1, 4, 8, 500})
      for (const bool history : {false, true}) {
        ScoreRequest request = some_request();
        if (!history) request.history.clear();
        request.candidates.clear();
        for (size_t c = 0; c < candidates; ++c) request.candidates.emplace_back(std::to_string(100 + c % 17));
        const RequestBatch batch = scorer.encoder().encode(request), padded = padded_to_buckets(batch, spec);
        padded.validate(spec);
        CHECK(padded.candidates == size_bucket(batch.candidates));
        std::vector<float> p = scorer.score(padded).values();
        p.resize(candidates * 2);
        CHECK(p == scorer.score(batch).values());
      }
  }

  TEST_CASE("kept user sides stay within their bytes, the least recently used go first") {
    const ScoreRequest request = some_request();
    const size_t one = [&] {
      const Scorer scorer(ui_run().path());
      scorer.score(request, "a");
      return scorer.cache_stats().bytes;
    }();
    const Scorer scorer(ui_run().path(), {.cache_bytes = static_cast<int64_t>(3 * one + one / 2)});
    for (const char* key : {"a", "b", "c", "a", "d"}) scorer.score(request, key);
    CHECK(scorer.cache_stats().entries == 3);
    CHECK(scorer.cache_stats().bytes == 3 * one);
    scorer.score(request, "a");
    CHECK(scorer.cache_stats().hits == 2);
    scorer.score(request, "b");
    CHECK(scorer.cache_stats().hits == 2);
    const Scorer none(ui_run().path(), {.cache_bytes = 0});
    none.score(request, "a");
    CHECK(none.cache_stats().entries == 0);
  }

  TEST_CASE("many threads get the bits of one, and memory does not grow") {
    const Scorer scorer(ui_run().path(), {.cache_bytes = 1 << 16});
    std::vector<std::vector<float>> expected;
    for (int user = 0; user < 12; ++user) expected.push_back(scorer.score(some_request(user)).values());
    std::atomic<int> wrong{0};
    const auto work = [&](int calls) {
      std::vector<std::thread> threads;
      for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
          for (int i = 0; i < calls; ++i) {
            const int user = (i * 7 + t) % 12;
            const std::string key = i % 2 ? "user " + std::to_string(user) : "";
            wrong += scorer.score(some_request(user), key).values() != expected[static_cast<size_t>(user)];
          }
        });
      for (auto& thread : threads) thread.join();
    };
    work(100);
    const MemoryStats before = host_memory();
    work(400);
    const MemoryStats after = host_memory();
    CHECK(wrong == 0);
    CHECK(after.in_use <= before.in_use + (1 << 16));
    CHECK(after.in_use + after.cached <= before.in_use + before.cached + (1 << 18));
  }

  TEST_CASE("lines of JSON: answers in order, mistakes answered where they are") {
    const Scorer scorer(ui_run().path());
    const std::string lines =
        R"({"user": 3, "history": ["101", {"item": "104", "liked": true}, "nothing"], "candidates": [100, "113", {"item": 102}, "never"]}
{"user": "3", "candidates": []}

{"user": "3", "candidates": ["100"], "histroy": []}
{"user": "3", "values": {"mood": 1}, "candidates": ["100"]}
{"user": "3", "candidates": [{"item": "100", "colour": "red"}]}
{"user": "3", "candidates": [{"item": [1]}]}
{"user": "3", "history": [{"item": "101", "liked": "much"}], "candidates": ["100"]}
{"user": "3", "candidates": ["100"
{"user": "3", "history": ["not", "one", "known"], "candidates": ["100"], "key": "3@now"})";
    for (const int threads : {1, 2}) {
      const int before = num_threads();
      set_num_threads(threads);
      std::istringstream in(lines);
      std::string out;
      CHECK(score_lines(scorer, in, [&](const std::string& text) { out += text; }) == 9);
      set_num_threads(before);
      std::istringstream answers(out);
      std::vector<std::string> answer;
      for (std::string line; std::getline(answers, line);) answer.push_back(line);
      REQUIRE(answer.size() == 9);
      const Scores expected = scorer.score(some_request());
      std::ostringstream first;
      first.precision(9);
      CHECK(holds(answer[0], R"({"line":1,"probabilities":{"liked":[)"));
      float liked = 0;
      REQUIRE(std::sscanf(answer[0].c_str(), R"({"line":1,"probabilities":{"liked":[%f)", &liked) == 1);
      CHECK(liked == expected(0, 0));
      const char* errors[] = {"no candidate",
                              "unknown key 'histroy'; did you mean 'history'?",
                              "no feature 'mood'",
                              "candidate 0 has no feature 'colour'",
                              "needs a text",
                              "event 0, signal 'liked': 'much'",
                              "line 9 is not valid JSON"};
      for (size_t e = 0; e < 7; ++e) {
        INFO(answer[e + 1]);
        CHECK(holds(answer[e + 1], errors[e]));
        CHECK(holds(answer[e + 1], R"("error":")"));
      }
      CHECK(holds(answer[8], R"({"line":10,"probabilities")"));
    }
  }

  TEST_CASE("a scorer needs the run folder alone, and says what it lacks") {
    const Run run("mlp", R"({"hidden": 8})");
    const std::vector<float> before = Scorer(run.path()).score(some_request()).values();
    std::filesystem::remove_all(run.data);
    CHECK(Scorer(run.path()).score(some_request()).values() == before);
    std::filesystem::remove_all(run.path() + "/encoders");
    CHECK(holds(message_of([&] { Scorer scorer(run.path()); }), "encoders/index.json"));
  }

  TEST_CASE("verify: every way to compute the same rows agrees within its bounds") {
    const auto rows = verify({.run = ui_run().path(), .data = "", .rows = 40}, {});
    std::map<std::string, VerifyRow> by_way;
    for (const VerifyRow& row : rows) {
      INFO(row.way, ": ", row.ulps, " ulps, AUC ", row.auc);
      CHECK(row.holds());
      by_way[row.way] = row;
    }
    for (const char* way : {"expanded", "masked", "decoupled", "scorer", "cached with scorer",
                            "evaluation bf16", "scorer bf16"})
      CHECK(by_way.count(way));
    CHECK(by_way["evaluation bf16"].ulps > 0);
    CHECK(by_way["cached with scorer"].ulps == 0);
    CHECK(ulps_between(1.0f, std::nextafter(1.0f, 2.0f)) == 1);
    if (cuda::device_count() == 0) {
      CHECK(!by_way["scorer CUDA"].skipped.empty());
      skip("verify on a card: " + cuda::unavailable_reason());
    }
  }
}

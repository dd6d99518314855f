// Runs that earlier releases wrote (tests/golden/format_*): read as they were meant, or refused with a sentence.
#include "mixrec/tests/trainer_setup.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

using namespace mixrec;
using namespace mixrec::test;
namespace fs = std::filesystem;

namespace {

struct Format1 {
  Format1() { fs::copy("tests/golden/format_1", folder / "old", fs::copy_options::recursive); }
  ChildResult run(std::vector<std::string> arguments) { return run_mixrec(std::move(arguments), folder); }
  std::string operator/(const std::string& name) const { return folder / "old/" + name; }

  TemporaryFolder folder;
};

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<double> numbers_of(const std::string& text) {
  std::vector<double> all;
  for (size_t at = 0; at < text.size();) {
    const bool starts =
        std::isdigit(static_cast<unsigned char>(text[at])) &&
        (at == 0 || (!std::isalnum(static_cast<unsigned char>(text[at - 1])) && text[at - 1] != '_'));
    if (!starts) {
      ++at;
      continue;
    }
    char* end = nullptr;
    all.push_back(std::strtod(text.c_str() + at, &end));
    at = static_cast<size_t>(end - text.c_str());
  }
  return all;
}

void check_near(const std::vector<double>& got, const std::vector<double>& expected, double within) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - expected[i]) <= within);
}

std::string metric(const std::string& json, const std::string& task, const std::string& name) {
  const size_t of_task = json.find("\"" + task + "\":{"), at = json.find("\"" + name + "\":", of_task);
  return json.substr(at, json.find_first_of(",}", at) - at);
}

}  // namespace

TEST_SUITE("run formats") {
  TEST_CASE("a finished run of format 1 is read with the encoders that it holds") {
    Format1 old;
    for (const std::string model : {"mlp", "mixformer"}) {
      CAPTURE(model);
      const std::string run = old / (model + "_finished");
      for (const std::string split : {"test", "validation"}) {
        const ChildResult eval = old.run({"eval", run, "--data", old / "log", "--split", split});
        CAPTURE(eval.err);
        REQUIRE(eval.code == 0);
        const std::string expected = read_file(old / ("expected/" + model + "." + split + ".eval.json"));
        for (const char* task : {"click", "liked"})
          for (const char* name : {"auc", "uauc", "log_loss", "calibration"})
            check_near(numbers_of(metric(eval.out, task, name)), numbers_of(metric(expected, task, name)),
                       1e-5);
      }
      const ChildResult answers = old.run({"score", "--run", run, "--in", old / "requests.jsonl"});
      CAPTURE(answers.err);
      REQUIRE(answers.code == 0);
      std::istringstream got(answers.out),
          expected(read_file(old / ("expected/" + model + ".answers.jsonl")));
      for (std::string a, b; std::getline(expected, b);) {
        REQUIRE(std::getline(got, a));
        const auto probabilities = [](const std::string& line) {
          const size_t at = line.find("\"probabilities\"");
          return line.substr(at, line.find("}", at) - at);
        };
        check_near(numbers_of(probabilities(a)), numbers_of(probabilities(b)), 1e-5);
      }
      // In f32: of 33 rows one pair that bf16 swaps is more than its bound of the AUC.
      const ChildResult verified = old.run({"verify", run, "--data", old / "log"});
      CHECK(holds(verified.out, "\nscorer "));
      CHECK_FALSE(holds(verified.out.substr(0, verified.out.find("evaluation bf16")), "FAILED"));
    }
  }

  TEST_CASE("rows of format 1 keep their probabilities in a log of another order") {
    Format1 old;
    const std::string run = old / "mlp_finished";
    std::vector<std::string> lines;
    std::istringstream in(read_file(old / "log/log.csv"));
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    const auto predicted = [&] {
      const ChildResult result =
          old.run({"predict", run, "--data", old / "log", "--out", old.folder / "p.csv"});
      CAPTURE(result.err);
      REQUIRE(result.code == 0);
      std::vector<std::string> rows;
      std::istringstream csv(read_file(old.folder / "p.csv"));
      for (std::string line; std::getline(csv, line);) rows.push_back(line.substr(line.find(',')));
      std::sort(rows.begin(), rows.end());
      return rows;
    };
    const auto before = predicted();
    std::string text = lines[0] + "\n";
    for (size_t l = lines.size() - 1; l > 0; --l) text += lines[l] + "\n";
    write_file(old / "log/log.csv", text);
    CHECK(predicted() == before);
    // Its schema is not in the run, so another one is refused.
    std::string schema = read_file(old / "log/schema.json");
    schema.replace(schema.find("\"quantiles\": 3"), 14, "\"quantiles\": 4");
    write_file(old / "log/schema.json", schema);
    CHECK(holds(old.run({"eval", run, "--data", old / "log"}).err,
                "the schema has other features or histories"));
  }

  TEST_CASE(
      "a half-trained run of format 1, which does not say what it was trained on, is refused with a "
      "sentence") {
    Format1 old;
    for (const std::string run : {"mlp_half", "mixformer_half"}) {
      const ChildResult resumed = old.run({"train", "--out", old / run, "--resume", "--data", old / "log"});
      CHECK(resumed.code == 1);
      CHECK(holds(resumed.err, "is of format 1, which does not say what data it was trained on"));
      CHECK(old.run({"eval", old / run, "--data", old / "log"}).code == 1);
    }
    // Nor is it read when its encoders are gone.
    fs::remove_all(old / "mlp_finished/features");
    CHECK(holds(old.run({"eval", old / "mlp_finished", "--data", old / "log"}).err, "is of format 1"));
  }
}

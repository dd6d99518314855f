// What a person sees of the command line itself, and at the end of a run.
#include "mixrec/train/cli.h"

#include "mixrec/core/version.h"
#include "mixrec/models/list.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/temporary_folder.h"
#include "mixrec/train/summary.h"

#include <cmath>
#include <cstdio>
#include <doctest/doctest.h>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>
#include <unistd.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

// The exit code of a command, and what it wrote to both streams.
struct Said {
  int code = 0;
  std::string out, err;
};

std::string captured(std::FILE* stream, int descriptor, const std::string& path,
                     const std::function<void()>& run) {
  std::fflush(stream);
  const int kept = ::dup(descriptor);
  std::FILE* file = std::fopen(path.c_str(), "w");
  ::dup2(::fileno(file), descriptor);
  run();
  std::fflush(stream);
  ::dup2(kept, descriptor);
  ::close(kept);
  std::fclose(file);
  return read_file(path);
}

Said run_cli(const std::vector<const char*>& arguments, const std::vector<ModelEntry>& own = {}) {
  const TemporaryFolder folder;
  Said said;
  said.err = captured(stderr, STDERR_FILENO, folder / "err", [&] {
    said.out = captured(stdout, STDOUT_FILENO, folder / "out",
                        [&] { said.code = cli(static_cast<int>(arguments.size()), arguments.data(), own); });
  });
  return said;
}

size_t longest_line(const std::string& text) {
  std::istringstream lines(text);
  size_t longest = 0;
  for (std::string line; std::getline(lines, line);) longest = std::max(longest, line.size());
  return longest;
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("command line") {
  TEST_CASE("no command: the help, as wrong usage") {
    const Said said = run_cli({"mixrec"});
    CHECK(said.code == 2);
    CHECK(said.out.empty());
    CHECK(holds(said.err, "Examples:"));
    for (const char* command :
         {"train", "eval", "predict", "score", "verify", "prepare", "inspect", "simulate", "models"})
      CHECK(holds(said.err, std::string("\n  ") + command + " "));
  }

  TEST_CASE("the help of train names the model that is the default: the only own one, else the library's") {
    std::vector<ModelEntry> own{find_model("mlp")};
    own[0].name = "mine";
    const auto help = [&] { return run_cli({"mixrec", "train", "--help"}, own).out; };
    CHECK(holds(help(), "model.name = \"mine\""));
    CHECK_FALSE(holds(help(), "model.name = \"mixformer\""));
    own.push_back(own[0]);
    own[1].name = "another";
    CHECK(holds(help(), "model.name = \"mixformer\""));
    own.clear();
    CHECK(holds(help(), "model.name = \"mixformer\""));
  }

  TEST_CASE("--version is one line that begins with name and version") {
    const Said said = run_cli({"mixrec", "--version"});
    CHECK(said.code == 0);
    CHECK(said.out == version_text() + "\n");
    CHECK(said.out.starts_with("mixrec 0."));
  }

  TEST_CASE("each command's help speaks of that command") {
    for (const std::string command :
         {"train", "eval", "predict", "score", "verify", "prepare", "inspect", "simulate", "models"}) {
      const Said said = run_cli({"mixrec", command.c_str(), "--help"});
      CAPTURE(command);
      CHECK(said.code == 0);
      if (command != "score") CHECK(holds(said.out, "\n  mixrec " + command));
      for (const std::string other : {"train", "eval", "predict", "inspect", "simulate"})
        if (other != command) CHECK(!holds(said.out, "\n  mixrec " + other + " "));
    }
  }

  TEST_CASE("words that are no command and no option get the nearest one, numbers below 0 a short sentence") {
    const auto error = [](std::vector<const char*> arguments) {
      arguments.insert(arguments.begin(), "mixrec");
      const Said said = run_cli(arguments);
      CHECK(said.code == 2);
      CHECK(said.out.empty());
      CHECK(longest_line(said.err) <= 100);
      return said.err;
    };
    CHECK(error({"trian"}).starts_with("mixrec: there is no command 'trian'; did you mean train?\n"));
    CHECK(error({"evel", "run"}).starts_with("mixrec: there is no command 'evel'; did you mean eval?\n"));
    CHECK(error({"train", "--data", "x", "--sett", "a=1"})
              .starts_with("mixrec: mixrec train has no option --sett; did you mean --set?\n"));
    CHECK(error({"score", "--run", "r", "--treads=2"})
              .starts_with("mixrec: mixrec score has no option --treads; "));
    CHECK(
        error({"--verson"}).starts_with("mixrec: mixrec has no option --verson; did you mean --version?\n"));
    CHECK(holds(error({"eval"}), "run is required"));
    CHECK(holds(error({"train", "--data", "x", "--seed", "-1"}), "must be at least 0, got -1"));
    CHECK(holds(error({"verify", "run", "--rows", "0"}), "must be at least 1, got 0"));
    CHECK(holds(error({"score", "--run", "r", "--cache-mb", "-5"}), "must be at least 0, got -5"));
  }

  TEST_CASE("models is a table for people and lines of JSON for programs") {
    const Said table = run_cli({"mixrec", "models"});
    CHECK(holds(table.out, "mixformer            MixFormer: "));
    CHECK(holds(table.out, "heads 8, "));
    CHECK(!holds(table.out, "{"));
    const Said one = run_cli({"mixrec", "models", "mlp"});
    CHECK(one.out.starts_with("mlp  "));
    CHECK(holds(one.out, "model.dropout = 0.0"));
    CHECK(!holds(one.out, "mixformer"));
    CHECK(run_cli({"mixrec", "models", "--json"}).out.starts_with("{\"name\":\"mixformer\","));
    CHECK(holds(table.out, "target_attention"));
    CHECK(holds(table.out, "model.interaction.name"));
    const Said din = run_cli({"mixrec", "models", "din"});
    CHECK(holds(din.out, "model.interaction.name"));
    CHECK(holds(din.out, "model.sequence.softmax = false"));
    CHECK(holds(run_cli({"mixrec", "models", "--json"}).out, "\"kind\":\"sequence\"}"));
    CHECK(holds(run_cli({"mixrec", "models", "target_attention"}).out, "model.sequence.width = 32"));
    const Said none = run_cli({"mixrec", "models", "mpl"});
    CHECK(none.code == 1);
    CHECK(none.err.starts_with("mixrec: no model is named 'mpl'; did you mean 'mlp'?"));
    CHECK(!holds(none.err, "list.cpp"));
  }

  TEST_CASE("the summary of a run fits 80 columns, says what is missing and compares with a simulated log") {
    const TemporaryFolder folder;
    std::ofstream(folder / "bounds.json")
        << R"({"task": "click", "test": {"floor_auc": 0.6, "bayes_auc": 0.9, "mean_label": 0.1}})";
    Config config;
    config.data.path = folder.path();
    config.model.name = "mixformer";
    TaskSpec click, like;
    click.name = "click", like.name = "like";
    FitResult result;
    result.steps = 2734, result.parameters = 219'700, result.seconds = 101, result.samples_per_second = 9123;
    result.test.resize(2);
    result.test[0].rows = 50'000, result.test[0].positives = 9'000, result.test[0].auc = 0.84;
    result.test[0].user.mean = 0.71, result.test[0].log_loss = 0.4123, result.test[0].calibration = 1.01;
    result.test[1].rows = 10,
    result.test[1].auc = result.test[1].user.mean = std::numeric_limits<double>::quiet_NaN();
    const std::string text = summary_text(config, {click, like}, result, "runs/a");
    CHECK(text.starts_with("mixformer, 219.7k parameters: 2734 steps, 9.1k samples/s, 1:41 in all\n"));
    CHECK(holds(text, "click  0.8400  0.7100  0.4123    1.010        50000\n"));
    CHECK(holds(text, "like   -       -       "));
    CHECK(holds(text, "no row is positive"));
    CHECK(holds(text, "came 80 % of the way"));
    CHECK(holds(text, "\nIn runs/a:\n"));
    CHECK(longest_line(text) <= 80);
    result.test[0].auc = 0.55;
    CHECK(holds(summary_text(config, {click, like}, result, ""), "no better than popularity"));
    config.data.path = "";
    CHECK(!holds(summary_text(config, {click, like}, result, ""), "simulated"));
  }
}

#include "mixrec/train/cli.h"

#include "mixrec/core/parallel_for.h"
#include "mixrec/train/commands.h"
#include "mixrec/train/config.h"
#include "mixrec/train/device_choice.h"
#include "mixrec/train/signals.h"
#include "mixrec/train/verify.h"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>

namespace mixrec {

namespace {

constexpr int kError = 1, kUsage = 2;

constexpr const char* kExamples = R"(
Examples:
  mixrec simulate --rows 200000 --out demo/log              a log whose best reachable AUC is known
  mixrec train --config examples/configs/simulated/mixformer.json --data demo/log --out demo/run
  mixrec train --out demo/run --resume                      goes on after Ctrl-C, a crash or a kill
  mixrec eval demo/run --split validation
  mixrec predict demo/run --out probabilities.csv
  mixrec score --run demo/run < requests.jsonl              probabilities of candidates, line by line

'mixrec COMMAND --help' explains one command.)";

constexpr const char* kPredictColumns = R"(
One line per row of the log, in the log's order; rows that log.where or log.duplicates drop are absent.

  row      file and line: log.csv:2
  user, item, time, request
           the log's own cells; time is log.time's, else log.date's; time and request only where the log has them
  click    one column per task, under its name: the probability, as the shortest text of the same f32

A folder of --data needs no labels and no training rows; --split all predicts all of its rows.)";

std::string train_help() {
  return R"(
Examples:
  mixrec train --config c.json --data ml-1m                 runs/MODEL-DATE is made to hold the run
  mixrec train --config c.json --out runs/a --set model.layers=3 --set optimizer.lr=5e-4
  mixrec train --data ml-1m --set model.name=mlp            all else at its default

A run folder holds config.json (all that was asked), metrics.jsonl, TensorBoard events, checkpoint.safetensors
(to resume), best.safetensors (the chosen weights) and result.json, which is also the one line on stdout.

Keys of a configuration, with their defaults:
)" + describe_config();
}

void add_device(CLI::App& app, std::string& device, std::string& precision, const std::string& otherwise) {
  app.add_option("--device", device, "auto, cpu, cuda or cuda:N; default: " + otherwise)
      ->check([](const std::string& name) {
        return name == "auto" || parse_device(name) ? "" : "known are auto, cpu, cuda and cuda:N";
      });
  app.add_option("--precision", precision, "of activations; default: " + otherwise)
      ->check(CLI::IsMember({"f32", "bf16"}));
}

void add_train(CLI::App& app, TrainArguments& to) {
  app.add_option("--config", to.config, "configuration file (JSON)")->check(CLI::ExistingFile);
  app.add_option("--data", to.data, "folder of the data set");
  app.add_option("--out", to.out, "run folder to make; default runs/MODEL-DATE");
  app.add_option("--set", to.sets, "section.key=value over the file; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--seed", to.seed, "of weights, order and dropout")->check(CLI::NonNegativeNumber);
  app.add_option("--threads", to.threads, "default: OMP_NUM_THREADS or all cores")
      ->check(CLI::Range(1, kMostThreads));
  add_device(app, to.device, to.precision, "the configuration's");
  app.add_flag("--resume", to.resume, "continue the run in --out from its newest checkpoint");
  app.add_flag("--quiet", to.quiet, "no progress");
  app.footer(train_help());
  app.callback([&] {
    if (to.resume && to.out.empty()) throw CLI::ValidationError("--resume", "needs --out RUN");
    if (!to.resume && to.config.empty() && to.data.empty())
      throw CLI::ValidationError("train", "needs --config FILE or --data DIR");
  });
}

void add_run(CLI::App& app, RunArguments& to) {
  app.add_option("run", to.run, "run folder")->required();
  app.add_option("--data", to.data, "another folder with the same schema");
  app.add_option("--split", to.split, "rows to look at; refit is train and validation together")
      ->check(CLI::IsMember({"train", "validation", "test", "refit", "all"}))
      ->capture_default_str();
  add_device(app, to.device, to.precision, "the run's");
}

void add_simulate(CLI::App& app, SimulateOptions& to) {
  app.add_option("--out", to.out, "folder to write")->required();
  app.add_option("--rows", to.rows, "shown candidates")->capture_default_str();
  app.add_flag("--again", to.again, "in the place of a log that was simulated before");
  app.add_option("--seed", to.seed)->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--candidates-per-request", to.candidates_per_request)->capture_default_str();
  app.add_option("--users", to.users, "0 = one per 25 rows")->capture_default_str();
  app.add_option("--items", to.items)->capture_default_str();
  app.add_option("--categories", to.categories, "of items")->capture_default_str();
  app.add_option("--history-length", to.history_length, "events a user has")->capture_default_str();
  app.add_option("--days", to.days)->capture_default_str();
  app.add_option("--test-days", to.test_days, "the last of them")->capture_default_str();
  app.add_option("--click-rate", to.click_rate)->capture_default_str();
  app.add_flag(
      "--history-from-log", [&](int64_t) { to.history = SimulatedHistory::log; },
      "events are earlier rows of the log, not a file of their own");
  const std::string group = "Effects: standard deviation in the true logit";
  app.add_option("--popularity", to.popularity, "of the item")->group(group)->capture_default_str();
  app.add_option("--context", to.context, "hour, channel and placement")->group(group)->capture_default_str();
  app.add_option("--taste", to.taste, "user fields x item attributes")->group(group)->capture_default_str();
  app.add_option("--match", to.match, "events like the candidate")->group(group)->capture_default_str();
  app.add_option("--joint", to.joint, "as the user's segment decides")->group(group)->capture_default_str();
  app.footer(R"(
Example:
  mixrec simulate --rows 300000 --out log --match 2.5

Writes log.csv, its tables, schema.json, truth.csv (the true probability of every row) and bounds.json (the best
AUC that any model can reach). A training run on the folder prints how far from popularity to that bound it came.)");
}

void add_score(CLI::App& app, ScoreArguments& to) {
  app.add_option("--run", to.run, "run folder")->required();
  app.add_option("--in", to.in, "requests, one line of JSON each; - is stdin")->capture_default_str();
  app.add_option("--out", to.out, "answers, in the order of requests; - is stdout")->capture_default_str();
  app.add_option("--threads", to.threads, "default: OMP_NUM_THREADS or all cores")
      ->check(CLI::Range(1, kMostThreads));
  app.add_option("--cache-mb", to.cache_mb, "memory for kept user sides")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--graphs", to.graphs,
                 "on a card: sizes of requests whose work is recorded and kept; 0 = none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--data", to.data, "data folder, for runs that hold no features/ yet");
  add_device(app, to.device, to.precision, "auto and f32");
  app.footer(R"(
A request and its answer:
  {"user": "17", "time": 1651536000, "history": ["5", {"item": "9", "liked": 1}], "candidates": ["12", {"item": "13", "price": 9.5}]}
  {"line":1,"probabilities":{"click":[0.25,0.5]}}

Values are as in the data set's files.  "values": {...} holds user and context features, "key" a name for the user's state under
which its computation is kept (docs/decoupling.md).  A line that cannot be answered gets {"line":2,"error":"..."}.)");
}

void add_verify(CLI::App& app, VerifyArguments& to) {
  app.add_option("run", to.run, "run folder")->required();
  app.add_option("--rows", to.rows, "test rows to compare")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--data", to.data, "another folder with the same schema");
}

void add_data(CLI::App& app, DataArguments& to) {
  app.add_option("data", to.data, "folder of the data set")->required();
  app.add_option("--schema", to.schema,
                 "schema file; default: schema.json in the folder, or a bundled one that fits it");
}

// What a command prints is its result: a full disk behind stdout must not look like success.
int flushed(int code) {
  std::cout.flush();
  errno = 0;
  if (std::fflush(stdout) == 0 && !std::ferror(stdout) && std::cout) return code;
  std::fprintf(stderr, "mixrec: cannot write to stdout: %s\n",
               errno != 0 ? std::strerror(errno) : "some of the output is lost");
  return code == 0 ? kError : code;
}

// Runs `command` and turns its exceptions into one line and an exit code.
int guarded(const std::function<int()>& command) {
  const LostFileSignals lost_files;
  try {
    return flushed(command());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mixrec: %s\n", error.what());
    return kError;
  }
}

}  // namespace

int cli(int argc, const char* const* argv, const std::vector<ModelEntry>& own_models) {
  CLI::App app("mixrec: trains ranking models for recommendation on request-level logs.", "mixrec");
  app.require_subcommand(1);
  app.footer(kExamples);
  TrainArguments train;
  RunArguments eval, predict;
  DataArguments prepare, inspect;
  SimulateOptions simulate;
  ScoreArguments score;
  VerifyArguments verify;
  add_train(*app.add_subcommand("train", "trains a model and evaluates it on the test rows"), train);
  add_run(*app.add_subcommand("eval", "evaluates the weights that a run chose"), eval);
  CLI::App& predict_app = *app.add_subcommand("predict", "writes the probabilities of a log's rows as CSV");
  add_run(predict_app, predict);
  predict_app.add_option("--out", predict.out, "CSV file to write")->required();
  predict_app.footer(kPredictColumns);
  add_score(*app.add_subcommand("score", "answers requests, lines of JSON, with probabilities"), score);
  add_verify(*app.add_subcommand("verify", "compares all ways to compute a run's probabilities"), verify);
  CLI::App& prepare_app = *app.add_subcommand("prepare", "reads a data set into its packed form, once");
  add_data(prepare_app, prepare);
  prepare_app.add_flag("--again", prepare.again, "even when nothing changed");
  CLI::App& inspect_app = *app.add_subcommand("inspect", "says what is in a data set and what may bite");
  add_data(inspect_app, inspect);
  inspect_app.add_flag("--json", inspect.json, "as JSON");
  add_simulate(*app.add_subcommand("simulate", "writes a log whose truth is known"), simulate);
  app.add_subcommand("models", "lists the models and their options");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return flushed(app.exit(error) == 0 ? 0 : kUsage);
  }
  const std::string chosen = app.get_subcommands().front()->get_name();
  return guarded([&] {
    if (chosen == "train") return run_train(train, own_models);
    if (chosen == "eval") return run_eval(eval, own_models);
    if (chosen == "predict") return run_predict(predict, own_models);
    if (chosen == "score") return run_score(score, own_models);
    if (chosen == "verify") return run_verify(verify, own_models);
    if (chosen == "prepare") return run_prepare(prepare);
    if (chosen == "inspect") return run_inspect(inspect);
    if (chosen == "simulate") return run_simulate(simulate);
    return run_models(own_models);
  });
}

}  // namespace mixrec

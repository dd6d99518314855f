#include "mixrec/train/cli.h"

#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/printable.h"
#include "mixrec/core/version.h"
#include "mixrec/models/stack.h"
#include "mixrec/train/commands.h"
#include "mixrec/train/config.h"
#include "mixrec/train/device_choice.h"
#include "mixrec/train/signals.h"
#include "mixrec/train/verify.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>

namespace mixrec {

namespace {

constexpr int kError = 1, kUsage = 2;

// The bounds of the library's own validators are numbers of 300 digits.
const CLI::Validator kNotNegative(
    [](const std::string& text) { return text.starts_with('-') ? "must be at least 0, got " + text : ""; },
    "NONNEGATIVE");
const CLI::Validator kPositive(
    [](const std::string& text) {
      return text.starts_with('-') || text == "0" ? "must be at least 1, got " + text : "";
    },
    "POSITIVE");

constexpr const char* kExamples = R"(
Examples:
  mixrec simulate --rows 200000 --out log       a log whose best reachable AUC is known
  mixrec train --config examples/configs/simulated/mixformer.json --data log --out run
  mixrec train --out run --resume               goes on after Ctrl-C, a crash or a kill
  mixrec eval run --split validation
  mixrec score --run run < requests.jsonl       probabilities of candidates, line by line

'mixrec COMMAND --help' explains one command.)";

constexpr const char* kEvalHelp = R"(
Examples:
  mixrec eval run                               the test rows of the data that the run was trained on
  mixrec eval run --split validation
  mixrec eval run --data other-log              another log with the same schema
  mixrec eval run --device cpu                  a checkpoint has no device

Prints the metrics of each task, and as one line of JSON on stdout.  It evaluates best.safetensors: the weights of
the step that the validation rows chose, or the last ones.)";

constexpr const char* kPredictHelp = R"(
Examples:
  mixrec predict run --out probabilities.csv    of the test rows
  mixrec predict run --split all --data other-log --out other.csv

One line per row of the log, in the log's order; rows that log.where or log.duplicates drop are absent.

  row      file and line: log.csv:2
  user, item, time, request
           the log's own cells; time is log.time's, else log.date's; time and request only where the log has them
  click    one column per task, under its name: the probability, as the shortest text of the same f32

A folder of --data needs no labels and no training rows; --split all predicts all of its rows.)";

constexpr const char* kVerifyHelp = R"(
Example:
  mixrec verify run --rows 500

Computes the same probabilities in every way there is: by request and row by row, with the user's side kept and from
raw values, as score does.  Prints the largest differences; exit code 1 when one is larger than rounding explains.)";

constexpr const char* kPrepareHelp = R"(
Example:
  mixrec prepare log

train, eval and predict do it by themselves.  Prints the folder of the packed form: DATA/.mixrec, or below
~/.cache/mixrec where DATA cannot be written.)";

constexpr const char* kInspectHelp = R"(
Examples:
  mixrec inspect log
  mixrec inspect log --json > report.json

Counts, splits, labels, features and columns, and at the end warnings: what often makes a model look better or worse
than it is.)";

constexpr const char* kModelsHelp = R"(
Examples:
  mixrec models                                 every model, one line each, and its options
  mixrec models mixformer                       what each of its options is
  mixrec models target_attention                the same of a module that stacks are made of
  mixrec models --json                          lines of JSON, for programs)";

// With one model of its own a program means that one (resolve_config).
std::string train_help(const std::vector<ModelEntry>& own_models) {
  Config defaults;
  if (own_models.size() == 1) defaults.model.name = own_models[0].name;
  return R"(
Examples:
  mixrec train --config c.json --data ml-1m                 runs/MODEL-DATE is made to hold the run
  mixrec train --config c.json --out runs/a --set model.layers=3 --set optimizer.lr=5e-4
  mixrec train --data ml-1m --set model.name=mlp            all else at its default

A run folder holds config.json (all that was asked), metrics.jsonl, TensorBoard events, checkpoint.safetensors
(to resume), best.safetensors (the chosen weights) and result.json, which is also the one line on stdout.

Keys of a configuration, with their defaults:
)" + describe_options("", defaults);
}

void add_device(CLI::App& app, std::string& device, std::string& precision, const std::string& otherwise) {
  app.add_option("--device", device, "auto, cpu, cuda or cuda:N; default: " + otherwise)
      ->check([](const std::string& name) {
        return name == "auto" || parse_device(name) ? "" : "known are auto, cpu, cuda and cuda:N";
      });
  app.add_option("--precision", precision, "of activations; default: " + otherwise)
      ->check(CLI::IsMember({"f32", "bf16"}));
}

void add_train(CLI::App& app, TrainArguments& to, const std::vector<ModelEntry>& own_models) {
  app.add_option("--config", to.config, "configuration file (JSON)")->check(CLI::ExistingFile);
  app.add_option("--data", to.data, "folder of the data set");
  app.add_option("--out", to.out, "run folder to make; default runs/MODEL-DATE");
  app.add_option("--set", to.sets, "section.key=value over the file; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--seed", to.seed, "of weights, order and dropout")->check(kNotNegative);
  app.add_option("--threads", to.threads, "default: OMP_NUM_THREADS or all cores")
      ->check(CLI::Range(1, kMostThreads));
  add_device(app, to.device, to.precision, "the configuration's");
  app.add_flag("--resume", to.resume, "continue the run in --out from its newest checkpoint");
  app.add_flag("--quiet", to.quiet, "no progress");
  app.footer(train_help(own_models));
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
  app.add_option("--seed", to.seed)->check(kNotNegative)->capture_default_str();
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
      ->check(kNotNegative)
      ->capture_default_str();
  app.add_option("--graphs", to.graphs,
                 "on a GPU: sizes of requests whose work is recorded and kept; 0 = none")
      ->check(kNotNegative)
      ->capture_default_str();
  add_device(app, to.device, to.precision, "auto and f32");
  app.footer(R"(
A request and its answer:
  {"user": "17", "time": 1651536000, "history": ["5", {"item": "9", "liked": 1}], "candidates": ["12", {"item": "13", "price": 9.5}]}
  {"line":1,"probabilities":{"click":[0.25,0.5]}}

Values are as in the data set's files.  "values": {...} holds user and context features, "key" a name for the user's state under
which its computation is kept (docs/decoupling.md).  A line that cannot be answered gets {"line":2,"error":"..."}.
"unknown":{"item":2} counts values of a feature that the model does not know; "later_events":{"seen":1} events of a
history that do not lie before the request and were left out, as in training.)");
}

void add_verify(CLI::App& app, VerifyArguments& to) {
  app.add_option("run", to.run, "run folder")->required();
  app.add_option("--rows", to.rows, "test rows to compare")->check(kPositive)->capture_default_str();
  app.add_option("--data", to.data, "another folder with the same schema");
}

void add_data(CLI::App& app, DataArguments& to) {
  app.add_option("data", to.data, "folder of the data set")->required();
  app.add_option("--schema", to.schema,
                 "schema file; default: schema.json in the folder, or a bundled one that fits it");
  app.add_flag("--outside", to.outside,
               "files of the schema may lie outside the folder, by .., a full path or a link");
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

// Commands set the number of threads of the process; the program that called cli() gets its own back.
struct ThreadsRestored {
  int before = num_threads();
  ~ThreadsRestored() { set_num_threads(before); }
};

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

namespace {

// Where the arguments of all commands are parsed to.
struct Arguments {
  TrainArguments train;
  RunArguments eval, predict;
  DataArguments prepare, inspect;
  SimulateOptions simulate;
  ScoreArguments score;
  VerifyArguments verify;
  ModelsArguments models;
};

void add_commands(CLI::App& app, Arguments& to, const std::vector<ModelEntry>& own_models) {
  const auto command = [&](const char* name, const char* help, const char* footer) -> CLI::App& {
    CLI::App& added = *app.add_subcommand(name, help);
    added.footer(footer);
    return added;
  };
  add_train(command("train", "trains a model and evaluates it on the test rows", ""), to.train, own_models);
  add_run(command("eval", "evaluates the weights that a run chose", kEvalHelp), to.eval);
  CLI::App& predict = command("predict", "writes the probabilities of a log's rows as CSV", kPredictHelp);
  add_run(predict, to.predict);
  predict.add_option("--out", to.predict.out, "CSV file to write")->required();
  add_score(command("score", "answers requests, lines of JSON, with probabilities", ""), to.score);
  add_verify(command("verify", "compares all ways to compute a run's probabilities", kVerifyHelp), to.verify);
  CLI::App& prepare = command("prepare", "reads a data set into its packed form, once", kPrepareHelp);
  add_data(prepare, to.prepare);
  prepare.add_flag("--again", to.prepare.again, "even when nothing changed");
  CLI::App& inspect = command("inspect", "says what is in a data set and what may bite", kInspectHelp);
  add_data(inspect, to.inspect);
  inspect.add_flag("--json", to.inspect.json, "as JSON");
  add_simulate(command("simulate", "writes a log whose truth is known", ""), to.simulate);
  CLI::App& models = command("models", "lists models, modules of stacks, and their options", kModelsHelp);
  models.add_option("name", to.models.name, "of one model or module");
  models.add_flag("--json", to.models.json, "as lines of JSON");
}

// What the first word means that is no command and no option; "" when there is none.
std::string misspelled(const CLI::App& app, int argc, const char* const* argv) {
  const auto hint = [](const std::string& nearest) {
    return nearest.empty() ? std::string() : "; did you mean " + nearest + "?";
  };
  const CLI::App* command = nullptr;
  std::vector<std::string> names;
  for (const CLI::App* one : app.get_subcommands(nullptr)) {
    names.push_back(one->get_name());
    if (names.back() == argv[1]) command = one;
  }
  if (!command && *argv[1] != '-')
    return concat_message("there is no command '", printable(argv[1]), "'",
                          hint(nearest_name(argv[1], names)));
  names.clear();
  for (const CLI::Option* option : (command ? command : &app)->get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  for (int i = command ? 2 : 1; i < argc; ++i) {
    const std::string word(argv[i], std::strcspn(argv[i], "="));
    if (!word.starts_with("--") || word == "--" || std::count(names.begin(), names.end(), word)) continue;
    return concat_message(command ? "mixrec " + command->get_name() : "mixrec", " has no option ",
                          printable(word), hint(nearest_name(word, names)));
  }
  return "";
}

}  // namespace

int cli(int argc, const char* const* argv, const OwnParts& own) {
  const OwnModules modules(own.sequences, own.interactions);
  return cli(argc, argv, own.models);
}

int cli(int argc, const char* const* argv, const std::vector<ModelEntry>& own_models) {
  CLI::App app("mixrec: trains ranking models for recommendation on request-level logs.", "mixrec");
  app.require_subcommand(1);
  app.footer(kExamples);
  app.set_version_flag("--version", version_text());
  Arguments arguments;
  add_commands(app, arguments, own_models);
  if (argc <= 1) {
    std::fputs(app.help().c_str(), stderr);
    return kUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const std::string slip = error.get_exit_code() == 0 ? "" : misspelled(app, argc, argv);
    if (!slip.empty()) {
      std::fprintf(stderr, "mixrec: %s\nRun with --help for more information.\n", slip.c_str());
      return kUsage;
    }
    return flushed(app.exit(error) == 0 ? 0 : kUsage);
  }
  const std::string chosen = app.get_subcommands().front()->get_name();
  const ThreadsRestored threads;
  return guarded([&] {
    if (chosen == "train") return run_train(arguments.train, own_models);
    if (chosen == "eval") return run_eval(arguments.eval, own_models);
    if (chosen == "predict") return run_predict(arguments.predict, own_models);
    if (chosen == "score") return run_score(arguments.score, own_models);
    if (chosen == "verify") return run_verify(arguments.verify, own_models);
    if (chosen == "prepare") return run_prepare(arguments.prepare);
    if (chosen == "inspect") return run_inspect(arguments.inspect);
    if (chosen == "simulate") return run_simulate(arguments.simulate);
    return run_models(arguments.models, own_models);
  });
}

}  // namespace mixrec

#include "mixrec/train/commands.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/printable.h"
#include "mixrec/data/inspect/inspect.h"
#include "mixrec/models/list.h"
#include "mixrec/models/stack.h"
#include "mixrec/train/device_choice.h"
#include "mixrec/train/evaluate.h"
#include "mixrec/train/fit.h"
#include "mixrec/train/load_model.h"
#include "mixrec/train/open_data.h"
#include "mixrec/train/output_file.h"
#include "mixrec/train/predictions.h"
#include "mixrec/train/progress.h"
#include "mixrec/train/report.h"
#include "mixrec/train/run_data.h"
#include "mixrec/train/serve/score_lines.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace mixrec {

namespace {

namespace fs = std::filesystem;

void say(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

// A folder that can be found again from any other.
void make_absolute(DataConfig& data) {
  data.path = fs::absolute(data.path).lexically_normal();
  for (std::string& path : data.schema) path = fs::absolute(path).lexically_normal();
}

// config.json, which holds them, is JSON.
void check_paths(const DataConfig& data) {
  std::vector<std::string> paths = data.schema;
  paths.push_back(data.path);
  for (const std::string& path : paths)
    MR_CHECK(is_utf8(path), "the path '", printable(path),
             "' is not UTF-8, so that a run's config.json cannot hold it; rename it, or give a link to it");
}

std::string new_run_name(const std::string& model) {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char date[32];
  std::strftime(date, sizeof date, "%Y%m%d-%H%M%S", &utc);
  return "runs/" + model + "-" + date;
}

// The model's options with every default, so that a run means the same when a default changes.
void complete_model(ModelConfig& model, const std::vector<ModelEntry>& own_models) {
  auto options = nlohmann::ordered_json::parse(find_model(model.name, own_models).default_options);
  options.merge_patch(nlohmann::ordered_json::parse(model.options.text));
  model.options.text = options.dump();
}

// With one model of its own a program means that one, unless the configuration names another.
Config resolve_config(const TrainArguments& arguments, const std::vector<ModelEntry>& own_models) {
  std::vector<std::string> sets = arguments.sets;
  if (arguments.seed >= 0) sets.push_back("train.seed=" + std::to_string(arguments.seed));
  if (arguments.threads > 0) sets.push_back("train.threads=" + std::to_string(arguments.threads));
  if (!arguments.device.empty()) sets.push_back("train.device=" + arguments.device);
  if (!arguments.precision.empty()) sets.push_back("train.precision=" + arguments.precision);
  std::string file = arguments.config;
  if (file.empty() && arguments.resume) file = RunFolder::resume(arguments.out).config_path();
  Config config = load_config(file, sets, own_models.size() == 1 ? own_models[0].name : ModelConfig{}.name);
  if (!arguments.data.empty()) config.data.path = arguments.data;
  MR_CHECK(!config.data.path.empty(), "no data folder is named: give --data or data.path");
  make_absolute(config.data);
  check_paths(config.data);
  complete_model(config.model, own_models);
  return config;
}

Split split_of(const std::string& name) {
  for (const Split split : {Split::train, Split::validation, Split::test, Split::refit, Split::all})
    if (name == split_name(split)) return split;
  MR_FAIL("there is no split ", name);
}

Dataset open_with_progress(const DataConfig& config, bool quiet, bool again = false) {
  Progress progress(stderr, quiet);
  return open_data(
      config, [&](const std::string& line) { progress.say(line); }, again,
      [&](const std::string& stage, double share) { progress.stage(stage, share); });
}

// With the run's encoders.
Dataset open_with_progress(const RunFolder& folder, const RunRecord& record, const Config& config,
                           bool quiet) {
  Progress progress(stderr, quiet);
  PrepareOptions options;
  options.report = [&](const std::string& line) { progress.say(line); };
  options.progress = [&](const std::string& stage, double share) { progress.stage(stage, share); };
  return open_run_data(folder, record, config, config.data.path, options);
}

// The model of a run with the weights that it chose, and the data it is asked about.
struct LoadedRun {
  Config config;
  Dataset data;
  std::unique_ptr<RankingModel> model;
  EvaluateOptions options;
};

LoadedRun load_run(const RunArguments& arguments, const std::vector<ModelEntry>& own_models) {
  const RunFolder folder = RunFolder::resume(arguments.run);
  std::vector<std::string> sets;
  if (!arguments.device.empty()) sets.push_back("train.device=" + arguments.device);
  if (!arguments.precision.empty()) sets.push_back("train.precision=" + arguments.precision);
  Config config = load_config(folder.config_path(), sets);
  const Device device = choose_device(config.train.device);
  if (config.train.threads > 0) set_num_threads(static_cast<int>(config.train.threads));
  const RunRecord record = read_record(folder);
  const TrainedOn known = trained_on(folder);
  config.data.path = find_run_data(folder, record, config, arguments.data);
  Dataset data = open_with_progress(folder, record, config, false);
  for (const std::string& sentence : unknown_values(data, split_of(arguments.split), known)) say(sentence);
  LoadedModel loaded = load_model(folder, record, config, data.spec(), device, own_models);
  EvaluateOptions options;
  options.trained_on = loaded.trained_on;
  options.batch_size = 4 * config.data.batch_size;
  options.max_events = 4 * config.data.max_events;
  options.workers = static_cast<int>(config.data.workers);
  options.compute = choose_precision(config.train.precision);
  options.metrics = config.train.metrics_to_compute();
  return {std::move(config), std::move(data), std::move(loaded.model), options};
}

// Throws unless the run in arguments.out can go on with this configuration and the data as it is now.
void check_resume(const TrainArguments& arguments, Config& config) {
  const RunFolder folder = RunFolder::resume(arguments.out);
  const RunRecord record = read_record(folder);
  if (arguments.data.empty() && arguments.config.empty())
    config.data.path = find_run_data(folder, record, config, "");
  const bool schema_there = std::all_of(config.data.schema.begin(), config.data.schema.end(),
                                        [](const std::string& path) { return fs::exists(path); });
  const Schema schema = schema_there && (!config.data.schema.empty() || record.format == 1 ||
                                         fs::exists(config.data.path + "/schema.json"))
                            ? open_schema(config.data)
                            : load_schema(folder.encoders_path() + "/schema.json");
  check_resumable(folder, record, config, schema.json, content_of(schema, config.data.path));
  check_reports(folder, record);
}

Dataset open_arguments(const DataArguments& arguments) {
  DataConfig config;
  config.path = arguments.data;
  config.schema = arguments.schema;
  config.outside = arguments.outside;
  return open_with_progress(config, false, arguments.again);
}

// "  model.heads = 8   of tokens" and so on, as rows of "heads 8, width 32, ..." of at most 80 characters.
std::string options_in_rows(const std::string& option_help) {
  constexpr size_t kWidth = 80;
  std::istringstream lines(option_help);
  std::string rows, row;
  for (std::string line; std::getline(lines, line);) {
    const size_t dot = line.find('.'), equals = line.find(" = ");
    if (dot == std::string::npos || equals == std::string::npos) continue;
    const std::string value = line.substr(equals + 3, line.find("  ", equals + 3) - equals - 3);
    const std::string option = line.substr(dot + 1, equals - dot - 1) + " " + value;
    if (!row.empty() && row.size() + option.size() + 2 > kWidth) rows += row + ",\n", row.clear();
    row += (row.empty() ? "    " : ", ") + option;
  }
  return row.empty() ? rows : rows + row + "\n";
}

// A line of `mixrec models`.
struct Listed {
  std::string kind, name, help, default_options, option_help;
};

void print_listed(const std::vector<Listed>& shown, const ModelsArguments& arguments) {
  size_t width = 0;
  for (const Listed& one : shown) width = std::max(width, one.name.size());
  std::string kind = "model";
  for (const Listed& one : shown) {
    if (arguments.json) {
      JsonLine line;
      line.add("name", one.name).add("help", one.help).add_json("options", one.default_options);
      std::printf("%s\n", line.add("kind", one.kind).text().c_str());
      continue;
    }
    if (one.kind != std::exchange(kind, one.kind))
      std::printf("\nStacks read %s with one of these, model.%s.name:\n",
                  one.kind == "sequence" ? "a history" : "features", one.kind.c_str());
    std::printf("%-*s  %s\n%s", static_cast<int>(width), one.name.c_str(), one.help.c_str(),
                (arguments.name.empty() ? options_in_rows(one.option_help) : one.option_help).c_str());
  }
}

}  // namespace

int run_train(const TrainArguments& arguments, const std::vector<ModelEntry>& own_models) {
  Config config = resolve_config(arguments, own_models);
  const std::string out = arguments.out.empty() ? new_run_name(config.model.name) : arguments.out;
  if (arguments.resume) {
    check_resume(arguments, config);
    if (fs::exists(out + "/result.json")) {
      if (!arguments.quiet) say(out + " is finished");
      std::fputs(read_text_file(out + "/result.json").c_str(), stdout);
      return 0;
    }
  }
  // Before the data is read, which may take minutes the first time.
  if (!arguments.resume) RunFolder::check_free(out);
  choose_device(config.train.device);
  if (config.train.threads > 0) set_num_threads(static_cast<int>(config.train.threads));
  const auto open = [&] {
    if (!arguments.resume) return open_with_progress(config.data, arguments.quiet);
    const RunFolder folder = RunFolder::resume(out);
    return open_with_progress(folder, read_record(folder), config, arguments.quiet);
  };
  const Dataset data = open();
  const auto model = build_model(config, data.spec(), own_models);
  if (!arguments.quiet) say("run folder " + out);
  const FitResult result = fit_model(*model, data,
                                     {.config = config,
                                      .out = out,
                                      .resume = arguments.resume,
                                      .quiet = arguments.quiet,
                                      .stop_on_signals = true});
  if (!result.finished) return 128 + result.signal;
  std::printf("%s\n", result.json.c_str());
  return 0;
}

int run_eval(const RunArguments& arguments, const std::vector<ModelEntry>& own_models) {
  const LoadedRun run = load_run(arguments, own_models);
  const auto metrics = evaluate(*run.model, run.data, split_of(arguments.split), run.options);
  const std::vector<TaskSpec>& tasks = run.data.spec().tasks;
  for (size_t t = 0; t < tasks.size(); ++t) say(metrics_text(tasks[t], metrics[t]));
  JsonLine line;
  line.add("model", run.model->name()).add("run", arguments.run);
  std::printf("%s\n", line.add_json(arguments.split, metrics_json(tasks, metrics)).text().c_str());
  return 0;
}

int run_predict(const RunArguments& arguments, const std::vector<ModelEntry>& own_models) {
  // Before anything is read that may take minutes.
  check_output(arguments.out, arguments.run, {});
  const LoadedRun run = load_run(arguments, own_models);
  std::vector<std::string> read{run.config.data.path + "/schema.json"};
  for (const std::string& file : run.data.schema().source_files())
    read.push_back(fs::path(run.config.data.path) / file);
  check_output(arguments.out, arguments.run, read);
  const Split split = split_of(arguments.split);
  const int64_t rows = write_predictions(*run.model, run.data, run.config.data.path, split, arguments.out,
                                         {.evaluate = run.options});
  const int64_t all = run.data.stats(Split::all).rows;
  const std::string others =
      rows == all ? ""
                  : concat_message(" of ", all, ", the ", split_name(split), " part; --split all writes all");
  say(concat_message(arguments.out, ": ", rows, " rows", others));
  return 0;
}

int run_score(const ScoreArguments& arguments, const std::vector<ModelEntry>& own_models) {
  const Scorer scorer(arguments.run,
                      {.device = arguments.device,
                       .precision = arguments.precision,
                       .threads = arguments.threads,
                       .graphs = arguments.graphs,
                       .cache_bytes = arguments.cache_mb << 20},
                      own_models);
  // Opened by name, so that it can be asked how much has arrived.
  const std::string source = arguments.in == "-" ? "/dev/stdin" : arguments.in;
  MR_CHECK(!fs::is_directory(source), source, " is a folder, a file of requests was expected");
  std::ifstream in(source, std::ios::binary);
  MR_CHECK(in, "cannot open ", source, ": ", std::strerror(errno));
  MR_CHECK(!fs::is_directory(source), source, " is a folder; --in needs a file");
  int64_t lines = 0;
  if (arguments.out == "-") {
    lines = score_lines(scorer, in, [](const std::string& text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      MR_CHECK(std::fflush(stdout) == 0, "cannot write the answers");
    });
  } else {
    check_output(arguments.out, arguments.run, {source});
    AtomicFile out(arguments.out);
    lines = score_lines(scorer, in, [&](const std::string& text) { out.write(text); });
    out.commit();
  }
  say(concat_message(lines, " requests"));
  return 0;
}

int run_prepare(const DataArguments& arguments) {
  std::printf("%s\n", open_arguments(arguments).packed_folder().c_str());
  return 0;
}

int run_inspect(const DataArguments& arguments) {
  const InspectReport report = inspect(open_arguments(arguments), arguments.data);
  std::fputs((arguments.json ? report.json() + "\n" : report.text()).c_str(), stdout);
  return 0;
}

int run_simulate(const SimulateOptions& options) {
  const SimulateReport report = simulate(options);
  say(concat_message(options.out, ": ", options.rows, " rows, click rate ", report.test.click_rate));
  for (const SimulatedBound& bound : report.test.bounds)
    say(concat_message("best test AUC with ", bound.term, " and what is before it: ", bound.auc));
  return 0;
}

int run_models(const ModelsArguments& arguments, const std::vector<ModelEntry>& own_models) {
  const std::string& wanted = arguments.name;
  std::vector<Listed> shown;
  const auto add = [&](const Listed& one) {
    if (wanted.empty() || one.name == wanted) shown.push_back(one);
  };
  for (const ModelEntry& e : own_models) add({"model", e.name, e.help, e.default_options, e.option_help});
  for (const ModelEntry& e : model_list()) add({"model", e.name, e.help, e.default_options, e.option_help});
  for (const SequenceEntry& e : sequence_modules())
    add({"sequence", e.name, e.help, e.default_options, e.describe("model.sequence")});
  for (const InteractionEntry& e : interaction_modules())
    add({"interaction", e.name, e.help, e.default_options, e.describe("model.interaction")});
  if (shown.empty()) find_model(wanted, own_models);  // throws
  print_listed(shown, arguments);
  if (!arguments.json && wanted.empty())
    std::printf("\n'mixrec models NAME' explains the options of one; --set model.OPTION=VALUE sets one.\n");
  return 0;
}

}  // namespace mixrec

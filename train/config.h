// The configuration of a run.  Precedence: the defaults below < the file < `--set section.key=value`.
//
// Every field is written once, in visit() (config.cpp): reading, dumping, checking ranges and the help text follow
// from it (core/options.h). An unknown key is an error with its dotted path and the nearest known one.
#pragma once

#include "mixrec/core/metric_name.h"
#include "mixrec/core/options.h"
#include "mixrec/optim/options.h"
#include "mixrec/optim/schedule.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

// A JSON object that somebody else reads (the model's options, changes to a data schema), kept as its text.
struct JsonText {
  std::string text = "{}";
};

struct DataConfig {
  std::string path;                 // folder of the data set
  std::vector<std::string> schema;  // see open_data.h
  JsonText overrides;               // merged over the schema
  bool outside = false;             // files of the schema may lie outside the folder (data/source_files.h)
  std::vector<std::string> tasks;   // labels to train; empty = all of the schema
  int64_t batch_size = 512;         // candidates
  int64_t max_events = 0;           // history events in one batch at most; 0 = no cap
  int64_t workers = 1;              // threads that assemble batches ahead of the step
  std::string shuffle = "rows";     // rows | requests (candidates of a request stay together)

  void visit(OptionVisitor& v);
};

struct ModelConfig {
  std::string name = "mixformer";
  JsonText options;  // all other keys of the section, checked by the model

  void visit(OptionVisitor& v);
};

// The rows that choose the best step are the schema's matter: split.validation_days and its like cut them
// from the end of the training period.
struct TrainConfig {
  int64_t seed = 1;
  int64_t epochs = 1;
  int64_t max_steps = 0;          // 0 = no limit beside epochs
  double max_minutes = 0;         // 0 = no limit
  std::string select_by = "auc";  // a metric (core/metric_name.h), mean over tasks, on the validation rows
  std::vector<std::string> metrics = default_metrics();  // computed in every evaluation, beside select_by
  int64_t patience = 0;             // stop after so many evaluations without a better one; 0 = never
  bool refit = false;               // after the choice: train afresh on the whole training period
  std::string refit_for = "steps";  // for as many steps as chosen, or as many passes over the rows
  bool test = true;                 // false: the test rows are left alone, as a search must
  int64_t eval_every = 0;           // steps between evaluations; 0 = at the end of each epoch
  int64_t log_every = 100;
  int64_t checkpoint_every = 1000;
  int64_t accumulate = 1;         // batches in one optimiser step
  double clip_norm = 0;           // global gradient norm; 0 = no clipping
  double ema = 0;                 // decay of the averaged weights that are evaluated and kept; 0 = none
  int64_t threads = 0;            // 0 = what OpenMP takes
  std::string device = "auto";    // auto | cpu | cuda | cuda:N; see device_choice.h
  std::string precision = "f32";  // f32 | bf16: what activations are computed in

  // `metrics`, and select_by behind them where it is not among them.  Throws on a name that is no metric.
  std::vector<MetricName> metrics_to_compute() const;

  void visit(OptionVisitor& v);
};

struct Config {
  DataConfig data;
  ModelConfig model;
  TrainConfig train;
  RuleOptions optimizer{.name = "adam", .lr = 1e-3};  // of dense parameters
  RuleOptions table_optimizer{.name = "lazy_adam", .lr = 1e-2};
  ScheduleOptions schedule;  // cosine: total_steps 0 = the length of the run
  std::vector<GroupOptions> groups;

  void visit(OptionVisitor& v);
};

// Reads `file` ("" = none) over the defaults, then each "a.b=value" of `sets`; checks types, names and
// ranges. A value of `sets` is JSON where it parses as such, a number where it is one (.98, +3), and a plain
// string otherwise.  Paths in the file are relative to the file's folder, paths in `sets` to the current one.
// `model` is the name of the model that is meant where neither says one.
Config load_config(const std::string& file, std::span<const std::string> sets,
                   const std::string& model = ModelConfig{}.name);

// Throws on a number out of range or an unknown choice, naming the key; load_config() has done it.
void check_config(const Config& config);

// The whole configuration as JSON, defaults included; load_config of it gives the same where its paths are
// absolute.
std::string dump_config(const Config& config);

// "a.b: 1 -> 2" for every key in which two configurations differ.
std::vector<std::string> config_differences(const Config& before, const Config& after);

// Every key with its default and one line of explanation, for --help.
std::string describe_config();

}  // namespace mixrec

// The configuration of a run.  Precedence: the defaults below < the file < `--set section.key=value`.
//
// Every field is written once, in visit_fields (config.cpp): reading, dumping, checking and the help text
// follow from it. An unknown key is an error with its dotted path and the nearest known one.
#pragma once

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
  std::string path;                // folder of the data set
  std::string schema;              // schema file; "" = schema.json in the folder
  JsonText overrides;              // merged over the schema
  std::vector<std::string> tasks;  // labels to train; empty = all of the schema
  int64_t batch_size = 512;        // candidates
  int64_t max_events = 0;          // history events in one batch at most; 0 = no cap
  int64_t workers = 1;             // threads that assemble batches ahead of the step
  std::string shuffle = "rows";    // rows | requests (candidates of a request stay together)
};

struct ModelConfig {
  std::string name = "mixformer";
  JsonText options;  // all other keys of the section, checked by the model
};

// Which rows, cut from the end of the training period, choose the best step.
struct ValidationConfig {
  double fraction = 0.1;  // of the training rows, the newest; used when days is 0
  int64_t days = 0;       // the last days of the training period
};

struct TrainConfig {
  int64_t seed = 1;
  int64_t epochs = 1;
  int64_t max_steps = 0;   // 0 = no limit beside epochs
  double max_minutes = 0;  // 0 = no limit
  ValidationConfig validation;
  std::string select_by = "auc";  // auc | uauc | log_loss, mean over tasks, on the validation slice
  int64_t patience = 0;           // stop after so many evaluations without a better one; 0 = never
  bool refit = false;  // after the choice: train afresh on the whole training period for that number of steps
  int64_t eval_every = 0;  // steps between evaluations; 0 = at the end of each epoch
  int64_t log_every = 100;
  int64_t checkpoint_every = 1000;
  int64_t accumulate = 1;         // batches in one optimiser step
  double clip_norm = 0;           // global gradient norm; 0 = no clipping
  double ema = 0;                 // decay of the averaged weights that are evaluated and kept; 0 = none
  std::string precision = "f32";  // f32 | bf16
  int64_t threads = 0;            // 0 = what OpenMP takes
};

struct ScheduleConfig {
  std::string name = "constant";  // constant | cosine | step
  int64_t warmup_steps = 0;       // linear from 0
  int64_t total_steps = 0;        // cosine: length; 0 = the length of the run
  double final_share = 0;         // cosine: last learning rate / first
  int64_t step_every = 0;         // step: multiply by step_factor every so many steps
  double step_factor = 0.1;
};

struct OptimizerConfig {
  std::string name;
  double lr = 0;
  double beta1 = 0.9, beta2 = 0.999;
  double decay = 0.99;  // rmsprop: of the squared gradient's average
  double momentum = 0;  // sgd
  double eps = 1e-8;
  double weight_decay = 0;
  double initial_accumulator = 0;  // adagrad
};

// Parameters whose dotted name matches the pattern (* matches anything) get their own numbers; the last match
// wins.
struct ParameterGroupConfig {
  std::string pattern;
  double lr_scale = 1;
  double weight_decay = -1;  // < 0: as the optimiser says
  bool freeze = false;
};

struct Config {
  DataConfig data;
  ModelConfig model;
  TrainConfig train;
  OptimizerConfig optimizer{.name = "adam", .lr = 1e-3};
  OptimizerConfig table_optimizer{.name = "lazy_adam", .lr = 1e-2};
  ScheduleConfig schedule;
  std::vector<ParameterGroupConfig> groups;
};

// Reads `file` ("" = none) over the defaults, then each "a.b=value" of `sets`; checks types, names and
// ranges. A value of `sets` is JSON where it parses as such and a plain string otherwise.
Config load_config(const std::string& file, std::span<const std::string> sets);

// The whole configuration as JSON, defaults included; load_config of it gives the same.
std::string dump_config(const Config& config);

// "a.b: 1 -> 2" for every key in which two configurations differ.
std::vector<std::string> config_differences(const Config& before, const Config& after);

// Every key with its default and one line of explanation, for --help.
std::string describe_config();

}  // namespace mixrec

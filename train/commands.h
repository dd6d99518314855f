// What each command of `mixrec` does, apart from reading its arguments.  Results go to stdout, everything
// else to stderr; errors are thrown.
#pragma once

#include "mixrec/data/simulate/simulate.h"
#include "mixrec/models/model.h"

#include <cstdint>
#include <string>
#include <vector>

namespace mixrec {

struct TrainArguments {
  std::string config;             // file; "" = the defaults, or the run's own on resume
  std::string data;               // folder, over data.path
  std::string out;                // run folder; "" = a new one under runs/
  std::vector<std::string> sets;  // "a.b=value"
  int64_t seed = -1;              // over train.seed
  int64_t threads = -1;           // over train.threads
  std::string device, precision;  // over train.device, train.precision
  bool resume = false;
  bool quiet = false;
};

struct RunArguments {
  std::string run;   // folder of a finished or interrupted run
  std::string data;  // another data folder than the run's
  std::string split = "test";
  std::string out;                // predict: CSV file
  std::string device, precision;  // over those of the run
};

struct ScoreArguments {
  std::string run;
  std::string in = "-", out = "-";  // files; "-" is stdin and stdout
  int threads = 0;                  // 0 = what OpenMP takes
  int64_t graphs = 32;              // on a card: recorded sizes of requests that are kept
  int64_t cache_mb = 256;           // of kept user sides
  std::string device = "auto", precision = "f32";
};

struct DataArguments {
  std::string data;
  std::vector<std::string> schema;
  bool again = false;    // prepare: even when nothing changed
  bool outside = false;  // files of the schema may lie outside the folder
  bool json = false;     // inspect: for programs
};

struct ModelsArguments {
  std::string name;   // "" = all
  bool json = false;  // for programs
};

// 0, or 130 and 143 after a signal.
int run_train(const TrainArguments& arguments, const std::vector<ModelEntry>& own_models);
int run_eval(const RunArguments& arguments, const std::vector<ModelEntry>& own_models);
int run_predict(const RunArguments& arguments, const std::vector<ModelEntry>& own_models);
int run_score(const ScoreArguments& arguments, const std::vector<ModelEntry>& own_models);
int run_prepare(const DataArguments& arguments);
int run_inspect(const DataArguments& arguments);
int run_simulate(const SimulateOptions& options);
int run_models(const ModelsArguments& arguments, const std::vector<ModelEntry>& own_models);

}  // namespace mixrec

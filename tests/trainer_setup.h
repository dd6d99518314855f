// A small data set and a small model for tests of training, and runs of the command line in a process of its
// own.
#pragma once

#include "mixrec/data/loader.h"
#include "mixrec/models/mlp.h"
#include "mixrec/tests/temporary_folder.h"
#include "mixrec/train/fit.h"
#include "mixrec/train/open_data.h"

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace mixrec::test {

// Eight days of 60 rows, of which the last is the test part and the one before the validation part; 12 users,
// 15 items, two tasks that depend on both.  Events come from the log.
std::string small_log_text();
std::string small_schema_text(const std::string& split = R"("test_days": 1, "validation_days": 1)");

// Writes both into `folder`/NAME and returns that path.
std::string write_small_data(const TemporaryFolder& folder, const std::string& name = "log");

// An MLP with dropout that calls `before(n)` ahead of its n-th forward pass, training or not.
struct SmallModel : Module {
  MlpModel mlp;
  std::function<void(int64_t)> before;
  int64_t passes = 0;

  SmallModel(const Dataset& data, double dropout = 0.2, uint64_t seed = 3);
  Tensor forward(const RequestBatch& batch, Pass& pass);
  void visit(Visitor& v) { mlp.visit(v); }
};

// 32 rows a batch, ~12 steps an epoch, averaged weights, a cosine schedule and clipping: all that has state.
Config small_config(const std::string& data);

std::vector<float> all_weights(SmallModel& model);
// The text without numbers that depend on the clock.
std::string without_timings(const std::string& json_lines);

// Every tensor of a file, and its scalars that do not depend on the clock, as bytes.
std::map<std::string, std::string> run_content(const std::string& path);
// Two run folders hold the same bits, timings apart.
void check_same_runs(const std::string& a, const std::string& b);

// Runs `mixrec ARGUMENTS...` in another process, which is this program called again.  `while_running` is
// asked every few milliseconds whether to kill it at once; it ends with its exit code or 128 + the signal.
struct ChildResult {
  int code = 0;
  std::string out, err;
};
ChildResult run_mixrec(const std::vector<std::string>& arguments, const TemporaryFolder& folder,
                       int kill_signal = 0, const std::function<bool()>& kill_when = {});

}  // namespace mixrec::test

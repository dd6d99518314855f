// fit(): trains a model on a data set, chooses its best step on validation rows, and evaluates it once.
//
//   Dataset data = Dataset::open(find_schema("ml-1m"), "ml-1m");
//   Rng rng(1);
//   MixFormer model(data.spec(), {.layers = 2}, rng);
//   FitResult result = fit(model, data, {.config = {.train = {.epochs = 2}}, .out = "runs/first"});
//
// `model` is any struct as in models/model.h.  It is moved to the device of the run (train.device) and
// afterwards holds the weights that were chosen, there.
//
// One step: the gradient of
//
//   Σ_task loss_weight · Σ_row w BCE / Σ_row w  +  auxiliary losses
//
// over `train.accumulate` batches taken as one.  Every `eval_every` steps the validation rows are evaluated,
// with the averaged weights where there are any, and the best step's weights are kept.  With `refit` the
// model is then set back to where it started and trained on the whole training period, validation rows
// included, for the chosen length.  Test rows are looked at once, at the end, or with `test` off not at all.
//
// A run is a function of its configuration: threads, timing, interruptions and resumes do not change one bit
// of it (max_minutes apart).  On a card the host works ahead and learns how steps went every log_every steps.
#pragma once

#include "mixrec/core/metrics.h"
#include "mixrec/data/dataset.h"
#include "mixrec/models/model.h"
#include "mixrec/train/config.h"

#include <string>
#include <vector>

namespace mixrec {

struct FitOptions {
  // Its model section and data.path are only noted in the run folder.  train.threads is the command line's, which
  // sets it for its process: a program calls set_num_threads().
  Config config = {};
  std::string out = "";  // run folder (train/run_folder.h); "" leaves nothing on disk
  bool resume = false;   // continue in `out`; the model must be as it was when the run began
  bool quiet = false;    // no progress on stderr
  // SIGINT and SIGTERM end the run after its step, as the command line does it; otherwise handlers of signals are
  // left alone.
  bool stop_on_signals = false;
};

struct FitResult {
  bool finished = false;  // false: a signal came; `out` holds what a resume needs
  int signal = 0;         // which one
  int64_t steps = 0;      // of the training that made the final weights
  int64_t best_step = 0;  // chosen on validation rows; 0 = nothing was chosen
  int64_t parameters = 0;
  double seconds = 0;                     // all of it, over all resumes
  double samples_per_second = 0;          // of training, without evaluations
  std::vector<BinaryMetrics> test;        // one a task; empty = train.test was off
  std::vector<BinaryMetrics> validation;  // at the best step; empty = nothing was chosen
  std::string json;                       // the line of result.json
};

// Throws before anything is written when the data cannot be trained, chosen by or tested on as the configuration asks
// (train/check_trainable.h).
FitResult fit_model(RankingModel& model, const Dataset& data, const FitOptions& options = {});

template <class M>
FitResult fit(M& model, const Dataset& data, const FitOptions& options = {}) {
  ModelHolder<M&> holder(model);
  return fit_model(holder, data, options);
}

}  // namespace mixrec

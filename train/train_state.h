// Where a training run stands, beside its tensors: what a checkpoint keeps as scalars.
#pragma once

#include "mixrec/train/checkpoint.h"

#include <cstdint>
#include <string>

namespace mixrec {

enum class Phase : int64_t {
  choosing,   // fits the training part, evaluates validation rows
  refitting,  // fits the whole training period
  done,       // weights are final; test rows not yet evaluated
};

struct TrainState {
  int64_t phase = 0;             // a Phase
  int64_t step = 0;              // of this phase
  int64_t epoch = 0, batch = 0;  // of the next batch
  uint64_t rng_offset = 0;       // of dropout

  double loss_sum = 0;  // of the steps since the last logged line
  int64_t loss_steps = 0;

  int64_t best_step = 0;          // 0 = none yet
  double best_score = 0;          // larger is better
  int64_t not_better = 0;         // evaluations since
  int64_t refit_steps = 0;        // length of the second phase
  int64_t schedule_steps = 0;     // length that a cosine refers to
  std::string validation = "{}";  // metrics at the best step, JSON

  int64_t metrics_bytes = 0;  // of metrics.jsonl

  // These differ from run to run.
  int64_t samples = 0;  // trained on
  double train_seconds = 0, seconds = 0;

  Scalars to_scalars() const;
  // Throws, naming the scalar, when one is missing, not a number, or not one that a run can have reached; `path`
  // is for the message.
  static TrainState from_scalars(const Scalars& scalars, const std::string& path);

 private:
  template <class V>
  void visit(V& v);
  void check(const std::string& path) const;
};

}  // namespace mixrec

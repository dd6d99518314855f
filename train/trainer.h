// The training loop behind fit(): two phases over one state that can be saved and resumed after any step.
#pragma once

#include "mixrec/data/prefetcher.h"
#include "mixrec/optim/optimizer.h"
#include "mixrec/train/evaluate.h"
#include "mixrec/train/fit.h"
#include "mixrec/train/progress.h"
#include "mixrec/train/run_record.h"
#include "mixrec/train/tensorboard.h"
#include "mixrec/train/train_state.h"

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mixrec {

class Trainer {
 public:
  // `notes` are said before the first step.
  Trainer(RankingModel& model, const Dataset& data, const FitOptions& options,
          std::vector<std::string> notes);
  FitResult run();

 private:
  using Clock = std::chrono::steady_clock;

  // A step that was queued: enough to run it again under checks.
  struct QueuedStep {
    LoaderPosition begin;  // its first batch
    Rng rng;
  };

  // Phases.
  void start();
  void train(Split split);  // until its end or a signal
  void end_choosing();
  FitResult finish();

  // One step.
  void step(Prefetcher& batches);
  std::vector<PlacedBatch> next_group(Prefetcher& batches);
  Tensor forward_backward(const PlacedBatch& batch, const std::vector<double>& normalisers, double share);

  // Around it.  A device works behind the host, which asks how the steps went only where it must know.
  void settle();
  [[noreturn]] void fail_refused(const StepReport& report);
  Loader make_loader(Split split, int workers) const;
  void log_step();
  void validate();
  void keep_best();
  void use_final_weights();
  void save();
  void load();
  void resume_metrics();
  void announce();

  Phase phase() const { return static_cast<Phase>(state_.phase); }
  bool choosing() const { return phase() == Phase::choosing; }
  bool selects() const { return choosing() && has_validation_; }
  bool reached_end() const;
  void set_lengths(Prefetcher& batches);
  void make_optimizer();
  std::vector<NamedTensor> tensors() const;
  void copy_weights(const std::vector<Tensor>& from);
  std::vector<Tensor> clone_weights() const;
  EvaluateOptions evaluate_options(TrainedOn trained_on) const;
  TrainedOn final_trained_on() const;
  double seconds() const;
  std::string result_json(const FitResult& result) const;

  RankingModel& model_;
  const Dataset& data_;
  const FitOptions& options_;
  const TrainConfig& config_;
  const std::vector<std::string> notes_;
  std::vector<Parameter> parameters_;
  bool has_validation_ = false;
  const Device device_;

  std::optional<RunFolder> folder_;
  RunRecord record_;
  std::optional<EventWriter> events_;
  Progress progress_;
  std::optional<Optimizer> optimizer_;
  std::vector<Tensor> initial_;  // weights at the start, kept for a refit
  std::vector<Tensor> best_;     // weights at the best step of a run without a folder
  Tensor task_weights_;          // [tasks]

  TrainState state_;
  Pass pass_;
  std::vector<QueuedStep> queued_;  // since the last settle()
  Tensor queued_loss_;              // f64 []: their sum
  Tensor last_loss_;                // []: of the last of them
  double shown_loss_ = 0;           // of the last step that is known
  double gradient_norm_ = 0, lr_factor_ = 0;
  ScheduleOptions schedule_;  // of this phase, its length filled in
  int64_t total_steps_ = 0;   // planned for this phase; 0 = not known
  int64_t session_samples_ = 0;
  double session_flops_ = 0;
  double seconds_before_ = 0;  // of earlier sessions of this run
  Clock::time_point start_ = Clock::now();
};

}  // namespace mixrec

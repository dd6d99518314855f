#include "mixrec/train/trainer.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/train/not_finite.h"
#include "mixrec/train/report.h"
#include "mixrec/train/signals.h"

#include <algorithm>
#include <cmath>

namespace mixrec {

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Σ_row w of every task, over all batches of one step.
std::vector<double> weight_sums(std::span<const RequestBatch> group, size_t tasks) {
  std::vector<double> sums(tasks);
  for (const RequestBatch& batch : group) {
    const auto* weight = batch.weights.data<const float>();
    for (int64_t i = 0; i < batch.weights.numel(); ++i) sums[static_cast<size_t>(i) % tasks] += weight[i];
  }
  return sums;
}

}  // namespace

void Trainer::train(Split split) {
  Loader loader(data_, split,
                {.batch_size = options_.config.data.batch_size,
                 .event_cap = options_.config.data.max_events,
                 .shuffle = options_.config.data.shuffle == "rows" ? Shuffle::rows : Shuffle::requests,
                 .seed = derive_seed(static_cast<uint64_t>(config_.seed), "order of rows"),
                 .workers = static_cast<int>(options_.config.data.workers)});
  set_lengths(loader);
  loader.start(state_.epoch, state_.batch);
  while (!reached_end() && StopSignals::received() == 0) {
    const auto start = Clock::now();
    const StepOutcome outcome = step(loader);
    state_.train_seconds += seconds_since(start);
    progress_.update({.step = state_.step,
                      .total_steps = total_steps_,
                      .epoch = state_.epoch,
                      .loss = outcome.loss,
                      .samples = session_samples_,
                      .flops = session_flops_},
                     config_.log_every);
    log_step(outcome);
    const bool epoch_ended = state_.batch == 0;
    const bool due = config_.eval_every > 0 ? state_.step % config_.eval_every == 0 : epoch_ended;
    if (selects() && (due || reached_end())) validate();
    if (config_.checkpoint_every > 0 && state_.step % config_.checkpoint_every == 0) save();
    if (epoch_ended && !reached_end()) loader.start(state_.epoch);
  }
}

bool Trainer::reached_end() const {
  if (phase() == Phase::refitting) return state_.step >= state_.refit_steps;
  return state_.epoch >= config_.epochs || (config_.max_steps > 0 && state_.step >= config_.max_steps) ||
         (config_.patience > 0 && state_.not_better >= config_.patience) ||
         (config_.max_minutes > 0 && state_.train_seconds > 60 * config_.max_minutes);
}

void Trainer::set_lengths(Loader& loader) {
  // Batches of the first epoch stand for all: under an event cap their number varies a little.
  loader.start(0);
  const int64_t an_epoch = (loader.batches() + config_.accumulate - 1) / config_.accumulate;
  if (choosing()) {
    const int64_t all = an_epoch * config_.epochs;
    total_steps_ = config_.max_steps > 0 ? std::min(config_.max_steps, all) : all;
    state_.schedule_steps = total_steps_;
  } else {
    total_steps_ = state_.refit_steps;
  }
  schedule_ = options_.config.schedule;
  if (schedule_.total_steps == 0) schedule_.total_steps = state_.schedule_steps;
}

std::vector<RequestBatch> Trainer::next_group(Loader& loader) {
  std::vector<RequestBatch> group;
  while (static_cast<int64_t>(group.size()) < config_.accumulate) {
    auto batch = loader.next();
    if (!batch) break;
    group.push_back(std::move(*batch));
  }
  const bool epoch_ends = loader.position().batch == loader.batches();
  state_.epoch = loader.position().epoch + (epoch_ends ? 1 : 0);
  state_.batch = epoch_ends ? 0 : loader.position().batch;
  return group;
}

Trainer::StepOutcome Trainer::step(Loader& loader) {
  const std::vector<RequestBatch> group = next_group(loader);
  const std::vector<double> normalisers = weight_sums(group, data_.spec().tasks.size());
  StepOutcome outcome;
  for (const RequestBatch& batch : group) {
    outcome.loss += forward_backward(batch, normalisers, 1.0 / static_cast<double>(group.size()));
    outcome.samples += batch.candidates;
    // The backward costs about two forwards: one product a factor.
    session_flops_ += 3 * model_.forward_flops(batch);
  }
  outcome.lr_factor = learning_rate_factor(schedule_, state_.step);
  const StepReport report = optimizer_->step({.lr_factor = outcome.lr_factor});
  if (!report.applied) fail_not_finite(group.back(), pass_.rng, "the gradient of " + report.not_finite);
  outcome.gradient_norm = report.gradient_norm;
  optimizer_->zero_grad();
  ++state_.step;
  state_.rng_offset = pass_.rng.offset();
  state_.samples += outcome.samples;
  session_samples_ += outcome.samples;
  return outcome;
}

double Trainer::forward_backward(const RequestBatch& batch, const std::vector<double>& normalisers,
                                 double share) {
  const Rng rng = pass_.rng;
  const Tensor logits = model_.forward(batch, pass_);
  const Shape expected{batch.candidates, static_cast<int64_t>(normalisers.size())};
  MR_CHECK(logits.shape() == expected, "the model's logits are ", logits.shape(), ", expected ", expected,
           " for [candidates, tasks]");
  Tensor loss =
      sum(bce_with_logits_per_task(logits, batch.labels, batch.weights, normalisers) * task_weights_);
  for (const Tensor& auxiliary : pass_.losses) loss = loss + auxiliary * share;
  pass_.losses.clear();
  const double value = loss.item();
  if (!std::isfinite(value)) fail_not_finite(batch, rng, "the loss");
  loss.backward();
  return value;
}

void Trainer::fail_not_finite(const RequestBatch& batch, const Rng& rng, const std::string& what) {
  optimizer_->zero_grad();
  Pass replay;
  replay.training = true;
  replay.rng = rng;
  MR_FAIL("step ", state_.step + 1, ": ", what, " is not finite; ",
          first_not_finite(model_, data_.spec(), batch, replay), "; no weight was changed by this step");
}

void Trainer::log_step(const StepOutcome& outcome) {
  state_.loss_sum += outcome.loss;
  ++state_.loss_steps;
  if (config_.log_every == 0 || state_.step % config_.log_every != 0) return;
  const double loss = state_.loss_sum / static_cast<double>(state_.loss_steps);
  state_.loss_sum = 0, state_.loss_steps = 0;
  if (!folder_) return;
  JsonLine line;
  line.add("phase", std::string(choosing() ? "train" : "refit"));
  line.add("step", state_.step).add("epoch", state_.epoch).add("loss", loss);
  line.add("lr_factor", outcome.lr_factor).add("gradient_norm", outcome.gradient_norm);
  line.add("samples", state_.samples).add("seconds", state_.train_seconds);
  folder_->log(line.text());
  const std::string tag = choosing() ? "train/" : "refit/";
  const std::pair<std::string, double> scalars[] = {{tag + "loss", loss},
                                                    {tag + "gradient_norm", outcome.gradient_norm},
                                                    {tag + "lr_factor", outcome.lr_factor}};
  events_->scalars(state_.step, scalars);
}

void Trainer::validate() {
  std::optional<AveragedWeights> averaged;
  if (config_.ema > 0) averaged.emplace(*optimizer_);
  const std::vector<TaskSpec>& tasks = data_.spec().tasks;
  const auto metrics = evaluate(model_, data_, Split::validation, evaluate_options(TrainedOn::training_part));
  const double score = selection_score(metrics, config_.select_by);
  MR_CHECK(std::isfinite(score), "train.select_by is ", config_.select_by,
           ", which the validation rows do not determine: no group of them has both classes");
  const bool better = state_.best_step == 0 || score > state_.best_score;
  if (better) {
    state_.best_step = state_.step;
    state_.best_score = score;
    state_.not_better = 0;
    state_.validation = metrics_json(tasks, metrics);
    keep_best();
  } else {
    ++state_.not_better;
  }
  for (size_t t = 0; t < tasks.size(); ++t)
    progress_.say("validation " + metrics_text(tasks[t].name, metrics[t]) + (better ? "  *" : ""));
  if (!folder_) return;
  JsonLine line;
  line.add("phase", std::string("validation")).add("step", state_.step).add("epoch", state_.epoch);
  line.add("score", score).add("best_step", state_.best_step);
  folder_->log(line.add_json("validation", metrics_json(tasks, metrics)).text());
  std::vector<std::pair<std::string, double>> scalars;
  for (size_t t = 0; t < tasks.size(); ++t) {
    scalars.emplace_back("validation/" + tasks[t].name + "/auc", metrics[t].auc);
    scalars.emplace_back("validation/" + tasks[t].name + "/uauc", metrics[t].user.mean);
    scalars.emplace_back("validation/" + tasks[t].name + "/log_loss", metrics[t].log_loss);
  }
  events_->scalars(state_.step, scalars);
}

}  // namespace mixrec

#include "mixrec/train/trainer.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"
#include "mixrec/ops/cast.h"
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
std::vector<double> weight_sums(std::span<const PlacedBatch> group, size_t tasks) {
  std::vector<double> sums(tasks);
  for (const PlacedBatch& batch : group) {
    const Tensor& weights = batch.host.weights;
    const auto* weight = weights.data<const float>();
    for (int64_t i = 0; i < weights.numel(); ++i) sums[static_cast<size_t>(i) % tasks] += weight[i];
  }
  return sums;
}

}  // namespace

Loader Trainer::make_loader(Split split, int workers) const {
  const DataConfig& data = options_.config.data;
  return Loader(data_, split,
                {.batch_size = data.batch_size,
                 .event_cap = data.max_events,
                 .shuffle = data.shuffle == "rows" ? Shuffle::rows : Shuffle::requests,
                 .seed = derive_seed(static_cast<uint64_t>(config_.seed), "order of rows"),
                 .workers = workers,
                 .training = true});
}

void Trainer::train(Split split) {
  Prefetcher batches(make_loader(split, static_cast<int>(options_.config.data.workers)), device_);
  set_lengths(batches);
  batches.start(state_.epoch, state_.batch);
  while (!reached_end() && StopSignals::received() == 0) {
    const auto start = Clock::now();
    step(batches);
    state_.train_seconds += seconds_since(start);
    const bool log = config_.log_every > 0 && state_.step % config_.log_every == 0;
    if (log || device_.is_cpu()) settle();
    progress_.update({.step = state_.step,
                      .total_steps = total_steps_,
                      .epoch = state_.epoch,
                      .loss = shown_loss_,
                      .samples = session_samples_,
                      .flops = session_flops_,
                      .refitting = phase() == Phase::refitting});
    if (log) log_step();
    const bool epoch_ended = state_.batch == 0;
    const bool due = config_.eval_every > 0 ? state_.step % config_.eval_every == 0 : epoch_ended;
    if (selects() && (due || reached_end())) validate();
    if (config_.checkpoint_every > 0 && state_.step % config_.checkpoint_every == 0) save();
    if (epoch_ended && !reached_end()) batches.start(state_.epoch);
  }
  settle();
}

bool Trainer::reached_end() const {
  if (phase() == Phase::refitting) return state_.step >= state_.refit_steps;
  return state_.epoch >= config_.epochs || (config_.max_steps > 0 && state_.step >= config_.max_steps) ||
         (config_.patience > 0 && state_.not_better >= config_.patience) ||
         (config_.max_minutes > 0 && state_.train_seconds > 60 * config_.max_minutes);
}

void Trainer::set_lengths(Prefetcher& batches) {
  // Batches of the first epoch stand for all: under an event cap their number varies a little.
  batches.start(0);
  const int64_t an_epoch = (batches.batches() + config_.accumulate - 1) / config_.accumulate;
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

std::vector<PlacedBatch> Trainer::next_group(Prefetcher& batches) {
  std::vector<PlacedBatch> group;
  while (static_cast<int64_t>(group.size()) < config_.accumulate) {
    auto batch = batches.next();
    if (!batch) break;
    group.push_back(std::move(*batch));
  }
  return group;
}

void Trainer::step(Prefetcher& batches) {
  queued_.push_back({batches.position(), pass_.rng});
  const std::vector<PlacedBatch> group = next_group(batches);
  const std::vector<double> normalisers = weight_sums(group, data_.spec().tasks.size());
  Tensor loss;
  for (const PlacedBatch& batch : group) {
    const Tensor part = forward_backward(batch, normalisers, 1.0 / static_cast<double>(group.size()));
    loss = loss.defined() ? loss + part : part;
    state_.samples += batch.host.candidates;
    session_samples_ += batch.host.candidates;
    // The backward costs about two forwards: one product a factor.
    session_flops_ += 3 * model_.forward_flops(batch.host);
  }
  lr_factor_ = learning_rate_factor(schedule_, state_.step);
  optimizer_->step({.lr_factor = lr_factor_, .loss = loss});
  optimizer_->zero_grad();
  add_into(queued_loss_, cast(loss, f64));
  last_loss_ = loss;
  const bool epoch_ends = batches.position().batch == batches.batches();
  state_.epoch = batches.position().epoch + (epoch_ends ? 1 : 0);
  state_.batch = epoch_ends ? 0 : batches.position().batch;
  state_.rng_offset = pass_.rng.offset();
  ++state_.step;
}

Tensor Trainer::forward_backward(const PlacedBatch& batch, const std::vector<double>& normalisers,
                                 double share) {
  const RequestBatch& rows = batch.placed;
  Tensor logits = model_.forward(rows, pass_);
  const Shape expected{rows.candidates, static_cast<int64_t>(normalisers.size())};
  MR_CHECK(logits.shape() == expected, "the model's logits are ", logits.shape(), ", expected ", expected,
           " for [candidates, tasks]");
  if (logits.dtype() == bf16) logits = cast(logits, f32);
  Tensor loss = sum(bce_with_logits_per_task(logits, rows.labels, rows.weights, normalisers) * task_weights_);
  for (const Tensor& auxiliary : pass_.losses) loss = loss + cast(auxiliary, loss.dtype()) * share;
  pass_.losses.clear();
  loss.backward();
  return loss.detach();
}

void Trainer::settle() {
  if (queued_.empty()) return;
  const auto start = Clock::now();
  if (device_.is_cuda()) cuda::check_device_errors(device_.index);
  const StepReport report = optimizer_->report();
  if (report.refused > 0) fail_refused(report);
  gradient_norm_ = report.gradient_norm;
  shown_loss_ = last_loss_.item();
  state_.loss_sum += queued_loss_.item();
  state_.loss_steps += static_cast<int64_t>(queued_.size());
  queued_loss_.fill(0);
  queued_.clear();
  state_.train_seconds += seconds_since(start);
}

void Trainer::fail_refused(const StepReport& report) {
  // The first refused step; all after it were refused too, so the weights are still those that it met.  Batches
  // are a function of their position.
  const int64_t step = state_.step - report.refused + 1;
  const QueuedStep& refused = queued_[queued_.size() - static_cast<size_t>(report.refused)];
  Loader loader = make_loader(choosing() ? Split::train : Split::refit, 0);
  loader.start(refused.begin.epoch, refused.begin.batch);
  Pass replay;
  replay.training = true;
  replay.rng = refused.rng;
  replay.compute = pass_.compute;
  std::string where, finite;
  for (int64_t k = 0; k < config_.accumulate && where.empty(); ++k) {
    const auto batch = loader.next();
    if (!batch) break;
    where = first_not_finite(model_, data_.spec(), *batch, replay);
    finite = concat_message("its forward pass is finite, in a batch of ", batch->candidates,
                            " rows that begins at row ", batch->row.at(0), " of the data set");
  }
  const std::string what = report.not_finite.empty() ? "the loss" : "the gradient of " + report.not_finite;
  MR_FAIL("step ", step, ": ", what, " is not finite; ", where.empty() ? finite : where,
          "; no weight was changed by this step");
}

void Trainer::log_step() {
  const double loss = state_.loss_sum / static_cast<double>(state_.loss_steps);
  state_.loss_sum = 0, state_.loss_steps = 0;
  if (!folder_) return;
  JsonLine line;
  line.add("phase", std::string(choosing() ? "train" : "refit"));
  line.add("step", state_.step).add("epoch", state_.epoch).add("loss", loss);
  line.add("lr_factor", lr_factor_).add("gradient_norm", gradient_norm_);
  line.add("samples", state_.samples).add("seconds", state_.train_seconds);
  folder_->log(line.text());
  const std::string tag = choosing() ? "train/" : "refit/";
  const std::pair<std::string, double> scalars[] = {
      {tag + "loss", loss}, {tag + "gradient_norm", gradient_norm_}, {tag + "lr_factor", lr_factor_}};
  events_->scalars(state_.step, scalars);
}

void Trainer::validate() {
  settle();
  std::optional<AveragedWeights> averaged;
  if (config_.ema > 0) averaged.emplace(*optimizer_);
  const std::vector<TaskSpec>& tasks = data_.spec().tasks;
  progress_.stage("evaluating the validation rows");
  const auto metrics = evaluate(model_, data_, Split::validation, evaluate_options(TrainedOn::training_part));
  const double score = selection_score(metrics, config_.select_by);
  MR_CHECK(std::isfinite(score), "train.select_by is ", config_.select_by,
           ", which the validation rows do not determine");
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
    progress_.say("validation " + metrics_text(tasks[t], metrics[t]) + (better ? "  *" : ""));
  if (!folder_) return;
  JsonLine line;
  line.add("phase", std::string("validation")).add("step", state_.step).add("epoch", state_.epoch);
  line.add("score", score).add("best_step", state_.best_step);
  folder_->log(line.add_json("validation", metrics_json(tasks, metrics)).text());
  std::vector<std::pair<std::string, double>> scalars;
  for (size_t t = 0; t < tasks.size(); ++t) {
    for (const MetricName& name : metrics[t].names) {
      const double value = metrics[t].value(name);
      if (std::isfinite(value)) scalars.emplace_back("validation/" + tasks[t].name + "/" + name.text, value);
    }
  }
  events_->scalars(state_.step, scalars);
}

}  // namespace mixrec

// How a run begins, passes from one phase to the next, is saved, resumed and ended.
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/train/check_trainable.h"
#include "mixrec/train/device_choice.h"
#include "mixrec/train/report.h"
#include "mixrec/train/signals.h"
#include "mixrec/train/summary.h"
#include "mixrec/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

namespace mixrec {

namespace {

constexpr const char* kDropoutSeed = "dropout";

}  // namespace

FitResult fit_model(RankingModel& model, const Dataset& data, const FitOptions& options) {
  check_config(options.config);
  std::vector<std::string> notes = check_trainable(data, options.config.train);
  const bool fresh = !options.out.empty() && !options.resume;
  const bool existed = std::filesystem::exists(options.out);
  bool created = false;
  try {
    Trainer trainer(model, data, options, std::move(notes));
    created = fresh;
    return trainer.run();
  } catch (...) {
    // A run that failed before its first checkpoint has nothing that a resume could use.
    const bool useless = created && !std::filesystem::exists(options.out + "/checkpoint.safetensors");
    std::error_code ignored;
    if (useless && !existed) std::filesystem::remove_all(options.out, ignored);
    if (useless && existed)
      for (const auto& entry : std::filesystem::directory_iterator(options.out))
        std::filesystem::remove_all(entry, ignored);
    throw;
  }
}

Trainer::Trainer(RankingModel& model, const Dataset& data, const FitOptions& options,
                 std::vector<std::string> notes)
    : model_(model),
      data_(data),
      options_(options),
      config_(options.config.train),
      notes_(std::move(notes)),
      parameters_(model.parameters()),
      has_validation_(data.stats(Split::validation).rows > 0),
      device_(choose_device(options.config.train.device)),
      progress_(stderr, options.quiet) {
  std::vector<float> weights;
  for (const TaskSpec& task : data.spec().tasks) weights.push_back(static_cast<float>(task.loss_weight));
  to_device(parameters_, device_);
  task_weights_ = Tensor::from(weights).to(device_);
  queued_loss_ = zeros({}, f64, device_);
  if (config_.refit) initial_ = clone_weights();
  make_optimizer();
  if (options.out.empty()) return;
  if (options.resume) {
    folder_ = RunFolder::resume(options.out);
    folder_->lock();
    record_ = read_record(*folder_);
    check_resumable(*folder_, record_, options.config, data.schema().json, data.fingerprint());
    check_reports(*folder_, record_);
    MR_CHECK(data.encoders().id == record_.encoders, "cannot resume ", options.out,
             ": the data was opened with other encoders than the run's, ", folder_->encoders_path());
  } else {
    folder_ = RunFolder::create(options.out);
    record_ = new_record(data, options.config, options.out);
    begin_run(*folder_, record_, data);
    write_file_atomically(folder_->config_path(), dump_config(options.config));
  }
}

void Trainer::make_optimizer() {
  // The one before owns the buffers that gradients are written to.
  optimizer_.reset();
  const Config& config = options_.config;
  optimizer_.emplace(parameters_, OptimizerOptions{.dense = config.optimizer,
                                                   .tables = config.table_optimizer,
                                                   .groups = config.groups,
                                                   .clip_norm = config_.clip_norm,
                                                   .average_decay = config_.ema});
  pass_.training = true;
  pass_.compute = choose_precision(config_.precision);
  pass_.rng = Rng(derive_seed(static_cast<uint64_t>(config_.seed), kDropoutSeed));
}

FitResult Trainer::run() {
  std::optional<StopSignals> signals;
  if (options_.stop_on_signals) signals.emplace();
  if (folder_ && options_.resume && folder_->has_checkpoint()) load();
  if (folder_ && options_.resume) resume_metrics();
  if (folder_ && !folder_->has_metrics()) folder_->log("{" + record_.json_labels() + "}");
  if (folder_) events_.emplace(folder_->path(), state_.step);
  if (folder_) events_->text(state_.step, "run", "{" + record_.json_labels() + "}");
  seconds_before_ = state_.seconds;
  announce();
  if (choosing()) {
    train(Split::train);
    if (reached_end()) end_choosing();
  }
  if (phase() == Phase::refitting) {
    train(Split::refit);
    if (reached_end()) {
      state_.phase = static_cast<int64_t>(Phase::done);
      save();
    }
  }
  if (phase() == Phase::done) return finish();
  save();
  progress_.say(folder_ ? "stopped; continue with --resume" : "stopped");
  FitResult result;
  result.signal = StopSignals::received();
  result.steps = state_.step;
  result.best_step = state_.best_step;
  return result;
}

void Trainer::resume_metrics() {
  if (folder_->cut_metrics(state_.metrics_bytes)) return;
  progress_.say("metrics.jsonl has lost lines that the run had written; its weights and its result have not");
}

void Trainer::end_choosing() {
  if (!config_.refit) {
    state_.phase = static_cast<int64_t>(Phase::done);
    return save();
  }
  double length = static_cast<double>(state_.best_step);
  double stretch = 1;
  if (config_.refit_for == "passes")
    stretch = static_cast<double>(data_.stats(Split::refit).rows) /
              static_cast<double>(data_.stats(Split::train).rows);
  state_.refit_steps = std::max<int64_t>(1, std::llround(length * stretch));
  state_.schedule_steps = std::llround(static_cast<double>(state_.schedule_steps) * stretch);
  progress_.say(concat_message("best step ", state_.best_step, "; training afresh on the whole period for ",
                               state_.refit_steps, " steps"));
  copy_weights(initial_);
  make_optimizer();
  state_.phase = static_cast<int64_t>(Phase::refitting);
  state_.step = state_.epoch = state_.batch = 0;
  state_.rng_offset = 0;
  state_.loss_sum = 0, state_.loss_steps = 0;
  save();
}

TrainedOn Trainer::final_trained_on() const {
  return config_.refit ? TrainedOn::whole_period : TrainedOn::training_part;
}

EvaluateOptions Trainer::evaluate_options(TrainedOn trained_on) const {
  const DataConfig& data = options_.config.data;
  return {.trained_on = trained_on,
          .batch_size = 4 * data.batch_size,
          .max_events = 4 * data.max_events,
          .workers = static_cast<int>(data.workers),
          .compute = choose_precision(config_.precision),
          .metrics = config_.metrics_to_compute()};
}

void Trainer::use_final_weights() {
  const bool chosen = state_.best_step > 0 && !config_.refit;
  if (chosen && folder_) {
    record_.check(load_scalars(folder_->best_path()), folder_->best_path());
    load_tensors(folder_->best_path(), named_tensors(parameters_));
  } else if (chosen) {
    copy_weights(best_);
  } else {
    if (config_.ema > 0) optimizer_->swap_averages();
    keep_best();
  }
}

FitResult Trainer::finish() {
  use_final_weights();
  FitResult result;
  result.finished = true;
  result.best_step = state_.best_step;
  result.steps = state_.best_step > 0 && !config_.refit ? state_.best_step : state_.step;
  for (const Parameter& parameter : parameters_)
    if (parameter.kind != ParameterKind::buffer) result.parameters += parameter.value.numel();
  result.validation = parse_metrics(data_.spec().tasks, config_.metrics_to_compute(), state_.validation);
  if (config_.test) progress_.stage("evaluating the test rows");
  if (config_.test) result.test = evaluate(model_, data_, Split::test, evaluate_options(final_trained_on()));
  result.seconds = seconds();
  result.samples_per_second = static_cast<double>(state_.samples) / state_.train_seconds;
  result.json = result_json(result);
  if (folder_) {
    write_file_atomically(folder_->result_path(), result.json + "\n");
  }
  progress_.say(summary_text(options_.config, data_.spec().tasks, result, options_.out));
  return result;
}

std::string Trainer::result_json(const FitResult& result) const {
  const std::vector<TaskSpec>& tasks = data_.spec().tasks;
  JsonLine line;
  line.add("model", model_.name()).add("params", result.parameters);
  line.add("seconds", result.seconds).add("samples_per_second", result.samples_per_second);
  if (!result.test.empty()) line.add_json("test", metrics_json(tasks, result.test));
  if (!result.validation.empty()) line.add_json("validation", metrics_json(tasks, result.validation));
  line.add("best_step", result.best_step).add("steps", result.steps).add("seed", config_.seed);
  SimulatedBounds bounds;
  if (read_simulated_bounds(options_.config.data.path, bounds)) {
    for (size_t t = 0; t < result.test.size(); ++t) {
      if (tasks[t].name != bounds.task) continue;
      JsonLine simulated;
      simulated.add("popularity_auc", bounds.floor_auc).add("bayes_auc", bounds.bayes_auc);
      line.add_json("simulated", simulated.add("share", bounds.share(result.test[t].auc)).text());
    }
  }
  std::string text = line.text();
  if (folder_) text.insert(text.size() - 1, "," + record_.json_labels());
  return text;
}

void Trainer::keep_best() {
  if (!folder_) {
    best_ = clone_weights();
    return;
  }
  const bool whole_period = phase() != Phase::choosing && config_.refit;
  Scalars scalars = record_.labels();
  scalars["model"] = model_.name();
  scalars["step"] = std::to_string(state_.step);
  scalars["trained_on"] = whole_period ? "whole_period" : "training_part";
  save_tensors(folder_->best_path(), named_tensors(parameters_), scalars);
}

std::vector<NamedTensor> Trainer::tensors() const {
  std::vector<NamedTensor> all = named_tensors(parameters_, "model.");
  for (NamedTensor& tensor : optimizer_->state()) all.push_back({"state." + tensor.name, tensor.value});
  return all;
}

void Trainer::save() {
  settle();
  if (!folder_) return;
  state_.seconds = seconds();
  state_.metrics_bytes = folder_->sync_metrics();
  Scalars scalars = state_.to_scalars();
  scalars.merge(record_.labels());
  save_tensors(folder_->checkpoint_path(), tensors(), scalars);
}

void Trainer::load() {
  const std::string path = folder_->checkpoint_path();
  record_.check(load_scalars(path), path);
  if (std::filesystem::exists(folder_->best_path()))
    record_.check(load_scalars(folder_->best_path()), folder_->best_path());
  state_ = TrainState::from_scalars(load_tensors(path, tensors()), path);
  MR_CHECK(phase() != Phase::choosing || state_.epoch <= config_.epochs, path, " is damaged: epoch is ",
           state_.epoch, " of ", config_.epochs);
  pass_.rng = Rng(pass_.rng.seed(), state_.rng_offset);
}

std::vector<Tensor> Trainer::clone_weights() const {
  std::vector<Tensor> clones;
  for (const Parameter& parameter : parameters_) clones.push_back(parameter.value.clone());
  return clones;
}

void Trainer::copy_weights(const std::vector<Tensor>& from) {
  for (size_t i = 0; i < parameters_.size(); ++i) Tensor(parameters_[i].value).copy_from(from[i]);
}

double Trainer::seconds() const {
  return seconds_before_ + std::chrono::duration<double>(Clock::now() - start_).count();
}

void Trainer::announce() {
  int64_t dense = 0, tables = 0;
  for (const Parameter& parameter : parameters_) {
    if (parameter.kind == ParameterKind::dense) dense += parameter.value.numel();
    if (parameter.kind == ParameterKind::table) tables += parameter.value.numel();
  }
  progress_.say(device_line(device_, pass_.compute));
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    const SplitStats stats = data_.stats(split);
    const std::string days =
        stats.first_day == stats.last_day ? stats.first_day : stats.first_day + " to " + stats.last_day;
    progress_.say(concat_message(split_name(split), ": ", count_text(static_cast<double>(stats.rows)),
                                 " rows", days.empty() ? "" : ", " + days));
  }
  progress_.say(concat_message("model ", model_.name(), ": ", count_text(static_cast<double>(dense)),
                               " dense parameters, ", count_text(static_cast<double>(tables)), " in tables"));
  for (const std::string& note : notes_) progress_.say(note);
  if (state_.step > 0) progress_.say(concat_message("resuming after step ", state_.step));
}

}  // namespace mixrec

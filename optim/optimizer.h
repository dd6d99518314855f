// Optimizer: one step for all parameters of a model, dense ones and embedding tables.
//
//   Optimizer optimizer(parameters, {.dense = {.name = "adamw", .lr = 1e-3, .weight_decay = 0.01},
//                                    .tables = {.name = "adagrad", .lr = 0.05, .eps = 1e-10},
//                                    .groups = {{.pattern = "*.bias", .weight_decay = 0}},
//                                    .clip_norm = 1});
//   for (int64_t s = 0; s < steps; ++s) {
//     loss(batch()).backward();
//     optimizer.step({.lr_factor = learning_rate_factor(schedule, s)});
//     optimizer.zero_grad();
//   }
//
// rules.h has the formulas, table.h what tables do with look-ups, options.h the names and numbers.  All bits
// are the same for any number of threads.
//
// Parameters on a CUDA device are updated there: step() queues its work and waits for nothing, so it can be
// recorded into a cuda::Graph, of which every replay is a step:
//
//   cuda::Graph graph([&] { optimizer.step({.loss = loss}); });
//   optimizer.prepare({.lr_factor = …}), graph.replay();
#pragma once

#include "mixrec/core/parameter.h"
#include "mixrec/optim/options.h"
#include "mixrec/optim/schedule.h"
#include "mixrec/optim/state.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mixrec {

struct StepOptions {
  double lr_factor = 1;       // on every learning rate
  double gradient_scale = 1;  // on every gradient: 1 / k after k backwards of mean losses
  Tensor loss = {};           // one number, where the parameters are: nothing is done unless it is finite
};

struct StepReport {
  bool applied = false;      // false: no parameter, state or count has changed
  double gradient_norm = 0;  // over all gradients, look-ups summed by row; scaled, before clipping
  double clip_factor = 1;    // what clipping multiplied the gradients with
  int64_t table_rows = 0;    // that were updated
  // The first parameter whose gradient has a NaN or infinity; empty when it is the loss that has.
  std::string not_finite;
  int64_t refused = 0;  // steps from this one on that were not applied: 0, 1, on a device more (see report())
  bool pending = false;  // on a device: nothing of this is known yet, ask Optimizer::report()
};

class Optimizer {
 public:
  // Trains the dense parameters and tables that require a gradient and that no group freezes; buffers are
  // left alone.  Frozen ones stop requiring a gradient.  Moves dense parameters into one flat buffer, so make
  // it after the model is complete (loaded, cast, placed); views taken of a parameter before do not follow.
  // Throws on two parameters of one name or one tensor, on parameters on several devices, on a group that
  // matches nothing, on a rule or a number that makes no sense, and when nothing is left to train.
  Optimizer(std::vector<Parameter> parameters, const OptimizerOptions& options);
  ~Optimizer();
  Optimizer(Optimizer&&) noexcept;
  Optimizer& operator=(Optimizer&&) noexcept;

  // One step with the gradients since zero_grad(), from any number of backwards.  It is refused, and the
  // report says so, when the loss is not finite or the gradient norm is not; the next zero_grad() goes on as
  // if the batch had never been (on a device after report()).  Gradients stay until zero_grad().  Throws when a
  // parameter was frozen, unfrozen, moved or converted since the optimiser was made: make a new one.
  //
  // On a device the report is `pending`.  While a graph is being recorded, lr_factor and gradient_scale are not
  // looked at: a replay takes those of the last prepare().
  StepReport step(const StepOptions& options = {});

  // Hands lr_factor and gradient_scale to the replays that follow.  Queued: replays already under way keep
  // theirs.
  void prepare(const StepOptions& options);

  // What came of the last step, or of the last replay.  On a device it waits for it, and when a step since the
  // last report() was refused, it tells of the first of these: the steps after it were refused too, so that the
  // weights are still those of the bad batch.  Then it lets steps go on.  Throws when look-ups had ids outside
  // their table.
  StepReport report();

  // Forgets gradients and look-ups of all given parameters.
  void zero_grad();

  int64_t steps() const;  // applied so far; on a device it waits

  // Exchanges the weights and their moving averages, to evaluate or save these; call it again to go back.
  // Before the first step both are the same.  Meanwhile step() and state() throw.  state.h defines the
  // average.
  void swap_averages();
  bool averages_in_use() const { return averages_in_use_; }

  // All that a resumed run needs beside the weights, by stable names ("adamw.m.blocks.0.gate",
  // "average.blocks.0.gate", "optimizer.steps").  The tensors share the optimiser's memory: write to them, or
  // load_state(), to restore it bit by bit.
  std::vector<NamedTensor> state() const;

  // Copies a saved state back.  Throws unless names, shapes and dtypes are those of state().
  void load_state(const std::vector<NamedTensor>& saved);

 private:
  struct Parts;

  // Where a parameter was when the optimiser was made; null: it is not trained.
  struct Home {
    const void* data;
    DType dtype;
  };

  StepReport step_on_device(const StepOptions& options);
  void check_unchanged() const;

  std::vector<Parameter> parameters_;
  OptimizerOptions options_;
  std::vector<Home> homes_;  // of parameters_
  std::unique_ptr<Parts> parts_;
  bool averages_in_use_ = false;
};

// The averaged weights for its lifetime: { AveragedWeights averaged(optimizer); evaluate(model); }
class AveragedWeights {
 public:
  explicit AveragedWeights(Optimizer& optimizer) : optimizer_(optimizer) { optimizer_.swap_averages(); }
  ~AveragedWeights() { optimizer_.swap_averages(); }
  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

 private:
  Optimizer& optimizer_;
};

}  // namespace mixrec

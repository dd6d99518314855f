// From what a model knows of a candidate to one logit per task.
//
//   towers          y_k = w_k · tower_k(norm_k(x)) + b_k
//   shared_bottom   the same behind one tower that all tasks share
//   mmoe            y_k of Σ_e softmax(G_k(x))_e E_e(x)             Ma et al., KDD 2018
//   ple             levels of mixtures of experts, some of which are a task's own; below the last level a shared state
//                   mixes the experts of all tasks                  Tang et al., RecSys 2020
//
// Logits are f32 (f64 in f64): the last product is computed in f32 also where x is bf16.
#pragma once

#include "mixrec/core/feature_spec.h"
#include "mixrec/nn/tower.h"

#include <string>
#include <vector>

namespace mixrec {

struct TaskHeadsOptions {
  std::string kind = "towers";  // towers | shared_bottom | mmoe | ple
  TowerOptions tower = {.widths = {64}};
  TowerOptions bottom = {.widths = {128}};  // shared_bottom
  TowerOptions expert = {.widths = {64}},
               gate = {.widths = {}};  // mmoe, ple: a last product gives a gate's weights
  int64_t experts = 4;                 // mmoe: all; ple: those that are shared
  int64_t own_experts = 1;             // ple: those of each task
  int64_t levels = 1;                  // ple

  void visit(OptionVisitor& v);
};

// What the heads read: x [rows, width], or tokens of a width [rows, tokens, width], which are flattened behind the norm.
struct HeadInput {
  int64_t width = 0, tokens = 1;
  bool norm = false;  // an RMSNorm of the width per task
  double norm_eps = 1e-6;
};

class TaskHeads : public Module {
 public:
  // One task: RMSNorm -> flatten -> tower -> Linear.
  struct Head : Module {
    std::optional<RMSNorm> norm;
    Tower tower;
    Linear logit;

    Head(const HeadInput& input, const TowerOptions& options, Rng& rng);
    Tensor forward(const Tensor& x, Pass& pass) const;  // -> [rows, 1]
    Tensor forward_by_request(const Tensor& shared, const Tensor& own, const Tensor& offsets,
                              Pass& pass) const;
    void visit(Visitor& v);  // norm.gain, mlp.0.…
  };

  // Throws when there is no task, and when a norm is asked of a kind other than towers.
  TaskHeads(const HeadInput& input, const std::vector<TaskSpec>& tasks, const TaskHeadsOptions& options,
            Rng& rng);

  // x [C, width] or [C, tokens, width] -> logits [C, tasks].
  Tensor forward(const Tensor& x, Pass& pass) const;

  // forward() of x whose first columns, or tokens, are those of the candidate's request: shared [R, …], own [C, …],
  // offsets i64 [R + 1] -> [C, tasks].  Towers and shared bottoms multiply `shared` once per request.
  Tensor forward_by_request(const Tensor& shared, const Tensor& own, const Tensor& offsets, Pass& pass) const;

  // The heads one by one, in the order of tasks: what is behind all that tasks share.
  const std::vector<Head>& heads() const { return heads_; }

  void visit(Visitor& v);  // TASK.…, bottom.…, experts.…, gates.…

 private:
  // Experts mixed by gates: level l of PLE, or MMoE.
  struct Mixture : Module {
    std::vector<Tower> experts;  // of task 0, of task 1, …, shared
    std::vector<Tower> gates;    // per task, and of the shared state where there is one
    std::vector<Linear> scores;  // parallel to gates
    std::vector<std::string> gate_names;

    void visit(Visitor& v);
  };

  std::vector<Tensor> behind_mixtures(const Tensor& x, Pass& pass) const;
  Tensor logits_of(const std::vector<Tensor>& per_task, Pass& pass) const;

  std::string kind_;
  int64_t experts_ = 0, own_experts_ = 0;
  std::vector<std::string> task_names_;
  std::optional<Tower> bottom_;
  std::vector<Mixture> levels_;
  std::vector<Head> heads_;
};

}  // namespace mixrec

#include "mixrec/nn/heads.h"

#include "mixrec/core/error.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/linear_by_request.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/request.h"
#include "mixrec/ops/softmax.h"

namespace mixrec {
namespace {

// As the last product takes it.
Tensor widened(const Tensor& x) { return x.dtype() == bf16 ? cast(x, f32) : x; }

// [rows, tokens, width] -> [rows, tokens · width]
Tensor flat(const Tensor& x) { return x.ndim() == 2 ? x : x.reshape({x.dim(0), x.dim(1) * x.dim(2)}); }

}  // namespace

void TaskHeadsOptions::visit(OptionVisitor& v) {
  v.choice("kind", kind, {"towers", "shared_bottom", "mmoe", "ple"}, "how tasks share what they know");
  v.nested("tower", tower, "of each task");
  v.nested("bottom", bottom, "shared_bottom: below all tasks");
  v.nested("expert", expert, "mmoe, ple: each expert");
  v.nested("gate", gate, "mmoe, ple: below the gates' scores");
  v.number("experts", experts, between(1, 1024), "mmoe: all; ple: those that are shared");
  v.number("own_experts", own_experts, between(1, 1024), "ple: of each task");
  v.number("levels", levels, between(1, 16), "ple");
}

TaskHeads::Head::Head(const HeadInput& input, const TowerOptions& options, Rng& rng)
    : tower(input.tokens * input.width, options, rng), logit(tower.out(), 1, rng) {
  if (input.norm) norm.emplace(input.width, input.norm_eps);
}

Tensor TaskHeads::Head::forward(const Tensor& x, Pass& pass) const {
  return logit.forward(widened(tower.forward(flat(norm ? norm->forward(x) : x), pass)));
}

Tensor TaskHeads::Head::forward_by_request(const Tensor& shared, const Tensor& own, const Tensor& offsets,
                                           Pass& pass) const {
  const Tensor users = flat(norm ? norm->forward(shared) : shared);
  const Tensor items = flat(norm ? norm->forward(own) : own);
  if (tower.size() == 0)
    return linear_by_request(widened(users), widened(items), offsets, logit.weight, logit.bias);
  return logit.forward(widened(tower.forward_by_request(users, items, offsets, pass)));
}

void TaskHeads::Head::visit(Visitor& v) {
  struct Mlp {
    Head& head;
    void visit(Visitor& v) {
      head.tower.visit(v);
      v.module(std::to_string(head.tower.size()), head.logit);
    }
  } mlp{*this};
  if (norm) v.module("norm", *norm);
  v.module("mlp", mlp);
}

void TaskHeads::Mixture::visit(Visitor& v) {
  v.modules("experts", experts);
  for (size_t g = 0; g < gates.size(); ++g) {
    v.module("gates." + gate_names[g], gates[g]);
    v.module("scores." + gate_names[g], scores[g]);
  }
}

TaskHeads::TaskHeads(const HeadInput& input, const std::vector<TaskSpec>& tasks, const TaskHeadsOptions& o,
                     Rng& rng)
    : kind_(o.kind), experts_(o.experts), own_experts_(o.kind == "ple" ? o.own_experts : 0) {
  MR_CHECK(!tasks.empty(), "the heads of a model need at least one task");
  MR_CHECK(!input.norm || kind_ == "towers", "heads of kind '", kind_, "' have no norm of their own");
  const int64_t count = static_cast<int64_t>(tasks.size());
  for (const TaskSpec& task : tasks) task_names_.push_back(task.name);
  int64_t width = input.tokens * input.width;
  if (kind_ == "shared_bottom") width = bottom_.emplace(width, o.bottom, rng).out();
  const int64_t levels = kind_ == "mmoe" ? 1 : kind_ == "ple" ? o.levels : 0;
  for (int64_t l = 0; l < levels; ++l) {
    Mixture& level = levels_.emplace_back();
    for (int64_t e = 0; e < count * own_experts_ + experts_; ++e)
      level.experts.emplace_back(width, o.expert, rng);
    const auto add_gate = [&](const std::string& name, int64_t mixed) {
      level.gate_names.push_back(name);
      level.gates.emplace_back(width, o.gate, rng);
      level.scores.emplace_back(level.gates.back().out(), mixed, rng, LinearOptions{.bias = false});
    };
    for (const std::string& task : task_names_) add_gate(task, own_experts_ + experts_);
    if (l + 1 < levels) add_gate("shared", count * own_experts_ + experts_);
    width = level.experts[0].out();
  }
  const HeadInput per_task = kind_ == "towers" ? input : HeadInput{.width = width};
  for (int64_t t = 0; t < count; ++t) heads_.emplace_back(per_task, o.tower, rng);
}

std::vector<Tensor> TaskHeads::behind_mixtures(const Tensor& x, Pass& pass) const {
  const size_t tasks = task_names_.size(), own = static_cast<size_t>(own_experts_);
  std::vector<Tensor> states(tasks + 1, x);  // per task, and the shared one
  for (const Mixture& level : levels_) {
    // The experts of a state read it.
    std::vector<Tensor> experts;
    for (size_t e = 0; e < level.experts.size(); ++e) {
      const Tensor y = level.experts[e].forward(states[own > 0 ? std::min(e / own, tasks) : tasks], pass);
      experts.push_back(y.reshape({y.dim(0), 1, y.dim(1)}));
    }
    const auto mixed = [&](size_t gate, const std::vector<Tensor>& parts) {
      const Tensor scores =
          level.scores[gate].forward(widened(level.gates[gate].forward(states[gate], pass)));
      const Tensor shares = softmax(scores), values = concat(parts, 1);
      return sum(values * cast(shares, values.dtype()).reshape({shares.dim(0), shares.dim(1), 1}), 1);
    };
    std::vector<Tensor> next;
    for (size_t t = 0; t < tasks; ++t) {
      std::vector<Tensor> parts(experts.begin() + static_cast<ptrdiff_t>(t * own),
                                experts.begin() + static_cast<ptrdiff_t>((t + 1) * own));
      parts.insert(parts.end(), experts.begin() + static_cast<ptrdiff_t>(tasks * own), experts.end());
      next.push_back(mixed(t, parts));
    }
    next.push_back(level.gates.size() > tasks ? mixed(tasks, experts) : Tensor());
    states = std::move(next);
  }
  states.pop_back();
  return states;
}

Tensor TaskHeads::logits_of(const std::vector<Tensor>& per_task, Pass& pass) const {
  std::vector<Tensor> logits;
  for (size_t t = 0; t < heads_.size(); ++t)
    logits.push_back(heads_[t].forward(per_task[std::min(t, per_task.size() - 1)], pass));
  return concat(logits, 1);
}

Tensor TaskHeads::forward(const Tensor& x, Pass& pass) const {
  if (kind_ == "towers") return logits_of({x}, pass);
  if (bottom_) return logits_of({bottom_->forward(flat(x), pass)}, pass);
  return logits_of(behind_mixtures(flat(x), pass), pass);
}

Tensor TaskHeads::forward_by_request(const Tensor& shared, const Tensor& own, const Tensor& offsets,
                                     Pass& pass) const {
  if (bottom_) return logits_of({bottom_->forward_by_request(flat(shared), flat(own), offsets, pass)}, pass);
  if (kind_ == "towers") {
    std::vector<Tensor> logits;
    for (const Head& head : heads_) logits.push_back(head.forward_by_request(shared, own, offsets, pass));
    return concat(logits, 1);
  }
  return forward(concat({expand_by_request(flat(shared), offsets, own.dim(0)), flat(own)}, 1), pass);
}

void TaskHeads::visit(Visitor& v) {
  if (bottom_) v.module("bottom", *bottom_);
  v.modules("levels", levels_);
  for (size_t t = 0; t < heads_.size(); ++t) v.module(task_names_[t], heads_[t]);
}

}  // namespace mixrec

#include "mixrec/optim/optimizer.h"

#include "mixrec/core/copy.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/optim/dense.h"
#include "mixrec/optim/device.h"
#include "mixrec/optim/table.h"

#include <cmath>
#include <map>
#include <set>
#include <type_traits>

namespace mixrec {

using optim::Trained;

struct Optimizer::Parts {
  optim::DenseSet dense;
  optim::TableSet tables;
  Tensor steps;  // i64 [1], to be saved like all other state
  Device device;
  Tensor shared;           // on a device: the bytes of a DeviceStep
  StepReport last;         // of the last step,
  bool on_device = false;  // unless it is to be fetched from there

  optim::DeviceStep* device_step() const { return reinterpret_cast<optim::DeviceStep*>(shared.raw_data()); }
  std::string name(size_t parameter) const {
    return parameter < dense.size() ? dense.name(parameter) : tables.name(parameter - dense.size());
  }
};

namespace {

void check_distinct(const std::vector<Parameter>& parameters) {
  std::set<std::string> names;
  std::map<const void*, std::string> tensors;
  for (const Parameter& p : parameters) {
    MR_CHECK(names.insert(p.name).second, "two parameters are called ", p.name);
    const auto [place, fresh] = tensors.emplace(p.value.id(), p.name);
    MR_CHECK(fresh, "the parameters ", place->second, " and ", p.name, " are one tensor: give it once");
  }
}

void check_groups(const std::vector<GroupOptions>& groups, const std::vector<Parameter>& parameters) {
  for (const GroupOptions& group : groups) {
    std::vector<std::string> names;
    bool used = false;
    for (const Parameter& p : parameters) {
      used = used || matches_pattern(p.name, group.pattern);
      names.push_back(p.name);
    }
    const std::string nearest = nearest_name(group.pattern, names);
    MR_CHECK(used, "the group '", group.pattern, "' matches no parameter",
             nearest.empty() ? "" : "; did you mean " + nearest + "?");
    MR_CHECK(group.lr_scale >= 0, "the group '", group.pattern, "' has lr_scale = ", group.lr_scale);
  }
}

const GroupOptions* group_of(const std::string& name, const std::vector<GroupOptions>& groups) {
  const GroupOptions* last = nullptr;
  for (const GroupOptions& group : groups) {
    if (matches_pattern(name, group.pattern)) last = &group;
  }
  return last;
}

// The parameters of one kind that are trained, with their numbers; freezes the others.
std::vector<Trained> trained(const std::vector<Parameter>& parameters, ParameterKind kind,
                             const RuleOptions& rule, const std::vector<GroupOptions>& groups) {
  std::vector<Trained> out;
  for (const Parameter& p : parameters) {
    if (p.kind != kind || !p.value.needs_grad()) continue;
    MR_CHECK(p.value.is_leaf(), "the parameter ", p.name, " is the result of an op: nothing to train");
    const GroupOptions* group = group_of(p.name, groups);
    if (group && group->freeze) {
      Tensor(p.value).requires_grad(false);
      continue;
    }
    MR_CHECK(p.value.dtype() == f32 || p.value.dtype() == f64, "the parameter ", p.name, " is ",
             p.value.dtype(), "; parameters are trained in f32 (or f64)");
    out.push_back({p.name, p.value, rule.lr * (group ? group->lr_scale : 1),
                   group && group->weight_decay >= 0 ? group->weight_decay : rule.weight_decay});
  }
  return out;
}

Device device_of(const std::vector<Trained>& dense, const std::vector<Trained>& tables) {
  const Trained& first = dense.empty() ? tables[0] : dense[0];
  for (const auto* list : {&dense, &tables}) {
    for (const Trained& p : *list) {
      MR_CHECK(p.value.device() == first.value.device(), "the parameter ", p.name, " is on ",
               p.value.device(), " and ", first.name, " on ", first.value.device(),
               ": one optimiser trains on one device");
    }
  }
  return first.value.device();
}

// The bytes of a fresh DeviceStep on a device.
Tensor make_device_step(Device device) {
  const optim::DeviceStep fresh;
  const auto* const bytes = reinterpret_cast<const uint8_t*>(&fresh);
  return Tensor::from(std::vector<uint8_t>(bytes, bytes + sizeof fresh)).to(device);
}

// f(Cuda) for a device; the CPU's side never comes here.
template <class F>
void on_cuda(Device device, F&& f) {
  on_backend(device, [&](auto backend) {
    if constexpr (std::is_same_v<decltype(backend), Cuda>) f(backend);
  });
}

}  // namespace

Optimizer::Optimizer(std::vector<Parameter> parameters, const OptimizerOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  MR_OP("optimizer");
  check_dense_rule(options_.dense);
  check_table_rule(options_.tables);
  MR_CHECK(options_.clip_norm >= 0, "clip_norm = ", options_.clip_norm, " is negative");
  MR_CHECK(options_.average_decay >= 0 && options_.average_decay < 1,
           "average_decay = ", options_.average_decay, " is outside [0, 1)");
  check_distinct(parameters_);
  check_groups(options_.groups, parameters_);
  auto dense = trained(parameters_, ParameterKind::dense, options_.dense, options_.groups);
  auto tables = trained(parameters_, ParameterKind::table, options_.tables, options_.groups);
  MR_CHECK(!dense.empty() || !tables.empty(), "nothing to train: none of ", parameters_.size(),
           " parameters requires a gradient");
  const optim::MovingAverage average{options_.average_decay};
  const Device device = device_of(dense, tables);
  parts_.reset(new Parts{optim::DenseSet(std::move(dense), options_.dense, average),
                         optim::TableSet(std::move(tables), options_.tables, average),
                         zeros({1}, i64, device),
                         device,
                         device.is_cuda() ? make_device_step(device) : Tensor(),
                         {}});
  for (const Parameter& p : parameters_) {
    const bool trained = p.kind != ParameterKind::buffer && p.value.needs_grad();
    homes_.push_back({trained ? p.value.raw_data() : nullptr, p.value.dtype()});
  }
}

void Optimizer::check_unchanged() const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& p = parameters_[i];
    const Home& home = homes_[i];
    const bool trained = home.data != nullptr;
    MR_CHECK(p.kind == ParameterKind::buffer || p.value.needs_grad() == trained, "the parameter ", p.name,
             " was ", trained ? "frozen" : "set to require a gradient",
             " after the optimiser was made; make a new one to train the others");
    MR_CHECK(!trained || p.value.dtype() == home.dtype, "the parameter ", p.name, " was converted to ",
             p.value.dtype(), " after the optimiser was made; make the optimiser last");
    MR_CHECK(!trained || p.value.raw_data() == home.data, "the parameter ", p.name,
             " was moved after the optimiser was made; make the optimiser last");
  }
}

Optimizer::~Optimizer() = default;
Optimizer::Optimizer(Optimizer&&) noexcept = default;
Optimizer& Optimizer::operator=(Optimizer&&) noexcept = default;

StepReport Optimizer::step(const StepOptions& options) {
  MR_OP("optimizer step");
  MR_CHECK(!averages_in_use_,
           "the averaged weights are in use; swap_averages() brings the trained ones back");
  check_unchanged();
  StepReport& report = parts_->last;
  report = {};
  report.refused = 1;
  parts_->on_device = false;
  if (parts_->device.is_cuda()) return step_on_device(options);
  if (options.loss.defined() && !std::isfinite(options.loss.item())) return report;
  auto& dense = parts_->dense;
  auto& tables = parts_->tables;
  dense.collect();
  tables.collect();
  report.gradient_norm =
      std::abs(options.gradient_scale) * std::sqrt(dense.sum_of_squares() + tables.sum_of_squares());
  if (!std::isfinite(report.gradient_norm)) {
    report.not_finite = dense.first_not_finite();
    if (report.not_finite.empty()) report.not_finite = tables.first_not_finite();
    return report;
  }
  const double limit = options_.clip_norm;
  if (limit > 0 && report.gradient_norm > limit) report.clip_factor = limit / report.gradient_norm;
  const double scale = options.gradient_scale * report.clip_factor;
  const int64_t step = this->steps() + 1;
  dense.update(step, options.lr_factor, scale);
  tables.update(step, options.lr_factor, scale);
  parts_->steps.fill(static_cast<double>(step));
  report.applied = true;
  report.refused = 0;
  report.table_rows = tables.rows();
  return report;
}

StepReport Optimizer::step_on_device(const StepOptions& options) {
  Parts& parts = *parts_;
  MR_CHECK(!options.loss.defined() || (options.loss.numel() == 1 && is_floating(options.loss.dtype()) &&
                                       options.loss.device() == parts.device),
           "the loss must be one number on ", parts.device, ", got ", options.loss.dtype(),
           options.loss.shape(), " on ", options.loss.device());
  if (!cuda::capturing()) prepare(options);
  optim::DeviceStep* const step = parts.device_step();
  on_cuda(parts.device, [&](Cuda device) {
    parts.dense.collect();
    const optim::Partials squares = parts.dense.square(device, step);
    const auto rows = parts.tables.collect(device, static_cast<int32_t>(parts.dense.size()), step);
    if constexpr (kHasCuda) {
      optim::kernel::decide(device,
                            {.clip_norm = options_.clip_norm,
                             .beta1 = options_.dense.beta1,
                             .beta2 = options_.dense.beta2,
                             .average = {options_.average_decay},
                             .loss = options.loss.defined() ? options.loss.raw_data() : nullptr,
                             .loss_dtype = options.loss.defined() ? options.loss.dtype() : f32},
                            squares, rows.get(), parts.steps.data<int64_t>(), step);
    }
    parts.dense.update(device, step);
    parts.tables.update(device, rows.get(), step);
  });
  parts.on_device = true;
  StepReport report;
  report.pending = true;
  return report;
}

void Optimizer::prepare(const StepOptions& options) {
  MR_OP("optimizer step");
  MR_CHECK(parts_->device.is_cuda(), "prepare() is for replays, and the parameters are on ", parts_->device);
  check_unchanged();
  MR_CHECK(!cuda::capturing(), "prepare() inside a graph would be replayed with it: call it before replay()");
  if constexpr (kHasCuda) {
    on_cuda(parts_->device, [&](Cuda device) {
      optim::kernel::set_numbers(device, options.lr_factor, options.gradient_scale, parts_->device_step());
    });
  }
}

StepReport Optimizer::report() {
  MR_OP("optimizer report");
  if (!parts_->on_device) return parts_->last;
  optim::DeviceStep found;
  cuda::copy(&found, kCpu, parts_->device_step(), parts_->device, sizeof found);
  if constexpr (kHasCuda) {
    if (found.refused > 0)
      on_cuda(parts_->device,
              [&](Cuda device) { optim::kernel::accept_again(device, parts_->device_step()); });
  }
  MR_CHECK(found.lost_lookups == 0, found.lost_lookups,
           " look-ups since the optimiser was made had an id outside their table, and were left out");
  StepReport report;
  report.applied = found.applied != 0;
  report.refused = found.refused;
  report.gradient_norm = found.gradient_norm;
  report.clip_factor = found.clip_factor;
  report.table_rows = found.table_rows;
  if (found.not_finite != optim::kNoParameter)
    report.not_finite = parts_->name(static_cast<size_t>(found.not_finite));
  return report;
}

void Optimizer::zero_grad() {
  for (const Parameter& p : parameters_) Tensor(p.value).zero_grad();
}

int64_t Optimizer::steps() const { return parts_->steps.to_vector<int64_t>()[0]; }

void Optimizer::swap_averages() {
  MR_OP("optimizer averages");
  MR_CHECK(options_.average_decay > 0, "no averages are kept: set average_decay above 0");
  averages_in_use_ = !averages_in_use_;
  if (steps() == 0) return;
  parts_->dense.swap_averages();
  parts_->tables.swap_averages(parts_->steps);
}

std::vector<NamedTensor> Optimizer::state() const {
  MR_OP("optimizer state");
  MR_CHECK(!averages_in_use_,
           "the averaged weights are in use; swap_averages() brings the trained ones back");
  std::vector<NamedTensor> all{{"optimizer.steps", parts_->steps}};
  parts_->dense.append_state(all);
  parts_->tables.append_state(all);
  return all;
}

void Optimizer::load_state(const std::vector<NamedTensor>& saved) {
  MR_OP("optimizer state");
  std::map<std::string, Tensor> known;
  std::vector<std::string> names;
  for (const NamedTensor& s : state()) {
    known.emplace(s.name, s.value);
    names.push_back(s.name);
  }
  for (const NamedTensor& s : saved) {
    const auto to = known.find(s.name);
    MR_CHECK(to != known.end(), "the saved state has ", s.name, ", which this optimiser has not");
    MR_CHECK(to->second.shape() == s.value.shape() && to->second.dtype() == s.value.dtype(), "the saved ",
             s.name, " is ", s.value.dtype(), s.value.shape(), ", the optimiser's ", to->second.dtype(),
             to->second.shape());
    copy_into(to->second, s.value);
    known.erase(to);
  }
  MR_CHECK(known.empty(), "the saved state lacks ", known.empty() ? "" : known.begin()->first);
}

}  // namespace mixrec

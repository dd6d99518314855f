// Modules: plain structs with a typed forward() and one visit() that names their members.
//
//   struct Scorer : Module {
//     Linear hidden, out;
//     Scorer(int64_t width, Rng& rng) : hidden(width, 32, rng), out(32, 1, rng) {}
//     Tensor forward(const Tensor& x) const { return out.forward(silu(hidden.forward(x))); }
//     void visit(Visitor& v) { v.module("hidden", hidden), v.module("out", out); }
//   };
//
// visit() alone serves parameters, checkpoints, moves of dtype and device, freezing and the summary.  There is no
// registration and no base class with virtual functions; forward() takes and returns what the module needs.
#pragma once

#include "mixrec/core/parameter.h"
#include "mixrec/core/rng.h"
#include "mixrec/core/tensor.h"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

// Modules move but do not copy: a copy would share its tensors (std::vector<Block>(4, block) would be one set
// of weights under four names).
struct Module {
  Module() = default;
  Module(Module&&) = default;
  Module& operator=(Module&&) = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
};

// Walks a model's members with their dotted names.
class Visitor {
 public:
  using Visit = std::function<void(const std::string& name, Tensor& value, ParameterKind kind)>;
  explicit Visitor(Visit visit) : visit_(std::move(visit)) {}

  // Undefined tensors are passed over: a Linear without bias.
  void parameter(std::string_view name, Tensor& value) { tensor(name, value, ParameterKind::dense); }
  void table(std::string_view name, Tensor& value) { tensor(name, value, ParameterKind::table); }
  void buffer(std::string_view name, Tensor& value) { tensor(name, value, ParameterKind::buffer); }

  template <class M>
  void module(std::string_view name, M& member) {
    const size_t outer = prefix_.size();
    prefix_.append(name).append(".");
    member.visit(*this);
    prefix_.resize(outer);
  }
  // name.0, name.1, …
  template <class M>
  void modules(std::string_view name, std::vector<M>& members) {
    for (size_t i = 0; i < members.size(); ++i)
      module(std::string(name) + "." + std::to_string(i), members[i]);
  }

 private:
  void tensor(std::string_view name, Tensor& value, ParameterKind kind) {
    if (value.defined()) visit_(prefix_ + std::string(name), value, kind);
  }

  Visit visit_;
  std::string prefix_;
};

// Every named tensor of a model, in the order of visit().  Throws when one tensor appears under two names.
std::vector<Parameter> check_unshared(std::vector<Parameter> parameters);

template <class M>
std::vector<Parameter> parameters(M& model) {
  std::vector<Parameter> found;
  Visitor visitor([&](const std::string& name, Tensor& value, ParameterKind kind) {
    found.push_back({name, value, kind});
  });
  model.visit(visitor);
  return check_unshared(std::move(found));
}

// Converts every floating tensor; gradients are forgotten.  Handles to the tensors stay valid.  Make the optimiser
// afterwards.  f64 makes gradient checks sharp.
void to_dtype(const std::vector<Parameter>& parameters, DType dtype);

template <class M>
requires requires(M& model, Visitor& visitor) { model.visit(visitor); }
void to_dtype(M& model, DType dtype) { to_dtype(parameters(model), dtype); }

// Moves every tensor to `device`; gradients are forgotten.  Handles to the tensors stay valid.  Make the
// optimiser afterwards: its state lies beside the parameters.
void to_device(const std::vector<Parameter>& parameters, Device device);

template <class M>
requires requires(M& model, Visitor& visitor) { model.visit(visitor); }
void to_device(M& model, Device device) { to_device(parameters(model), device); }

// Where a model computes: the device of its first tensor; the host when it has none.
Device device_of(const std::vector<Parameter>& parameters);

// Stops (or resumes) training of all parameters whose names match (matches_pattern); returns how many did.
int freeze(const std::vector<Parameter>& parameters, std::string_view pattern, bool frozen = true);

// A table of names, shapes and counts, with totals of dense parameters and tables.
std::string summary(const std::vector<Parameter>& parameters);

template <class M>
std::string summary(M& model) {
  return summary(parameters(model));
}

}  // namespace mixrec

// Recording an op: the last of the five steps of every op body.
//
//   return record(y, {x}, [&] {
//     return [y = Saved(y)](const Tensor& dy) -> Grads { return {softmax_backward(y.get(), dy)}; };
//   });
//
// The outer lambda runs only when grad mode is on and an input needs a gradient.  The inner lambda's capture
// list is the list of saved tensors.  It returns one gradient an input, in order; an undefined one means
// zero.  There is no double backward: closures run with recording off.
#pragma once

#include "mixrec/core/tensor.h"

#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

namespace mixrec {

using Grads = std::vector<Tensor>;

// Which inputs need a gradient: `needs[1]` is false when the second need not be computed.
class Needs {
 public:
  // `homes`: where the gradients of some inputs are kept; `sums`: what newer ops have left of them.  Either may be
  // undefined, or missing.
  explicit Needs(std::vector<bool> flags, std::vector<Tensor> homes = {}, std::vector<Tensor*> sums = {})
      : flags_(std::move(flags)), homes_(std::move(homes)), sums_(std::move(sums)) {}
  bool operator[](size_t input) const { return flags_[input]; }

  // A dense tensor for the gradient of an input, to be written whole and returned: its home, which saves a
  // copy, or a new one.
  Tensor gradient(size_t input, const Shape& shape, DType dtype, Device device) const;

  // What newer ops have left of the gradient of an input that is no leaf, for this op to add its own to, which saves a
  // pass that only adds.  Whoever asks takes it, and must return it with the rest added.  Undefined where there is
  // nothing, where somebody else could see it, and while a checkpoint recomputes.
  Tensor running(size_t input) const;

 private:
  std::vector<bool> flags_;
  std::vector<Tensor> homes_;
  std::vector<Tensor*> sums_;
};

// A tensor kept for the backward: detached, and refused when it was changed in place in between.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& x);
  const Tensor& get() const;

 private:
  Tensor tensor_;
  uint32_t version_ = 0;
};

bool grad_enabled();

// Turns recording on or off on this thread for its lifetime.
class GradMode {
 public:
  explicit GradMode(bool on);
  ~GradMode();
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;

 private:
  bool outer_;
};

// No graph is recorded while one of these lives: evaluation, optimiser steps.
struct NoGrad : GradMode {
  NoGrad() : GradMode(false) {}
};

// Whether an op on `x` would be recorded for it.
inline bool needs_grad(const Tensor& x) { return grad_enabled() && x.defined() && x.needs_grad(); }

namespace autograd {

using Backward = std::function<Grads(const std::vector<Tensor>& dys, const Needs& needs)>;

// Makes the graph node of an op.  Undefined inputs are allowed and get no gradient.  `recomputes`: the closure runs
// a backward of its own, as checkpoint() does.
void make_node(std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs, Backward backward,
               bool recomputes = false);

bool any_needs_grad(const std::vector<Tensor>& inputs);

// While one lives, every op on this thread shows it its output: how the first NaN of a pass is found.  Views
// are left out: they make no numbers, and an op may take one of memory that it has yet to fill.
class OutputWatch {
 public:
  using Function = std::function<void(const char* op, const Tensor& output)>;
  explicit OutputWatch(Function function);
  ~OutputWatch();
  OutputWatch(const OutputWatch&) = delete;
  OutputWatch& operator=(const OutputWatch&) = delete;

  static void show(const Tensor& output, const std::vector<Tensor>& inputs) {
    if (current_) [[unlikely]]
      current_->call(output, inputs);
  }

 private:
  void call(const Tensor& output, const std::vector<Tensor>& inputs) const;

  static thread_local OutputWatch* current_;
  Function function_;
  OutputWatch* outer_;
};

}  // namespace autograd

// One output.  make() returns a callable (dy) or (dy, needs) -> Grads.
template <class Make>
Tensor record(Tensor y, const std::vector<Tensor>& inputs, Make make) {
  autograd::OutputWatch::show(y, inputs);
  if (!grad_enabled() || !autograd::any_needs_grad(inputs)) return y;
  std::vector<Tensor> outputs{std::move(y)};
  autograd::make_node(outputs, inputs,
                      [backward = make()](const std::vector<Tensor>& dys, const Needs& needs) {
                        if constexpr (std::is_invocable_v<decltype(backward), const Tensor&, const Needs&>) {
                          return backward(dys[0], needs);
                        } else {
                          return backward(dys[0]);
                        }
                      });
  return std::move(outputs[0]);
}

// Several outputs.  make() returns a callable (dys, needs) -> Grads; a dy that never arrived is zeros.
template <class Make>
std::vector<Tensor> record(std::vector<Tensor> outputs, const std::vector<Tensor>& inputs, Make make) {
  for (const Tensor& y : outputs) autograd::OutputWatch::show(y, inputs);
  if (grad_enabled() && autograd::any_needs_grad(inputs)) autograd::make_node(outputs, inputs, make());
  return outputs;
}

}  // namespace mixrec

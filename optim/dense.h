// The dense side of an optimiser: parameters, gradients and state in flat buffers.
#pragma once

#include "mixrec/optim/device.h"
#include "mixrec/optim/options.h"
#include "mixrec/optim/state.h"

#include <cstdint>
#include <string>
#include <vector>

namespace mixrec::optim {

// Moves every parameter into one flat buffer (each starts at a multiple of 64 bytes), has autograd write its
// gradient into a second one, and updates all of them in one pass.  Parameters that are also read in bf16
// (autograd/shadow.h) have their shadows in a third, which the same pass writes.
//
// A parameter without a gradient in a step counts as one with a gradient of zeros: its moments and its weight
// decay go on.
class DenseSet {
 public:
  // All of one dtype, f32 or f64, and on one device.  Views taken of a parameter before this no longer follow
  // it.
  DenseSet(std::vector<Trained> parameters, const RuleOptions& rule, MovingAverage average);

  size_t size() const { return parameters_.size(); }
  const std::string& name(size_t parameter) const { return parameters_[parameter].name; }

  // Brings the gradients into the flat buffer: what a step starts with.
  void collect();
  double sum_of_squares() const;         // of the collected gradients
  std::string first_not_finite() const;  // name of the first parameter with such a gradient, or ""
  // Step number `step` (from 1), with gradients times `gradient_scale`.
  void update(int64_t step, double lr_factor, double gradient_scale);

  // The same on a device, queued.
  Partials square(Cuda device, DeviceStep* step);
  void update(Cuda device, const DeviceStep* step);

  // Exchanges weights and averages.
  void swap_averages();

  void append_state(std::vector<NamedTensor>& to) const;

 private:
  // A run of elements of one parameter, small enough to stay in the cache over a pass.
  struct Block {
    size_t parameter;
    int64_t begin, count;
  };

  Tensor slice(const Tensor& flat, size_t parameter) const;
  void keep_shadows();
  bool in_shadows(size_t parameter) const;  // whether its shadow lies in the flat buffer
  void mark_changed();
  void mark_shadows();
  void leave_held_gradients();
  void make_device_blocks();
  template <class T>
  DenseView<T> view() const;
  template <class T>
  void update_as(int64_t step, double lr_factor, double gradient_scale);
  template <class T, class Rule>
  void run(const std::vector<Rule>& rules, double gradient_scale);
  template <class T>
  void average_as(int64_t step);

  std::vector<Trained> parameters_;
  RuleOptions rule_;
  MovingAverage average_;
  DType dtype_ = f32;
  Device device_;
  std::vector<int64_t> offsets_;  // of each parameter in the flat buffers, in elements
  std::vector<Block> blocks_;
  Tensor values_, gradients_, averages_;
  Tensor shadows_;             // bf16; undefined while no parameter has one
  std::vector<Tensor> state_;  // flat like the values, one for each slot of the rule
  bool recorded_ = false;      // a step was recorded into a graph: no buffer may move

  Tensor device_blocks_, partials_;  // on a device: DenseBlocks, and a sum of squares for each
};

}  // namespace mixrec::optim

// What the dense and the table side of an optimiser have in common.
#pragma once

#include "mixrec/core/host_device.h"
#include "mixrec/core/tensor.h"

#include <cmath>
#include <string>
#include <vector>

namespace mixrec {

struct NamedTensor {
  std::string name;
  Tensor value;
};

namespace optim {

// A parameter that is updated, with the numbers of its group.
struct Trained {
  std::string name;
  Tensor value;
  double lr = 0;  // of the rule, times the group's scale
  double weight_decay = 0;
};

// Zeros whose memory is taken from the system only where it is first written: state of tables is as large as
// the tables, and most rows of a large table are rarely seen.  (On a device all of it is taken.)
Tensor lazy_zeros(const Shape& shape, DType dtype, Device device = kCpu);

// f.operator()<T>() for f32 and f64, the dtypes that parameters and their state may have.
template <class F>
void dispatch_real(DType dtype, F&& f) {
  if (dtype == f64) return f.template operator()<double>();
  f.template operator()<float>();
}

// The moving average after step t of a weight that was p_k after step k:
//
//   average_t = Σ_k decay^(t-k) p_k / Σ_k decay^(t-k),   k = 1 … t
//
// normalised, so that the initial weights have no part in it.  Two averages are related by
//
//   average_b = p + kept(a, b) (average_a - p)   when the weight was p after all of the steps a + 1 … b,
//
// which is all a dense parameter needs from step to step (b = a + 1), and what lets a table's row wait until
// it changes.
struct MovingAverage {
  double decay = 0;

  MR_HOST_DEVICE double kept(int64_t a, int64_t b) const {
    return std::pow(decay, static_cast<double>(b - a)) * (1 - std::pow(decay, static_cast<double>(a))) /
           (1 - std::pow(decay, static_cast<double>(b)));
  }
};

}  // namespace optim
}  // namespace mixrec

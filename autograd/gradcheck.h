// Gradients against central finite differences, in f64.
#pragma once

#include "mixrec/core/tensor.h"

#include <functional>
#include <string>
#include <vector>

namespace mixrec {

struct GradcheckOptions {
  double step = 1e-5;           // relative to max(1, |x|)
  double tolerance = 1e-6;      // on the relative error below
  int64_t max_elements = 4096;  // an input with more elements is sampled evenly
  uint64_t seed = 1;            // of the upstream gradient
};

struct GradcheckResult {
  // max over inputs of |analytic - numeric| / (|analytic| + |numeric|), in the 2-norm over the input's
  // elements
  double error = 0;
  bool passed = true;
  std::string message;  // names the worst input and element when it failed
};

// Compares the gradients of <fn(inputs), upstream> for a random upstream with central differences.  Inputs
// are f64 leaves that require a gradient; others are held constant.  fn must be deterministic and smooth at
// the inputs.
GradcheckResult gradcheck(const std::function<Tensor(const std::vector<Tensor>&)>& fn,
                          const std::vector<Tensor>& inputs, const GradcheckOptions& options = {});

}  // namespace mixrec

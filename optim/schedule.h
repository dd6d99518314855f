// Learning-rate schedules: the factor on every learning rate as a plain function of the step.
#pragma once

#include "mixrec/core/options.h"

#include <cstdint>
#include <string>

namespace mixrec {

struct ScheduleOptions {
  std::string name = "constant";  // constant | cosine | step
  int64_t warmup_steps = 0;       // linear: the first step takes 1 / warmup_steps
  int64_t total_steps = 0;        // cosine: steps of the whole run, warm-up included
  double final_share = 0;         // cosine: the factor from step total_steps on
  int64_t step_every = 0;         // step: multiplies by step_factor after every so many steps
  double step_factor = 0.1;

  void visit(OptionVisitor& v);
};

// The factor for step s = 0, 1, …:  min(1, (s + 1) / warmup_steps) · shape(s), where
//
//   constant  1
//   cosine    f + (1 - f) (1 + cos(π q)) / 2,  q = (s - warmup_steps) / (total_steps - warmup_steps) cut to
//             [0, 1],  f = final_share
//   step      step_factor ^ floor(s / step_every)
//
// Throws on an unknown name, on cosine without a length beyond the warm-up, and on step without step_every.
double learning_rate_factor(const ScheduleOptions& schedule, int64_t step);

}  // namespace mixrec

#include "mixrec/optim/schedule.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace mixrec {

namespace {

double shape_of(const ScheduleOptions& c, int64_t step) {
  if (c.name == "constant") return 1;
  if (c.name == "cosine") {
    const int64_t length = c.total_steps - c.warmup_steps;
    MR_CHECK(length > 0, "the cosine schedule has total_steps = ", c.total_steps,
             " and warmup_steps = ", c.warmup_steps, "; nothing is left to decay over");
    const double progress =
        std::clamp(static_cast<double>(step - c.warmup_steps) / static_cast<double>(length), 0.0, 1.0);
    return c.final_share + (1 - c.final_share) * (1 + std::cos(std::numbers::pi * progress)) / 2;
  }
  if (c.name == "step") {
    MR_CHECK(c.step_every > 0, "the step schedule needs step_every above 0, got ", c.step_every);
    return std::pow(c.step_factor, static_cast<double>(step / c.step_every));
  }
  const std::vector<std::string> known{"constant", "cosine", "step"};
  const std::string nearest = nearest_name(c.name, known);
  MR_FAIL("no schedule '", c.name, "'; ",
          nearest.empty() ? "there are constant, cosine and step" : "did you mean " + nearest + "?");
}

}  // namespace

double learning_rate_factor(const ScheduleOptions& schedule, int64_t step) {
  MR_CHECK(step >= 0, "steps count from 0, got ", step);
  const double warm = schedule.warmup_steps > 0
                          ? static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps)
                          : 1.0;
  return std::min(1.0, warm) * shape_of(schedule, step);
}

}  // namespace mixrec

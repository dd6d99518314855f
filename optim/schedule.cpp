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

void ScheduleOptions::visit(OptionVisitor& v) {
  const OptionRange count = between(0, kMostCount);
  v.choice("name", name, {"constant", "cosine", "step"}, "");
  v.number("warmup_steps", warmup_steps, count, "steps of linear warm-up");
  v.number("total_steps", total_steps, count, "cosine: steps until the end; 0 = the length of the run");
  v.number("final_share", final_share, between(0, 1),
           "cosine: share of the learning rate that is left at the end");
  v.number("step_every", step_every, count,
           "step: multiply the learning rate by step_factor every so many steps");
  v.number("step_factor", step_factor, above(0, 1e3), "");
}

double learning_rate_factor(const ScheduleOptions& schedule, int64_t step) {
  MR_CHECK(step >= 0, "steps count from 0, got ", step);
  const double warm = schedule.warmup_steps > 0
                          ? static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps)
                          : 1.0;
  return std::min(1.0, warm) * shape_of(schedule, step);
}

}  // namespace mixrec

#include "mixrec/optim/schedule.h"

#include "mixrec/core/error.h"

#include <doctest/doctest.h>
#include <numbers>

using namespace mixrec;

TEST_CASE("optim: schedules are plain functions of the step") {
  const auto factor = [](const ScheduleOptions& schedule, int64_t step) {
    return learning_rate_factor(schedule, step);
  };
  CHECK(factor({}, 12345) == 1);
  CHECK(factor({.warmup_steps = 4}, 0) == 0.25);
  CHECK(factor({.warmup_steps = 4}, 3) == 1);
  const ScheduleOptions cosine{.name = "cosine", .warmup_steps = 10, .total_steps = 110, .final_share = 0.2};
  CHECK(factor(cosine, 4) == doctest::Approx(0.5));
  CHECK(factor(cosine, 10) == doctest::Approx(1));
  CHECK(factor(cosine, 60) == doctest::Approx(0.6));
  CHECK(factor(cosine, 35) == doctest::Approx(0.2 + 0.4 * (1 + std::numbers::sqrt2 / 2)));
  CHECK(factor(cosine, 110) == doctest::Approx(0.2));
  CHECK(factor(cosine, 500) == doctest::Approx(0.2));
  const ScheduleOptions step{.name = "step", .step_every = 30, .step_factor = 0.5};
  CHECK(factor(step, 29) == 1);
  CHECK(factor(step, 30) == 0.5);
  CHECK(factor(step, 95) == 0.125);
  CHECK_THROWS_WITH_AS(factor({.name = "cosin"}, 0), doctest::Contains("did you mean cosine?"), Error);
  CHECK_THROWS_WITH_AS(factor({.name = "cosine", .warmup_steps = 5, .total_steps = 5}, 0),
                       doctest::Contains("total_steps = 5 and warmup_steps = 5"), Error);
  CHECK_THROWS_WITH_AS(factor({.name = "step"}, 0), doctest::Contains("needs step_every above 0"), Error);
}

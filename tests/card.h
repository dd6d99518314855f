// Tests that need a card.
#pragma once

#include "mixrec/core/cuda.h"
#include "mixrec/tests/skip.h"

#include <string>

namespace mixrec::test {

inline constexpr Device kCard{Device::Type::cuda, 0};

// Whether there is one; if not, `what` is counted as skipped, with the reason.
inline bool has_card(const std::string& what) {
  if (cuda::device_count() > 0) return true;
  skip(what + ": " + cuda::unavailable_reason());
  return false;
}

}  // namespace mixrec::test

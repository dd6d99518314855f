// The devices that a test runs on.
#pragma once

#include "mixrec/core/cuda.h"
#include "mixrec/tests/skip.h"

#include <string>
#include <vector>

namespace mixrec::test {

// The CPU, and the first card where there is one: else `what` is skipped there.
inline std::vector<Device> devices(const std::string& what) {
  std::vector<Device> list{kCpu};
  if (cuda::device_count() > 0) {
    list.push_back({Device::Type::cuda});
  } else {
    skip(what + " on a device: " + cuda::unavailable_reason());
  }
  return list;
}

}  // namespace mixrec::test

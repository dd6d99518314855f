// Where a run computes, and in what precision, from the words of its configuration.
#pragma once

#include "mixrec/core/device.h"
#include "mixrec/core/dtype.h"

#include <optional>
#include <string>

namespace mixrec {

// "cpu", "cuda" (the first card) or "cuda:N"; none for anything else.
std::optional<Device> parse_device(const std::string& name);

// The same and "auto": the first card where this build and this machine have one, else the host.  Throws when
// a card is asked for that is not there, with the reason.
Device choose_device(const std::string& name);

// "f32" or "bf16".
DType choose_precision(const std::string& name);

// "device cuda:0, NVIDIA H100 80GB HBM3 (…), bf16": the first line of a run's log.
std::string device_line(Device device, DType compute);

}  // namespace mixrec

#include "mixrec/train/device_choice.h"

#include "mixrec/core/cpu.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"

#include <algorithm>
#include <cctype>

namespace mixrec {

std::optional<Device> parse_device(const std::string& name) {
  if (name == "cpu") return kCpu;
  if (name == "cuda") return Device{Device::Type::cuda, 0};
  if (!name.starts_with("cuda:")) return std::nullopt;
  const std::string digits = name.substr(5);
  const bool number =
      !digits.empty() && digits.size() <= 3 &&
      std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c); });
  if (!number) return std::nullopt;
  return Device{Device::Type::cuda, std::stoi(digits)};
}

Device choose_device(const std::string& name) {
  const int cards = cuda::device_count();
  if (name == "auto") return cards > 0 ? Device{Device::Type::cuda, 0} : kCpu;
  const auto device = parse_device(name);
  MR_CHECK(device, "there is no device '", name, "'; known are auto, cpu, cuda and cuda:N");
  if (device->is_cpu()) return *device;
  MR_CHECK(cards > 0, "the device ", *device, " was asked for: ", cuda::unavailable_reason(),
           "; cpu works everywhere");
  MR_CHECK(device->index < cards, "the device ", *device, " was asked for, but this machine has ", cards,
           cards == 1 ? " card" : " cards");
  return *device;
}

DType choose_precision(const std::string& name) {
  MR_CHECK(name == "f32" || name == "bf16", "there is no precision '", name, "'; known are f32 and bf16");
  return name == "bf16" ? bf16 : f32;
}

std::string device_line(Device device, DType compute) {
  if (device.is_cuda())
    return concat_message("device ", device, ", ", cuda::describe(device.index), ", ", compute);
  const std::string line =
      concat_message("device cpu, ", isa_name(current_isa()), ", ", num_threads(), " threads, ", compute);
  // Whoever built for CUDA wants to know why it is not used.
  const bool without_card = kHasCuda && cuda::device_count() == 0;
  return without_card ? line + " (" + cuda::unavailable_reason() + ")" : line;
}

}  // namespace mixrec

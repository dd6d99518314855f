// Where a tensor lives, and the tags that pick a kernel's backend.
#pragma once

#include <cstdint>
#include <iosfwd>

namespace mixrec {

struct Device {
  enum class Type : uint8_t { cpu, cuda };

  Type type = Type::cpu;
  int index = 0;

  bool is_cpu() const { return type == Type::cpu; }
  bool is_cuda() const { return type == Type::cuda; }
  bool operator==(const Device&) const = default;
};

inline constexpr Device kCpu{};

std::ostream& operator<<(std::ostream& out, Device device);

// Kernels are overloaded on these: kernel::softmax(Cpu{}, …).  A kernel that is missing does not link.
struct Cpu {};
struct Cuda {
  void* stream;
};

}  // namespace mixrec

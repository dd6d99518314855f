#include "mixrec/core/cpu.h"

#include "mixrec/core/error.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <string>

namespace mixrec {

namespace detail {
// In core/cpu_baseline.cpp: naming it here brings the start-up check into every program that picks kernels.
extern const bool processor_is_checked;
}  // namespace detail

namespace {

constexpr std::array<const char*, 3> kNames{"baseline", "avx2", "avx512"};

Isa checked(Isa isa) {
  MR_CHECK(isa <= widest_isa(), "this processor cannot run ", isa_name(isa), ": the widest it has is ",
           isa_name(widest_isa()));
  return isa;
}

Isa from_environment() {
  const char* wanted = std::getenv("MIXREC_ISA");
  if (!wanted || !*wanted) return widest_isa();
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == std::string(wanted)) return checked(static_cast<Isa>(i));
  const std::string near = nearest_name(wanted, kNames);
  MR_FAIL("MIXREC_ISA must be baseline, avx2 or avx512, got \"", wanted, "\"",
          near.empty() ? "" : "; did you mean ", near, near.empty() ? "" : "?");
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa{from_environment()};
  return isa;
}

}  // namespace

const char* isa_name(Isa isa) { return kNames[static_cast<size_t>(isa)]; }

Isa widest_isa() {
  static const Isa widest = [] {
    if (!detail::processor_is_checked) return Isa::baseline;
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return avx2 && avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::baseline;
  }();
  return widest;
}

Isa current_isa() { return chosen(); }

void set_isa(Isa isa) { chosen() = checked(isa); }

}  // namespace mixrec

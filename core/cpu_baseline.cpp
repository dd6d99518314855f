// The check that this processor runs what the library was compiled for, made before any other code of ours.
//
// Compiled for plain x86-64 whatever ARCH says, and free of C++ headers, so that nothing here is beyond an
// old processor.
#include "mixrec/config.h"

#include <stdio.h>
#include <unistd.h>

namespace mixrec::detail {

extern const bool processor_is_checked;
const bool processor_is_checked = true;

namespace {

constexpr bool same(const char* a, const char* b) {
  while (*a && *a == *b) ++a, ++b;
  return *a == *b;
}

// True also for an ARCH outside the four levels, which names one processor and leaves the choice to its user.
bool runs_here() {
  __builtin_cpu_init();
  // Feature by feature: not every compiler knows the levels by name.  What is left out of a level comes with the rest
  // on every processor that was made.
  const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  const bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  if (same(MIXREC_ARCH, "x86-64-v2")) return v2;
  if (same(MIXREC_ARCH, "x86-64-v3")) return v3;
  if (same(MIXREC_ARCH, "x86-64-v4"))
    return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  return true;
}

// 101 is the first priority that programs may use: earlier than any static initialiser.
[[gnu::constructor(101)]] void check_processor() {
  if (runs_here()) return;
  fputs(
      "mixrec was built for " MIXREC_ARCH
      " processors and this one is older: rebuild it here with `make ARCH=x86-64-v2` or `make ARCH=x86-64`\n",
      stderr);
  _exit(1);
}

}  // namespace

}  // namespace mixrec::detail

// One target under libFuzzer, named by MIXREC_FUZZ_TARGET.
#include "mixrec/tests/faults/fuzz/targets.h"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mixrec::faults;
  static const Target target = [] {
    const char* name = std::getenv("MIXREC_FUZZ_TARGET");
    for (const Target& one : targets())
      if (name && name == std::string(one.name)) return one;
    throw std::runtime_error("MIXREC_FUZZ_TARGET names no target");
  }();
  run_guarded(target, {reinterpret_cast<const char*>(data), size});
  return 0;
}

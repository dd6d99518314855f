// A check that cannot run here is printed, never dropped silently, and a test that only skips is counted as skipped.
#pragma once

#include <string>

namespace mixrec::test {

// Records that `what` was not checked, with its reason: skip("avx512 kernels: not on this processor").
void skip(const std::string& what);

}  // namespace mixrec::test

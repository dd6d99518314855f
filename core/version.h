// What this library is.
#pragma once

#include <string>

namespace mixrec {

// "mixrec 0.2.0 (commit 1a2b3c4d5e6f), CUDA 12.2 for sm_90a, x86-64-v3, avx512 kernels": the version, the commit where
// it is known, the CUDA that it was built with, the baseline, and the widest kernels that run here.
std::string version_text();

}  // namespace mixrec

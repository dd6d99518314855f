#include "mixrec/core/version.h"

#include "mixrec/commit.h"
#include "mixrec/config.h"
#include "mixrec/core/cpu.h"

namespace mixrec {

std::string version_text() {
  std::string text = "mixrec " MIXREC_VERSION;
  const std::string commit = MIXREC_COMMIT, architectures = MIXREC_CUDA_ARCH;
  if (!commit.empty()) text += " (commit " + commit + ")";
  text += MIXREC_CUDA ? ", CUDA " MIXREC_CUDA_VERSION " for sm_" + architectures : ", no CUDA";
  return text + ", " MIXREC_ARCH ", " + isa_name(widest_isa()) + " kernels";
}

}  // namespace mixrec

#include "mixrec/autograd/shadow.h"

#include "mixrec/autograd/meta.h"
#include "mixrec/core/copy.h"

#include <mutex>

namespace mixrec {

Tensor shadow_of(const Tensor& parameter, DType dtype) {
  if (parameter.dtype() == dtype) return parameter.detach();
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  autograd::Meta& meta = *autograd::leaf_meta(parameter);
  if (meta.shadow.defined() && meta.shadow.dtype() == dtype && meta.shadow.device() == parameter.device() &&
      meta.shadow_version == parameter.version())
    return meta.shadow;
  // Never over the old one: a backward may still read it, and in an optimiser's buffer it has neighbours.
  meta.shadow = empty(parameter.shape(), dtype, parameter.device());
  copy_into(meta.shadow, parameter.detach());
  meta.shadow_version = parameter.version();
  return meta.shadow;
}

}  // namespace mixrec

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
  const bool fits =
      meta.shadow.defined() && meta.shadow.dtype() == dtype && meta.shadow.device() == parameter.device();
  if (fits && meta.shadow_version == parameter.version()) return meta.shadow;
  if (!fits) meta.shadow = empty(parameter.shape(), dtype, parameter.device());
  copy_into(meta.shadow, parameter.detach());
  meta.shadow_version = parameter.version();
  return meta.shadow;
}

}  // namespace mixrec

#include "mixrec/optim/state.h"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace mixrec::optim {

Tensor lazy_zeros(const Shape& shape, DType dtype, Device device) {
  if (!device.is_cpu()) return zeros(shape, dtype, device);
  Tensor zeros = empty(shape, dtype);
  auto* const begin = static_cast<std::byte*>(zeros.raw_data());
  auto* const end = begin + static_cast<size_t>(zeros.numel()) * size_of(dtype);
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  auto* const first =
      reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page);
  auto* const last = reinterpret_cast<std::byte*>(reinterpret_cast<uintptr_t>(end) / page * page);
  // Pages given back to the system read as zeros from then on; the ends share theirs with other memory.
  if (first < last && madvise(first, static_cast<size_t>(last - first), MADV_DONTNEED) == 0) {
    std::memset(begin, 0, static_cast<size_t>(first - begin));
    std::memset(last, 0, static_cast<size_t>(end - last));
  } else {
    std::memset(begin, 0, static_cast<size_t>(end - begin));
  }
  return zeros;
}

}  // namespace mixrec::optim

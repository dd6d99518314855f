#include "mixrec/core/jagged.h"

#include "mixrec/core/error.h"

namespace mixrec {

void check_offsets(const Tensor& offsets, int64_t total, const char* what) {
  MR_CHECK(offsets.defined() && offsets.dtype() == i64 && offsets.ndim() == 1 && offsets.dim(0) >= 1, what,
           " must be i64 [rows + 1]");
  if (!offsets.device().is_cpu()) return;
  const auto at = offsets.to_vector<int64_t>();
  MR_CHECK(at.front() == 0, what, " must start at 0, start at ", at.front());
  for (size_t r = 0; r + 1 < at.size(); ++r) {
    MR_CHECK(at[r] <= at[r + 1], what, " fall from ", at[r], " to ", at[r + 1], " at row ", r);
  }
  MR_CHECK(at.back() == total, what, " end at ", at.back(), " but there are ", total, " values");
}

}  // namespace mixrec

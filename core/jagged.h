// Rows of different lengths, stored end to end.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// Row r is values[offsets[r] : offsets[r + 1]].  Nothing is ever padded: work is proportional to
// values.dim(0).
struct Jagged {
  Tensor values;   // [total, …]
  Tensor offsets;  // i64 [rows + 1]

  int64_t rows() const { return offsets.dim(0) - 1; }
  int64_t total() const { return values.dim(0); }
};

// Throws unless `offsets` is i64 [rows + 1], starts at 0, never falls and ends at `total`.
// `what` names the offsets in the message.  Of offsets on a device only dtype and shape are looked at: to read
// them would wait, and a batch is checked on the host when it is built.
void check_offsets(const Tensor& offsets, int64_t total, const char* what);

}  // namespace mixrec

// Rows of different lengths, stored end to end: row r is values[offsets[r] : offsets[r + 1]].  Nothing is ever padded.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// Throws unless `offsets` is i64 [rows + 1], starts at 0, never falls and ends at `total`.
// `what` names the offsets in the message.  Of offsets on a device only dtype and shape are looked at: to read
// them would wait, and a batch is checked on the host when it is built.
void check_offsets(const Tensor& offsets, int64_t total, const char* what);

}  // namespace mixrec

// Rows of a table by id.
//
//   embedding      y[...] = table[ids[...]]
//   embedding_bag  y[r] = sum, or mean, of table[ids[i]] over offsets[r] <= i < offsets[r + 1]; an empty bag
//   is zero
//
// The gradient of a table is never dense: the backward appends one autograd::Lookup (autograd/meta.h) to the
// table and returns nothing; the optimiser takes all look-ups of a step together, and table.grad() sums them
// on request. A table therefore has to be a leaf.  Saves ids (and offsets).
//
// Throws on an id outside [0, V), naming it, its position and V; on ids that are not i64; and on offsets that
// check_offsets() refuses.  The kernels are gather_rows (ops/layout.h) and sum_segments (ops/request.h).
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

enum class BagMode { sum, mean };

Tensor embedding(const Tensor& table, const Tensor& ids);  // [V, d], i64 [...] -> [..., d]

// [V, d], i64 [n], i64 [rows + 1] -> [rows, d]
Tensor embedding_bag(const Tensor& table, const Tensor& ids, const Tensor& offsets, BagMode mode);

// Throws unless every id is in [0, rows); `what` names the ids in the message.
void check_ids(const Tensor& ids, int64_t rows, const char* what);

}  // namespace mixrec

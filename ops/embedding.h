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
// The rows have the table's dtype or, from an f32 table, bf16: read, summed and converted in one pass.
//
// Throws on an id outside [0, V), naming it, its position and V (on a device such an id gives zeros, and
// cuda::check_device_errors() throws); on ids that are not i64; and on offsets that check_offsets() refuses.
// The kernels are gather_rows (ops/layout.h) and sum_segments (ops/request.h).
#pragma once

#include "mixrec/core/tensor.h"

#include <optional>

namespace mixrec {

enum class BagMode { sum, mean };

// [V, d], i64 [...] -> [..., d]
Tensor embedding(const Tensor& table, const Tensor& ids, std::optional<DType> dtype = {});

// [V, d], i64 [n], i64 [rows + 1] -> [rows, d]
Tensor embedding_bag(const Tensor& table, const Tensor& ids, const Tensor& offsets, BagMode mode,
                     std::optional<DType> dtype = {});

// Throws unless every id is in [0, rows); `what` names the ids in the message.  On a device they are left for
// the kernels to check.
void check_ids(const Tensor& ids, int64_t rows, const char* what);

namespace kernel {

// places[i] = the bag of position i, and weights[i] = 1 / its size, for `count` positions in `bags` bags.
// Weights without data are not written.
template <class T>
void place_ids(Cpu, const int64_t* offsets, int64_t bags, int64_t count, int64_t* places, T* weights);
template <class T>
void place_ids(Cuda, const int64_t* offsets, int64_t bags, int64_t count, int64_t* places, T* weights);

}  // namespace kernel
}  // namespace mixrec

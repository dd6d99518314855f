// What embedding(), embedding_bag() and embedding_columns() share.
#pragma once

#include "mixrec/autograd/meta.h"
#include "mixrec/core/dispatch.h"

#include <type_traits>

namespace mixrec {

// Throws unless `table` is a leaf [rows, width] and every id is one of its rows; `what` names the ids.
void check_table(const Tensor& table, const Tensor& ids, const char* what);

// dy as [rows, width]; its rows may stay strided, so that a slice of a wider gradient is not copied.
Tensor gradient_rows(const Tensor& dy, int64_t width);

// What a bag leaves at a table of this dtype, for dy [bags, width].
autograd::Lookup bag_lookup(const Tensor& ids, const Tensor& offsets, bool mean, DType dtype,
                            const Tensor& dy);

// Calls f.operator()<X, Y>(backend) for tables of X and rows of Y, which are one type, or f32 and bf16.
template <class F>
void run_as(DType table, DType rows, Device device, F f) {
  MR_CHECK(rows == table || (rows == bf16 && table == f32), "a table in ", table, " has no rows in ", rows,
           "; there are rows in the table's dtype, and in bf16 from f32");
  dispatch_floating(table, [&]<class T>() {
    on_backend(device, [&](auto backend) {
      if (rows == table) return f.template operator()<T, T>(backend);
      if constexpr (std::is_same_v<T, float>) f.template operator()<float, bfloat16>(backend);
    });
  });
}

}  // namespace mixrec

#include "mixrec/ops/embedding.h"

#include "mixrec/autograd/meta.h"
#include "mixrec/autograd/record.h"
#include "mixrec/core/dispatch.h"
#include "mixrec/core/jagged.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/request.h"

#include <algorithm>

namespace mixrec {
namespace {

void check_table(const Tensor& table, const Tensor& ids) {
  MR_CHECK(table.ndim() == 2, "needs a table [rows, width], got ", table.shape());
  MR_CHECK(table.is_leaf(), "the table ", table.shape(),
           " is the result of an op; only a leaf can collect look-ups");
  check_ids(ids, table.dim(0), "id");
}

// dy as [ids, width]; its rows may stay strided, so that a slice of a wider gradient is not copied.
Tensor gradient_rows(const Tensor& dy, int64_t width) {
  const Tensor rows = dy.reshape({dy.numel() / width, width});
  return rows.strides()[1] == 1 ? rows : rows.contiguous();
}

// rows[i] = the bag of id i.
Tensor bag_of_each_id(const Tensor& offsets, int64_t count) {
  Tensor rows = empty({count}, i64, offsets.device());
  const auto* at = offsets.data<const int64_t>();
  for (int64_t r = 0; r + 1 < offsets.dim(0); ++r)
    std::fill(rows.data<int64_t>() + at[r], rows.data<int64_t>() + at[r + 1], r);
  return rows;
}

// 1 / the size of the bag of id i.
Tensor mean_weights(const Tensor& offsets, int64_t count, DType dtype) {
  Tensor weights = empty({count}, dtype, offsets.device());
  const auto* at = offsets.data<const int64_t>();
  dispatch_floating(dtype, [&]<class T>() {
    for (int64_t r = 0; r + 1 < offsets.dim(0); ++r) {
      const auto weight = static_cast<T>(acc_t<T>(1) / static_cast<acc_t<T>>(at[r + 1] - at[r]));
      std::fill(weights.data<T>() + at[r], weights.data<T>() + at[r + 1], weight);
    }
  });
  return weights;
}

}  // namespace

void check_ids(const Tensor& ids, int64_t rows, const char* what) {
  MR_CHECK(ids.defined() && ids.dtype() == i64, what, "s must be i64");
  const Tensor dense = ids.contiguous();
  const auto* at = dense.data<const int64_t>();
  uint64_t largest = 0;  // a negative id is a huge one
  for (int64_t i = 0; i < ids.numel(); ++i) largest = std::max(largest, static_cast<uint64_t>(at[i]));
  if (ids.numel() == 0 || largest < static_cast<uint64_t>(rows)) return;
  int64_t bad = 0;
  while (at[bad] >= 0 && at[bad] < rows) ++bad;
  MR_FAIL(what, " ", at[bad], " at position ", bad, " of ", ids.shape(), " is outside a table of ", rows,
          " rows");
}

Tensor embedding(const Tensor& table, const Tensor& given) {
  MR_OP("embedding");
  check_table(table, given);
  const Tensor ids = given.contiguous().reshape({given.numel()});
  Shape shape = given.shape();
  shape.append(table.dim(1));
  Tensor y = empty(shape, table.dtype(), table.device());
  run(table, [&]<class T>(auto backend) {
    kernel::gather_rows<T>(backend, table.mat<const T>(), ids.data<const int64_t>(), y.mat<T>());
  });
  return record(y, {table}, [&] {
    return
        [leaf = autograd::leaf_meta(table), ids = Saved(ids), d = table.dim(1)](const Tensor& dy) -> Grads {
          if (dy.numel() > 0) leaf->lookups.push_back({ids.get(), gradient_rows(dy, d), {}, {}});
          return {Tensor()};
        };
  });
}

Tensor embedding_bag(const Tensor& table, const Tensor& given_ids, const Tensor& given_offsets,
                     BagMode mode) {
  MR_OP("embedding_bag");
  check_table(table, given_ids);
  MR_CHECK(given_ids.ndim() == 1, "needs ids [n], got ", given_ids.shape());
  check_offsets(given_offsets, given_ids.dim(0), "offsets");
  const Tensor ids = given_ids.contiguous(), offsets = given_offsets.contiguous();
  const bool mean = mode == BagMode::mean;
  Tensor y = empty({offsets.dim(0) - 1, table.dim(1)}, table.dtype(), table.device());
  run(table, [&]<class T>(auto backend) {
    kernel::sum_segments<T>(backend, table.mat<const T>(), ids.data<const int64_t>(),
                            offsets.data<const int64_t>(), mean, y.mat<T>());
  });
  return record(y, {table}, [&] {
    return [leaf = autograd::leaf_meta(table), ids = Saved(ids), offsets = Saved(offsets),
            mean](const Tensor& dy) -> Grads {
      const int64_t count = ids.get().numel();
      if (count > 0 && dy.numel() > 0) {
        leaf->lookups.push_back({ids.get(), gradient_rows(dy, dy.dim(1)),
                                 bag_of_each_id(offsets.get(), count),
                                 mean ? mean_weights(offsets.get(), count, dy.dtype()) : Tensor()});
      }
      return {Tensor()};
    };
  });
}

}  // namespace mixrec

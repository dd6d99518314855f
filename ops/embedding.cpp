#include "mixrec/ops/embedding.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/jagged.h"
#include "mixrec/ops/embedding_rows.h"
#include "mixrec/ops/layout.h"
#include "mixrec/ops/request.h"

#include <algorithm>

namespace mixrec {

void check_table(const Tensor& table, const Tensor& ids, const char* what) {
  MR_CHECK(table.ndim() == 2, "needs a table [rows, width], got ", table.shape());
  MR_CHECK(table.is_leaf(), "the table ", table.shape(),
           " is the result of an op; only a leaf can collect look-ups");
  check_ids(ids, table.dim(0), what);
}

Tensor gradient_rows(const Tensor& dy, int64_t width) {
  const Tensor rows = dy.reshape({dy.numel() / width, width});
  return rows.strides()[1] == 1 ? rows : rows.contiguous();
}

autograd::Lookup bag_lookup(const Tensor& ids, const Tensor& offsets, bool mean, DType dtype,
                            const Tensor& dy) {
  const Tensor places = empty({ids.numel()}, i64, ids.device());
  const Tensor weights = mean ? empty({ids.numel()}, dtype, ids.device()) : Tensor();
  dispatch_floating(dtype, [&]<class T>() {
    on_backend(ids.device(), [&](auto backend) {
      kernel::place_ids<T>(backend, offsets.data<const int64_t>(), offsets.dim(0) - 1, ids.numel(),
                           places.data<int64_t>(), mean ? weights.data<T>() : nullptr);
    });
  });
  return {ids, dy, places, weights};
}

void check_ids(const Tensor& ids, int64_t rows, const char* what) {
  MR_CHECK(ids.defined() && ids.dtype() == i64, what, "s must be i64");
  if (!ids.device().is_cpu()) return;
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

Tensor embedding(const Tensor& table, const Tensor& given, std::optional<DType> dtype) {
  MR_OP("embedding");
  check_table(table, given, "id");
  const Tensor ids = given.contiguous().reshape({given.numel()});
  Shape shape = given.shape();
  shape.append(table.dim(1));
  Tensor y = empty(shape, dtype.value_or(table.dtype()), table.device());
  run_as(table.dtype(), y.dtype(), table.device(), [&]<class X, class Y>(auto backend) {
    kernel::gather_rows<X, Y>(backend, table.mat<const X>(), ids.data<const int64_t>(), y.mat<Y>());
  });
  return record(y, {table}, [&] {
    return
        [leaf = autograd::leaf_meta(table), ids = Saved(ids), d = table.dim(1)](const Tensor& dy) -> Grads {
          if (dy.numel() > 0) leaf->lookups.push_back({ids.get(), gradient_rows(dy, d), {}, {}});
          return {Tensor()};
        };
  });
}

Tensor embedding_bag(const Tensor& table, const Tensor& given_ids, const Tensor& given_offsets, BagMode mode,
                     std::optional<DType> dtype) {
  MR_OP("embedding_bag");
  check_table(table, given_ids, "id");
  MR_CHECK(given_ids.ndim() == 1, "needs ids [n], got ", given_ids.shape());
  check_offsets(given_offsets, given_ids.dim(0), "offsets");
  const Tensor ids = given_ids.contiguous(), offsets = given_offsets.contiguous();
  const bool mean = mode == BagMode::mean;
  Tensor y = empty({offsets.dim(0) - 1, table.dim(1)}, dtype.value_or(table.dtype()), table.device());
  run_as(table.dtype(), y.dtype(), table.device(), [&]<class X, class Y>(auto backend) {
    kernel::sum_segments<X, Y>(backend, table.mat<const X>(), ids.data<const int64_t>(),
                               offsets.data<const int64_t>(), mean, y.mat<Y>());
  });
  return record(y, {table}, [&] {
    return [leaf = autograd::leaf_meta(table), ids = Saved(ids), offsets = Saved(offsets), mean,
            dtype = table.dtype()](const Tensor& dy) -> Grads {
      if (ids.get().numel() > 0 && dy.numel() > 0)
        leaf->lookups.push_back(
            bag_lookup(ids.get(), offsets.get(), mean, dtype, gradient_rows(dy, dy.dim(1))));
      return {Tensor()};
    };
  });
}

namespace kernel {

template <class T>
void place_ids(Cpu, const int64_t* offsets, int64_t bags, int64_t, int64_t* places, T* weights) {
  for (int64_t r = 0; r < bags; ++r) {
    std::fill(places + offsets[r], places + offsets[r + 1], r);
    if (!weights) continue;
    const auto weight = static_cast<T>(acc_t<T>(1) / static_cast<acc_t<T>>(offsets[r + 1] - offsets[r]));
    std::fill(weights + offsets[r], weights + offsets[r + 1], weight);
  }
}

template void place_ids(Cpu, const int64_t*, int64_t, int64_t, int64_t*, float*);
template void place_ids(Cpu, const int64_t*, int64_t, int64_t, int64_t*, bfloat16*);
template void place_ids(Cpu, const int64_t*, int64_t, int64_t, int64_t*, double*);

}  // namespace kernel
}  // namespace mixrec

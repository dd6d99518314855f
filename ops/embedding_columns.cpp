#include "mixrec/ops/embedding_columns.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/jagged.h"
#include "mixrec/ops/embedding_rows.h"
#include "mixrec/ops/loops.h"
#include "mixrec/ops/request.h"

#include <algorithm>
#include <string>

namespace mixrec {
namespace {

using Kind = EmbeddingColumn::Kind;

// `what` names the column in messages.
void check_column(const EmbeddingColumn& column, int64_t rows, DType dtype, const std::string& what) {
  const Tensor& source = column.source;
  MR_CHECK(source.defined() && source.ndim() == 2, what, "needs a source of two dimensions, got ",
           source.defined() ? source.shape() : Shape{});
  switch (column.kind) {
    case Kind::row:
      check_table(source, column.ids, (what + "id").c_str());
      MR_CHECK(column.ids.ndim() == 1 && column.ids.dim(0) == rows, what, "ids are ", column.ids.shape(),
               " for ", rows, " rows");
      break;
    case Kind::mean:
      check_table(source, column.ids, (what + "id").c_str());
      MR_CHECK(column.ids.ndim() == 1, what, "needs ids [n], got ", column.ids.shape());
      check_offsets(column.offsets, column.ids.dim(0), (what + "offsets").c_str());
      MR_CHECK(column.offsets.dim(0) - 1 == rows, what, "offsets are for ", column.offsets.dim(0) - 1,
               " rows, there are ", rows);
      break;
    case Kind::product:
      MR_CHECK(source.dim(0) == 1, what, "needs a vector [1, width], got ", source.shape());
      MR_CHECK(column.values.defined() && column.values.dtype() == f32, what, "values must be f32");
      MR_CHECK(column.values.ndim() == 1 && column.values.dim(0) == rows, what, "values are ",
               column.values.shape(), " for ", rows, " rows");
      break;
    case Kind::repeat:
      MR_CHECK(source.dtype() == dtype, what, "repeats rows in ", source.dtype(), " among rows in ", dtype);
      if (column.offsets.defined()) check_offsets(column.offsets, rows, (what + "offsets").c_str());
      const int64_t there = column.offsets.defined() ? column.offsets.dim(0) - 1 : rows;
      MR_CHECK(there == source.dim(0), what, "repeats ", source.dim(0), " rows, ",
               column.offsets.defined() ? "its offsets are for " : "there are ", there);
  }
}

// The dtype of tables and vectors.
DType source_dtype(const std::vector<EmbeddingColumn>& columns, DType dtype) {
  for (const EmbeddingColumn& column : columns)
    if (column.kind != Kind::repeat) return column.source.dtype();
  return dtype;
}

// Throws unless the columns fit each other; returns the sum of their widths.
int64_t check_columns(const std::vector<EmbeddingColumn>& columns, int64_t rows, DType dtype) {
  MR_CHECK(!columns.empty(), "needs at least one column");
  int64_t width = 0;
  for (size_t i = 0; i < columns.size(); ++i) {
    const EmbeddingColumn& column = columns[i];
    const std::string what = "column " + std::to_string(i) + ": ";
    check_column(column, rows, dtype, what);
    const DType of_sources = source_dtype(columns, dtype);
    MR_CHECK(column.kind == Kind::repeat || column.source.dtype() == of_sources, what, "a source in ",
             column.source.dtype(), " beside one in ", of_sources);
    const Device device = columns[0].source.device();
    for (const Tensor* x : {&column.source, &column.ids, &column.offsets, &column.values}) {
      MR_CHECK(!x->defined() || x->device() == device, what, "something is on ", x->device(),
               ", the first column is on ", device);
    }
    width += column.source.dim(1);
  }
  return width;
}

EmbeddingColumn contiguous(EmbeddingColumn column) {
  column.source = column.source.detach();
  if (column.source.dim(1) > 1 && column.source.strides()[1] != 1) column.source = column.source.contiguous();
  for (Tensor* x : {&column.ids, &column.offsets, &column.values})
    if (x->defined()) *x = x->contiguous();
  return column;
}

kernel::ColumnView view_of(const EmbeddingColumn& column, int64_t begin) {
  return {column.kind,
          column.source.raw_data(),
          column.source.dim(0),
          column.source.strides()[0],
          column.ids.defined() ? column.ids.data<const int64_t>() : nullptr,
          column.offsets.defined() ? column.offsets.data<const int64_t>() : nullptr,
          column.values.defined() ? column.values.data<const float>() : nullptr,
          begin,
          column.source.dim(1)};
}

// What the backward of a column keeps.
struct Past {
  Kind kind;
  std::shared_ptr<autograd::Meta> table;
  Saved ids, offsets, values;
  int64_t source_rows, begin, width;
};

Past past_of(const EmbeddingColumn& given, const EmbeddingColumn& dense, int64_t begin) {
  const bool table = given.kind == Kind::row || given.kind == Kind::mean;
  return {given.kind,
          table ? autograd::leaf_meta(given.source) : nullptr,
          Saved(dense.ids),
          Saved(dense.offsets),
          Saved(dense.values),
          given.source.dim(0),
          begin,
          given.source.dim(1)};
}

// The gradient of a repeated x.
Tensor repeat_backward(const Past& column, const Tensor& dy) {
  if (!column.offsets.get().defined()) return dy;
  const Tensor dx = empty({column.source_rows, column.width}, dy.dtype(), dy.device());
  run(dy, [&]<class T>(auto backend) {
    kernel::sum_segments<T, T>(backend, dy.mat<const T>(), nullptr,
                               column.offsets.get().data<const int64_t>(), false, dx.mat<T>());
  });
  return dx;
}

template <class X>
void vector_gradients(const std::vector<Past>& columns, const Tensor& dy, const Grads& grads) {
  std::vector<kernel::VectorGradient<X>> vectors;
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i].kind == Kind::product && grads[i].defined())
      vectors.push_back({columns[i].values.get().data<const float>(), columns[i].begin, columns[i].width,
                         grads[i].data<X>()});
  }
  if (vectors.empty()) return;
  run_as(dtype_of<X>, dy.dtype(), dy.device(), [&]<class From, class Y>(auto backend) {
    if constexpr (std::is_same_v<From, X>)
      kernel::vector_gradients<X, Y>(backend, vectors, dy.mat<const Y>());
  });
}

Grads columns_backward(const std::vector<Past>& columns, DType dtype, const Tensor& given,
                       const Needs& needs) {
  const Tensor dy = given.strides()[1] == 1 ? given : given.contiguous();
  Grads grads(columns.size());
  for (size_t i = 0; i < columns.size(); ++i) {
    const Past& column = columns[i];
    if (!needs[i] || column.width == 0) continue;
    const Tensor slice = dy.narrow(1, column.begin, column.width);
    const Tensor& ids = column.ids.get();
    switch (column.kind) {
      case Kind::row:
        if (ids.numel() > 0) column.table->lookups.push_back({ids, slice, {}, {}});
        break;
      case Kind::mean:
        if (ids.numel() > 0)
          column.table->lookups.push_back(bag_lookup(ids, column.offsets.get(), true, dtype, slice));
        break;
      case Kind::product:
        grads[i] = needs.gradient(i, {1, column.width}, dtype, dy.device());
        break;
      case Kind::repeat:
        grads[i] = repeat_backward(column, slice);
    }
  }
  dispatch_floating(dtype, [&]<class X>() { vector_gradients<X>(columns, dy, grads); });
  return grads;
}

}  // namespace

Tensor embedding_columns(const std::vector<EmbeddingColumn>& columns, int64_t rows, DType dtype,
                         int64_t width) {
  MR_OP("embedding_columns");
  const int64_t needed = check_columns(columns, rows, dtype);
  MR_CHECK(width == 0 || width >= needed, "the columns are ", needed, " wide together, more than ", width);
  Tensor y = empty({rows, std::max(width, needed)}, dtype, columns[0].source.device());
  std::vector<EmbeddingColumn> dense;
  std::vector<kernel::ColumnView> views;
  std::vector<Tensor> sources;
  std::vector<int64_t> begins;
  int64_t at = 0;
  for (const EmbeddingColumn& column : columns) {
    sources.push_back(column.source);
    dense.push_back(contiguous(column));
    begins.push_back(at);
    if (column.source.dim(1) > 0) views.push_back(view_of(dense.back(), at));
    at += column.source.dim(1);
  }
  if (at < y.dim(1))
    views.push_back({Kind::repeat, nullptr, 0, 0, nullptr, nullptr, nullptr, at, y.dim(1) - at});
  const DType of_sources = source_dtype(columns, dtype);
  run_as(of_sources, dtype, y.device(), [&]<class X, class Y>(auto backend) {
    kernel::embedding_columns<X, Y>(backend, views, y.mat<Y>());
  });
  return record(y, sources, [&] {
    std::vector<Past> past;
    for (size_t i = 0; i < columns.size(); ++i) past.push_back(past_of(columns[i], dense[i], begins[i]));
    return [past = std::move(past), of_sources](const Tensor& dy, const Needs& needs) {
      return columns_backward(past, of_sources, dy, needs);
    };
  });
}

namespace kernel {
namespace {

template <class X, class Y>
void copy_row(int64_t width, const X* from, Y* to) {
  if constexpr (std::is_same_v<X, Y>) {
    std::copy_n(from, width, to);
  } else {
    simd::transform(
        width, to, [](auto v) { return v; }, from);
  }
}

// Rows [first, last) of one column.
template <class X, class Y>
struct ColumnRows {
  const ColumnView& column;
  Mat<Y> y;
  int64_t first, last;

  const X* source(int64_t row) const {
    return static_cast<const X*>(column.source) + row * column.source_stride;
  }
  Y* to(int64_t r) const { return y.row(r) + column.begin; }

  void look_up() const {
    // Rows of a large table are far apart: each is asked for while the ones before it are copied.
    constexpr int64_t kAhead = 8;
    for (int64_t r = first; r < last; ++r) {
      if (r + kAhead < y.count()) __builtin_prefetch(source(column.ids[r + kAhead]));
      copy_row(column.width, source(column.ids[r]), to(r));
    }
  }

  void average(acc_t<X>* sum) const {
    for (int64_t r = first; r < last; ++r) {
      const int64_t begin = column.offsets[r], end = column.offsets[r + 1];
      std::fill_n(sum, column.width, acc_t<X>(0));
      for (int64_t i = begin; i < end; ++i)
        simd::transform(
            column.width, sum, [](auto a, auto b) { return a + b; }, sum, source(column.ids[i]));
      const acc_t<X> scale = end > begin ? acc_t<X>(1) / static_cast<acc_t<X>>(end - begin) : 1;
      simd::transform(
          column.width, to(r), [scale](auto v) { return v * scale; }, sum);
    }
  }

  void multiply() const {
    for (int64_t r = first; r < last; ++r) {
      const auto value = static_cast<acc_t<X>>(column.values[r]);
      simd::transform(
          column.width, to(r), [value](auto v) { return v * value; }, source(0));
    }
  }

  void repeat() const {
    const auto* const x = static_cast<const Y*>(column.source);
    const int64_t* const end = column.offsets ? column.offsets + column.source_rows + 1 : nullptr;
    int64_t s = column.offsets ? std::upper_bound(column.offsets, end, first) - column.offsets - 1 : 0;
    for (int64_t r = first; r < last; ++r) {
      while (column.offsets && column.offsets[s + 1] <= r) ++s;
      copy_row(column.width, x + (column.offsets ? s : r) * column.source_stride, to(r));
    }
  }

  void write(acc_t<X>* sum) const {
    if (!column.source) {
      for (int64_t r = first; r < last; ++r) std::fill_n(to(r), column.width, Y(0.0f));
      return;
    }
    switch (column.kind) {
      case EmbeddingColumn::Kind::row:
        return look_up();
      case EmbeddingColumn::Kind::mean:
        return average(sum);
      case EmbeddingColumn::Kind::product:
        return multiply();
      case EmbeddingColumn::Kind::repeat:
        return repeat();
    }
  }
};

}  // namespace

template <class X, class Y>
void embedding_columns(Cpu, const std::vector<ColumnView>& columns, Mat<Y> y) {
  constexpr int64_t kTile = 32;  // rows whose columns are filled while they are in cache
  parallel_for(y.count(), y.cols, [&](int64_t begin, int64_t end) {
    std::vector<acc_t<X>> sum(static_cast<size_t>(y.cols));
    for (int64_t first = begin; first < end; first += kTile) {
      for (const ColumnView& column : columns)
        ColumnRows<X, Y>{column, y, first, std::min(end, first + kTile)}.write(sum.data());
    }
  });
}

template <class X, class Y>
void vector_gradients(Cpu, const std::vector<VectorGradient<X>>& columns, Mat<const Y> dy) {
  using Sum = acc_t<X>;
  constexpr int64_t kChunk = 512;  // rows
  const int64_t chunks = std::max<int64_t>((dy.count() + kChunk - 1) / kChunk, 1);
  for (const VectorGradient<X>& column : columns) {
    std::vector<Sum> sums(static_cast<size_t>(chunks * column.width));
    for_rows(chunks, kChunk * column.width, [&](int64_t c) {
      Sum* const sum = sums.data() + c * column.width;
      for (int64_t r = c * kChunk; r < std::min(dy.count(), (c + 1) * kChunk); ++r) {
        const auto value = static_cast<Sum>(column.values[r]);
        simd::transform(
            column.width, sum, [value](auto s, auto d) { return simd::fma(decltype(s)(value), d, s); }, sum,
            dy.row(r) + column.begin);
      }
    });
    for (int64_t c = 1; c < chunks; ++c)
      simd::transform(
          column.width, sums.data(), [](auto a, auto b) { return a + b; }, sums.data(),
          sums.data() + c * column.width);
    copy_row(column.width, sums.data(), column.to);
  }
}

#define MR_INSTANTIATE(X, Y)                                                       \
  template void embedding_columns<X>(Cpu, const std::vector<ColumnView>&, Mat<Y>); \
  template void vector_gradients(Cpu, const std::vector<VectorGradient<X>>&, Mat<const Y>)
MR_INSTANTIATE(float, float);
MR_INSTANTIATE(float, bfloat16);
MR_INSTANTIATE(bfloat16, bfloat16);
MR_INSTANTIATE(double, double);
#undef MR_INSTANTIATE

}  // namespace kernel
}  // namespace mixrec

// All features of some rows, embedded and side by side: the concatenation of MixFormer's eq 1 in one pass.
//
//   y[r] = [ column 0 of row r | column 1 of row r | … | zeros ]
//
//   row      table[ids[r]]
//   mean     the mean of table[ids[i]] over offsets[r] <= i < offsets[r + 1]; zero where there are none
//   product  values[r] · vector
//   repeat   x[s] of the segment offsets[s] <= r < offsets[s + 1]; without offsets x[r]
//
// Gradients: a table collects look-ups as embedding() has it, whose dy is a slice of y's gradient, in place;
// dvector = Σ_r values[r] dy[r]; dx[s] sums dy over its segment.  Saves ids, offsets and values.
//
// Throws when shapes, dtypes or devices disagree, and on ids and offsets as embedding_bag() does; names the
// column.
#pragma once

#include "mixrec/core/tensor.h"

#include <vector>

namespace mixrec {

struct EmbeddingColumn {
  enum class Kind { row, mean, product, repeat };

  Kind kind = Kind::row;
  Tensor source = {};   // row, mean: a table [V, w]; product: a vector [1, w]; repeat: x [R, w], in y's dtype
  Tensor ids = {};      // row: i64 [rows]; mean: i64 [entries]
  Tensor offsets = {};  // mean: i64 [rows + 1]; repeat: i64 [R + 1], or undefined
  Tensor values = {};   // product: f32 [rows]
};

// -> [rows, width] in `dtype`, that of tables and vectors, or bf16 where they are f32.  `width` is that of all
// columns, or more: zeros follow them.  Needs at least one column.
Tensor embedding_columns(const std::vector<EmbeddingColumn>& columns, int64_t rows, DType dtype,
                         int64_t width = 0);

namespace kernel {

// One column as a kernel sees it.
struct ColumnView {
  EmbeddingColumn::Kind kind;
  const void* source;  // of Y in `repeat`, else of X; null: zeros
  int64_t source_rows, source_stride;
  const int64_t* ids;
  const int64_t* offsets;
  const float* values;
  int64_t begin, width;  // columns of y
};

// Tables and vectors of X, rows of Y.  The columns cover y.  On a device an id outside its table gives zeros,
// and is reported by cuda::check_device_errors().
template <class X, class Y>
void embedding_columns(Cpu, const std::vector<ColumnView>& columns, Mat<Y> y);
template <class X, class Y>
void embedding_columns(Cuda, const std::vector<ColumnView>& columns, Mat<Y> y);

// The gradient of a product's vector: Σ_r values[r] dy[r, begin : begin + width].
template <class X>
struct VectorGradient {
  const float* values;
  int64_t begin, width;
  X* to;
};
template <class X, class Y>
void vector_gradients(Cpu, const std::vector<VectorGradient<X>>& columns, Mat<const Y> dy);
template <class X, class Y>
void vector_gradients(Cuda, const std::vector<VectorGradient<X>>& columns, Mat<const Y> dy);

}  // namespace kernel
}  // namespace mixrec

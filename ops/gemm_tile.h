// The micro-kernel, written once for any vector width.
//
// Included inside an anonymous namespace by the files that compile it for one instruction set each, after
// they define
//   kWidth    floats in a vector
//   kRows     height of a panel of A: rows of C held in registers
//   kVectors  width of a panel of B in vectors
// so that kRows · kVectors sums, kVectors vectors of B and one broadcast element of A fill the registers, and
// every element loaded is used for many multiply-adds.
//
// A vector of the compiler's own (not intrinsics) keeps it readable, and `sum += a * b` becomes one fused
// instruction. Nothing is included here and nothing outside the anonymous namespace is called: see
// gemm_kernel.h.

constexpr long kColumns = kVectors * kWidth;

typedef float Vector __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));

// One tile: `Rows` rows by `Vectors` vectors of C.  Every element is the same chain of multiply-adds in every
// tile size.
template <int Rows, int Vectors, bool Packed>
void tile(const GemmBlock& block, const float* a, const float* b, float* c, long ldc, const float* bias) {
  Vector sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < Vectors; ++j) sum[i][j] = Vector{};

  const long a_row = Packed ? 1 : block.a_row, a_step = block.a_step, b_step = block.b_step;
  for (long p = block.k; p > 0; --p) {
    Vector b_vector[Vectors];
#pragma GCC unroll 16
    for (int j = 0; j < Vectors; ++j) b_vector[j] = *reinterpret_cast<const Vector*>(b + j * kWidth);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Vector a_element = a[i * a_row] - Vector{};
#pragma GCC unroll 16
      for (int j = 0; j < Vectors; ++j) sum[i][j] += a_element * b_vector[j];
    }
    a += a_step;
    b += b_step;
  }

  const bool add = block.add;
  const float alpha = block.alpha;
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < Vectors; ++j) {
      Vector* to = reinterpret_cast<Vector*>(c + j * kWidth);
      Vector value = sum[i][j] * alpha;
      if (add) value += *to;
      if (bias) value += *reinterpret_cast<const Vector*>(bias + j * kWidth);
      *to = value;
    }
    c += ldc;
  }
}

// A tile that ends inside a vector goes through a copy of C wide enough for whole ones.
template <int Rows, int Vectors, bool Packed>
void edge_tile(const GemmBlock& block, const float* a, const float* b, float* c, long columns,
               const float* bias) {
  float wide[Rows * Vectors * kWidth], wide_bias[Vectors * kWidth];
  constexpr long stride = Vectors * kWidth;
  if (block.add)
    for (int i = 0; i < Rows; ++i)
      for (long j = 0; j < columns; ++j) wide[i * stride + j] = c[i * block.ldc + j];
  if (bias)
    for (long j = 0; j < columns; ++j) wide_bias[j] = bias[j];
  tile<Rows, Vectors, Packed>(block, a, b, wide, stride, bias ? wide_bias : nullptr);
  for (int i = 0; i < Rows; ++i)
    for (long j = 0; j < columns; ++j) c[i * block.ldc + j] = wide[i * stride + j];
}

// Picks the tile for what is left of C: at most Rows rows, at most Vectors vectors of columns.
template <int Rows, int Vectors, bool Packed>
void fit_tile(const GemmBlock& block, long rows, long columns, const float* a, const float* b, float* c,
              const float* bias) {
  if constexpr (Rows > 1)
    if (rows < Rows) return fit_tile<Rows - 1, Vectors, Packed>(block, rows, columns, a, b, c, bias);
  if constexpr (Vectors > 1)
    if (columns <= (Vectors - 1) * kWidth)
      return fit_tile<Rows, Vectors - 1, Packed>(block, rows, columns, a, b, c, bias);
  if (columns == Vectors * kWidth)
    tile<Rows, Vectors, Packed>(block, a, b, c, block.ldc, bias);
  else
    edge_tile<Rows, Vectors, Packed>(block, a, b, c, columns, bias);
}

// A panel of B stays in the first-level cache while all panels of A pass by.
template <bool Packed>
void multiply(const GemmBlock& block) {
  for (long j = 0; j < block.columns; j += kColumns) {
    const float* b = block.b + j / kColumns * block.b_panel;
    const float* bias = block.bias ? block.bias + j : nullptr;
    const long columns = block.columns - j < kColumns ? block.columns - j : kColumns;
    for (long i = 0; i < block.rows; i += kRows) {
      const float* a = block.a + i / kRows * block.a_panel;
      const long rows = block.rows - i < kRows ? block.rows - i : kRows;
      fit_tile<kRows, kVectors, Packed>(block, rows, columns, a, b, block.c + i * block.ldc + j, bias);
    }
  }
}

// The micro-kernel, written once for any vector width.
//
// Included inside an anonymous namespace by the files that compile it for one instruction set each, after
// they define
//   Vector    the compiler's vector of kWidth floats, at any address
//   kRows     height of a panel of A: rows of C held in registers
//   kVectors  width of a panel of B in vectors
//   load_part, store_part: the first `count` lanes of a vector, nothing else touched
// so that kRows · kVectors sums, kVectors vectors of B and one broadcast element of A fill the registers, and
// every element loaded is used for many multiply-adds.
//
// A vector of the compiler's own (not intrinsics) keeps it readable, and `sum += a * b` becomes one fused
// instruction. Nothing is included here and nothing outside the anonymous namespace is called: see
// gemm_kernel.h.

constexpr long kColumns = kVectors * kWidth;
constexpr long kAhead =
    16;  // steps of k for which elements of B are on their way from the second-level cache

// One tile: `Rows` rows by `Vectors` vectors of C, of which the last has `last` lanes (all of them when
// `Whole`). Every element is the same chain of multiply-adds in every tile size.
template <int Rows, int Vectors, bool Packed, bool Whole>
void tile(const GemmBlock& block, const float* a, const float* b, float* c, const float* bias, long last) {
  Vector sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < Vectors; ++j) sum[i][j] = Vector{};

  const long a_row = Packed ? 1 : block.a_row, a_step = block.a_step, b_step = block.b_step;
  for (long p = block.k; p > 0; --p) {
    Vector b_vector[Vectors];
#pragma GCC unroll 16
    for (int j = 0; j < Vectors; ++j) {
      b_vector[j] = *reinterpret_cast<const Vector*>(b + j * kWidth);
      __builtin_prefetch(b + kAhead * b_step + j * kWidth);
    }
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
      const bool part = !Whole && j == Vectors - 1;
      float* to = c + j * kWidth;
      Vector value = sum[i][j] * alpha;
      if (add) value += part ? load_part(to, last) : *reinterpret_cast<const Vector*>(to);
      if (bias)
        value +=
            part ? load_part(bias + j * kWidth, last) : *reinterpret_cast<const Vector*>(bias + j * kWidth);
      if (part)
        store_part(to, value, last);
      else
        *reinterpret_cast<Vector*>(to) = value;
    }
    c += block.ldc;
  }
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
  const long last = columns - (Vectors - 1) * kWidth;
  if (last == kWidth)
    tile<Rows, Vectors, Packed, true>(block, a, b, c, bias, last);
  else
    tile<Rows, Vectors, Packed, false>(block, a, b, c, bias, last);
}

// A single row has too few sums to hide the latency of a multiply-add, so it takes many vectors at a time
// where B lies in memory as it is.  Returns the columns done.
long multiply_row(const GemmBlock& block) {
  constexpr int kMany = 8;
  long j = 0;
  for (; j + kMany * kWidth <= block.columns; j += kMany * kWidth)
    tile<1, kMany, true, true>(block, block.a, block.b + j, block.c + j,
                               block.bias ? block.bias + j : nullptr, kWidth);
  return j;
}

// A panel of B stays in the first-level cache while all panels of A pass by.
template <bool Packed>
void multiply(const GemmBlock& block) {
  const bool in_place = block.b_panel == kColumns;
  for (long j = in_place && block.rows == 1 ? multiply_row(block) : 0; j < block.columns; j += kColumns) {
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

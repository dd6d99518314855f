// Matrix products on the CPU, ours from the packing to the micro-kernels.
//
//   C = alpha · op(A) op(B)  [+ bias]  [+ C]      op(X) = X or Xᵀ,  op(A): [m, k],  op(B): [k, n],  C: [m, n]
//
// How it works: the product is cut into tiles of C, one thread a tile.  A thread copies the parts of A and B
// that it needs into panels that lie in memory in the order of use, and a micro-kernel (AVX-512, AVX2 or
// plain, see core/cpu.h) multiplies panels into blocks of C that stay in registers.
//
// Determinism: an element of C is a sum over k in blocks of fixed size, in order, one multiply-add after the
// other; which thread or tile computes it makes no difference, and unless A is transposed neither do m and n.
// A row of a forward product so has the same bits in a batch of one and of thousands.  With A transposed (the
// gradient of a weight: few outputs, long sums) k may be cut in parts, as a function of the shape, whose sums
// are added in order.
#pragma once

#include "mixrec/core/bfloat16.h"

#include <cstdint>

namespace mixrec::kernel {

// Sizes and strides count elements.  Matrices are row-major with rows ld apart: A is stored [m, k], or [k, m]
// when transposed; B [k, n], or [n, k].  Batch item i uses a + i·stride_a and so on; a stride of 0 shares an
// operand.
struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  int64_t lda = 0, ldb = 0, ldc = 0;
  double alpha = 1;
  bool accumulate = false;  // add to C instead of overwriting it, which C may then hold anything
  int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
  int64_t stride_bias = 0;
};

// Throws on negative sizes and on rows that overlap (ld smaller than a row).
void check(const Gemm& shape);

// All of these check their shape first.  `bias`, one value a column, may be null.  C must not overlap A or B.
// k = 0 gives zeros (plus bias, plus C).
void gemm(const Gemm& shape, const float* a, const float* b, float* c, const float* bias = nullptr);

// bfloat16 operands are widened while packing and summed in float.
void gemm(const Gemm& shape, const bfloat16* a, const bfloat16* b, bfloat16* c,
          const bfloat16* bias = nullptr);
void gemm(const Gemm& shape, const bfloat16* a, const bfloat16* b, float* c, const float* bias = nullptr);

// The plain reference in double, for gradient checks and parity tests.
void gemm(const Gemm& shape, const double* a, const double* b, double* c, const double* bias = nullptr);

}  // namespace mixrec::kernel

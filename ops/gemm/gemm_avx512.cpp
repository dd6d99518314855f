#include "mixrec/ops/gemm/gemm_kernel.h"

#include <immintrin.h>

namespace mixrec::kernel {

namespace {

constexpr int kWidth = 16, kRows = 14, kVectors = 2;

typedef float Vector __attribute__((vector_size(64), aligned(4), may_alias));

__mmask16 first(long count) { return static_cast<__mmask16>((1u << count) - 1); }
Vector load_part(const float* from, long count) { return _mm512_maskz_loadu_ps(first(count), from); }
void store_part(float* to, Vector value, long count) { _mm512_mask_storeu_ps(to, first(count), value); }
Vector multiply_add(Vector a, Vector b, Vector sum) { return _mm512_fmadd_ps(a, b, sum); }

#include "mixrec/ops/gemm/gemm_tile.inc"

}  // namespace

void gemm_block_avx512(const GemmBlock& block) {
  block.a_row == 1 ? multiply<true>(block) : multiply<false>(block);
}

}  // namespace mixrec::kernel

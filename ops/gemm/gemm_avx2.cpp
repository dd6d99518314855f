#include "mixrec/ops/gemm/gemm_kernel.h"

#include <immintrin.h>

namespace mixrec::kernel {

namespace {

constexpr int kWidth = 8, kRows = 6, kVectors = 2;

typedef float Vector __attribute__((vector_size(32), aligned(4), may_alias));

__m256i first(long count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
Vector load_part(const float* from, long count) { return _mm256_maskload_ps(from, first(count)); }
void store_part(float* to, Vector value, long count) { _mm256_maskstore_ps(to, first(count), value); }
Vector multiply_add(Vector a, Vector b, Vector sum) { return _mm256_fmadd_ps(a, b, sum); }

#include "mixrec/ops/gemm/gemm_tile.inc"

}  // namespace

void gemm_block_avx2(const GemmBlock& block) {
  block.a_row == 1 ? multiply<true>(block) : multiply<false>(block);
}

}  // namespace mixrec::kernel

#include "mixrec/ops/gemm/gemm_kernel.h"

namespace mixrec::kernel {

namespace {

constexpr int kWidth = 4, kRows = 4, kVectors = 2;

typedef float Vector __attribute__((vector_size(16), aligned(4), may_alias));

Vector load_part(const float* from, long count) {
  Vector value{};
  for (long j = 0; j < count; ++j) value[j] = from[j];
  return value;
}
void store_part(float* to, Vector value, long count) {
  for (long j = 0; j < count; ++j) to[j] = value[j];
}
Vector multiply_add(Vector a, Vector b, Vector sum) { return sum + a * b; }

#include "mixrec/ops/gemm/gemm_tile.inc"

}  // namespace

void gemm_block_baseline(const GemmBlock& block) {
  block.a_row == 1 ? multiply<true>(block) : multiply<false>(block);
}

}  // namespace mixrec::kernel

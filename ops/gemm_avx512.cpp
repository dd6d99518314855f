#include "mixrec/ops/gemm_kernel.h"

namespace mixrec::kernel {

namespace {

constexpr int kWidth = 16, kRows = 14, kVectors = 2;

#include "mixrec/ops/gemm_tile.h"

}  // namespace

void gemm_block_avx512(const GemmBlock& block) {
  block.a_row == 1 ? multiply<true>(block) : multiply<false>(block);
}

}  // namespace mixrec::kernel

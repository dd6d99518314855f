#include "mixrec/ops/gemm_kernel.h"

namespace mixrec::kernel {

namespace {

constexpr int kWidth = 4, kRows = 4, kVectors = 2;

#include "mixrec/ops/gemm_tile.h"

}  // namespace

void gemm_block_baseline(const GemmBlock& block) {
  block.a_row == 1 ? multiply<true>(block) : multiply<false>(block);
}

}  // namespace mixrec::kernel

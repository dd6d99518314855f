// What the driver (gemm.cpp) hands to a micro-kernel (gemm_avx512.cpp, gemm_avx2.cpp, gemm_baseline.cpp).
//
// Plain types only: this header is compiled for several instruction sets, and an inline function would exist
// once per set under one name.
#pragma once

namespace mixrec::kernel {

// C[rows, columns] = alpha · A B [+ C] [+ bias], with A and B cut in panels of a kernel's own height and
// width: A(q·height + i, p) = a[q·a_panel + i·a_row + p·a_step],   B(p, q·width + j) = b[q·b_panel + p·b_step
// + j]. Packed panels have a_row = 1; matrices used where they lie have the strides of their rows.  Panels of
// B are full (reading all `width` columns is safe), those of A may end at `rows`.
struct GemmBlock {
  long rows, columns, k;
  const float* a;
  long a_row, a_step, a_panel;
  const float* b;
  long b_step, b_panel;
  float* c;
  long ldc;
  float alpha;
  bool add;           // to what C holds
  const float* bias;  // [columns], or null
};

void gemm_block_baseline(const GemmBlock& block);  // panels 4 high, 8 wide
void gemm_block_avx2(const GemmBlock& block);      // 6 high, 16 wide
void gemm_block_avx512(const GemmBlock& block);    // 14 high, 32 wide

}  // namespace mixrec::kernel

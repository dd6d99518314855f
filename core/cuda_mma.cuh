// Tensor cores, as the instructions of one warp: every lane takes part, and holds a share of each matrix.
//
//   lane = 4 · group + place, group 0 … 7, place 0 … 3; a word is two bfloat16, the first one lower
//   a, 16 × 16: words (row group, columns 2·place), (group + 8, 2·place), (group, 2·place + 8), (group + 8, 2·place + 8)
//   b, 16 × 8:  words (rows 2·place and the next, column group), (2·place + 8 and the next, group)
//   c, 16 × 8:  (row group, columns 2·place and the next), (row group + 8, the same)
//
// Only .cu files include this.
#pragma once

#include "mixrec/core/bfloat16.h"

#include <cstdint>

namespace mixrec::cuda {

// c += a · b, summed in f32.
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, "
      "%1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 × 8 matrices from shared memory: row i of matrix j starts at what lane 8·j + i gives, at 16 bytes.  Of
// each a lane gets (row group, columns 2·place and the next).
__device__ inline void load_matrices(uint32_t (&to)[4], const bfloat16* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(at)
               : "memory");
}
// The same, transposed: a lane gets (rows 2·place and the next, column group).
__device__ inline void load_transposed(uint32_t (&to)[4], const bfloat16* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(at)
               : "memory");
}

// Two floats rounded into a word.
__device__ inline uint32_t round_pair(float lower, float upper) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(upper), "f"(lower));
  return word;
}
__device__ inline float lower_of(uint32_t word) { return __builtin_bit_cast(float, word << 16); }
__device__ inline float upper_of(uint32_t word) { return __builtin_bit_cast(float, word & 0xffff0000u); }

// Starts to copy 16 bytes into shared memory; without `exists` nothing is read and zeros are written.
__device__ inline void copy_async(bfloat16* to, const bfloat16* from, bool exists) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(at), "l"(__cvta_generic_to_global(from)), "r"(exists ? 16 : 0)
               : "memory");
}
// Closes a group of this thread's copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all of this thread's groups but the last kLeft are there.
template <int kLeft>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

}  // namespace mixrec::cuda

// What kernels made of matrix products share: ranges, the micro-kernel of this processor, packed factors.
#pragma once

#include "mixrec/ops/gemm/gemm_kernel.h"
#include "mixrec/ops/gemm/gemm_pack.h"

#include <algorithm>
#include <cstdint>

namespace mixrec::kernel {

// A block of k is long enough to hide the stores of C behind it, short enough for a panel of B to stay in
// cache.
constexpr int64_t kDepth = 384;
// Multiply-adds that take about as long as one elementary operation in the sense of parallel_for.
constexpr int64_t kMultipliesPerOperation = 64;

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// Part `index` of `parts` of [0, n), cut at multiples of `step`.
inline Range cut(int64_t n, int64_t step, int64_t parts, int64_t index) {
  const int64_t steps = divide_up(n, step);
  return {std::min(n, steps * index / parts * step), std::min(n, steps * (index + 1) / parts * step)};
}

// How many blocks a sum over k is cut in; block i is cut(k, 1, depth_blocks(k), i).
inline int64_t depth_blocks(int64_t k) { return std::max<int64_t>(1, divide_up(k, kDepth)); }

struct MicroKernel {
  int64_t height, width, vector;  // lines in a panel of A and of B, floats in a vector
  void (*run)(const GemmBlock&);
};

// The fastest one of current_isa().
MicroKernel current_kernel();

// A part of a factor, as the micro-kernel reads it.
struct Panels {
  const float* data;
  int64_t line_step, depth_step, panel_step;
};

// Floats that a packed factor takes.
inline int64_t packed_size(int64_t lines, int64_t depth, int64_t width) {
  return round_up(lines, width) * depth + kPackSlack;
}

template <class T>
Panels packed(const Factor<T>& factor, Range lines, Range depth, int64_t width, float* panels) {
  pack(factor, lines.begin, lines.size(), depth.begin, depth.size(), width, panels);
  return {panels, 1, width, width * depth.size()};
}

// Read where it lies, by panels of `width` lines.
inline Panels in_place(const Factor<float>& factor, Range lines, Range depth, int64_t width) {
  const int64_t line_step = factor.line_major ? factor.ld : 1, depth_step = factor.line_major ? 1 : factor.ld;
  return {factor.data + lines.begin * line_step + depth.begin * depth_step, line_step, depth_step,
          width * line_step};
}

}  // namespace mixrec::kernel

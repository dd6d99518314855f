#include "mixrec/ops/gemm/gemm_pack.h"

#include "mixrec/core/bfloat16.h"
#include "mixrec/core/simd.h"

#include <algorithm>

namespace mixrec::kernel {

namespace {

using simd::Floats8;

constexpr int64_t kLanes = Floats8::size;

// Swaps rows and columns of the 8 x 8 matrix held in eight packs.
[[gnu::always_inline]] inline void transpose(Floats8 (&row)[8]) {
  Floats8 pairs[8], quads[8];
  for (int i = 0; i < 8; i += 2) {
    const auto a = row[i].lanes, b = row[i + 1].lanes;
    pairs[i] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[i + 1] = __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int half = 0; half < 8; half += 4)
    for (int i = 0; i < 2; ++i) {
      const auto a = pairs[half + i].lanes, b = pairs[half + i + 2].lanes;
      quads[half + 2 * i] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
      quads[half + 2 * i + 1] = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int i = 0; i < 4; ++i) {
    const auto a = quads[i].lanes, b = quads[i + 4].lanes;
    row[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
    row[i + 4] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// Lines that lie along memory: squares of eight lines by eight elements are transposed.  A square's store may
// run over the panel's width into the place of the next element, which is written later: groups of lines go
// from the last to the first.
template <class T>
void pack_lines(const T* from, int64_t ld, int64_t lines, int64_t depth, int64_t width, float* panel) {
  for (int64_t group = (width - 1) / kLanes * kLanes; group >= 0; group -= kLanes) {
    const T* line[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) line[r] = from + std::min(group + r, lines - 1) * ld;
    Floats8 square[kLanes];
    float* to = panel + group;
    int64_t p = 0;
    for (; p + kLanes <= depth; p += kLanes) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kLanes; ++r) square[r] = simd::load(line[r] + p);
      transpose(square);
#pragma GCC unroll 8
      for (int64_t s = 0; s < kLanes; ++s, to += width) simd::store(to, square[s]);
    }
    if (p == depth) continue;
    for (int64_t r = 0; r < kLanes; ++r) square[r] = simd::load(line[r] + p, depth - p);
    transpose(square);
    for (int64_t s = 0; s < depth - p; ++s, to += width) simd::store(to, square[s]);
  }
}

// Lines across memory: one row of memory holds one element of every line.
template <class T>
void copy_rows(const T* from, int64_t ld, int64_t lines, int64_t rows, int64_t width, float* to) {
  for (int64_t s = 0; s < rows; ++s, from += ld, to += width)
    for (int64_t r = 0; r < width; r += kLanes) {
      const int64_t count = std::clamp<int64_t>(lines - r, 0, kLanes);
      simd::store(to + r, simd::load(from + r, count), std::min(kLanes, width - r));
    }
}

// The same for panels that are full.  A width that is not a multiple of eight ends in a store that overlaps
// the one before.
template <int64_t Width, class T>
void copy_full_rows(const T* from, int64_t ld, int64_t rows, float* to) {
  for (int64_t s = 0; s < rows; ++s, from += ld, to += Width)
#pragma GCC unroll 4
    for (int64_t r = 0; r < Width; r += kLanes) {
      const int64_t start = std::min(r, Width - kLanes);
      simd::store(to + start, simd::load(from + start));
    }
}

// A few rows at a time, so that both sides stay within reach of the caches.
template <class T>
void pack_columns(const T* from, int64_t ld, int64_t lines, int64_t depth, int64_t width, float* panels) {
  constexpr int64_t kRows = 16;
  for (int64_t s = 0; s < depth; s += kRows)
    for (int64_t i = 0; i < lines; i += width) {
      const T* source = from + s * ld + i;
      float* to = panels + (i / width * depth + s) * width;
      const int64_t rows = std::min(kRows, depth - s);
      if (i + width > lines)
        copy_rows(source, ld, lines - i, rows, width, to);
      else if (width == 32)
        copy_full_rows<32>(source, ld, rows, to);
      else if (width == 16)
        copy_full_rows<16>(source, ld, rows, to);
      else if (width == 14)
        copy_full_rows<14>(source, ld, rows, to);
      else
        copy_rows(source, ld, width, rows, width, to);
    }
}

}  // namespace

template <class T>
void pack(const Factor<T>& factor, int64_t i, int64_t lines, int64_t p, int64_t depth, int64_t width,
          float* panels) {
  if (!factor.line_major)
    return pack_columns(factor.data + p * factor.ld + i, factor.ld, lines, depth, width, panels);
  for (int64_t q = 0; q < lines; q += width, panels += width * depth)
    pack_lines(factor.data + (i + q) * factor.ld + p, factor.ld, std::min(width, lines - q), depth, width,
               panels);
}

template void pack(const Factor<float>&, int64_t, int64_t, int64_t, int64_t, int64_t, float*);
template void pack(const Factor<bfloat16>&, int64_t, int64_t, int64_t, int64_t, int64_t, float*);

}  // namespace mixrec::kernel

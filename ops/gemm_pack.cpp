#include "mixrec/ops/gemm_pack.h"

#include "mixrec/core/bfloat16.h"
#include "mixrec/core/simd.h"

#include <algorithm>

namespace mixrec::kernel {

namespace {

using simd::Floats8;

constexpr int64_t kLanes = Floats8::size;

// Swaps rows and columns of the 8 x 8 matrix held in eight packs.
void transpose(Floats8 (&row)[8]) {
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
// run over the panel's width into the next element's place, which is written later: groups of lines go from
// the last to the first.
template <class T>
void pack_lines(const T* from, int64_t ld, int64_t lines, int64_t depth, int64_t width, float* panel) {
  const int64_t last_group = (width - 1) / kLanes * kLanes;
  for (int64_t p = 0; p < depth; p += kLanes) {
    const int64_t count = std::min(kLanes, depth - p);
    for (int64_t group = last_group; group >= 0; group -= kLanes) {
      Floats8 square[kLanes];
#pragma GCC unroll 8
      for (int64_t r = 0; r < kLanes; ++r) {
        const T* line = from + std::min(group + r, lines - 1) * ld + p;
        square[r] = count == kLanes ? simd::load(line) : simd::load(line, count);
      }
      transpose(square);
      float* to = panel + p * width + group;
      if (count == kLanes) {
#pragma GCC unroll 8
        for (int64_t s = 0; s < kLanes; ++s) simd::store(to + s * width, square[s]);
      } else {
        for (int64_t s = 0; s < count; ++s) simd::store(to + s * width, square[s]);
      }
    }
  }
}

// Lines across memory: one row of memory holds one element of every line.
template <class T>
void pack_columns(const T* from, int64_t ld, int64_t lines, int64_t depth, int64_t width, float* panels) {
  for (int64_t s = 0; s < depth; ++s, from += ld)
    for (int64_t i = 0; i < lines; i += width) {
      float* to = panels + (i / width * depth + s) * width;
      for (int64_t r = 0; r < width; r += kLanes) {
        const int64_t room = std::min(kLanes, width - r), count = std::clamp<int64_t>(lines - i - r, 0, room);
        const Floats8 values = count == kLanes ? simd::load(from + i + r) : simd::load(from + i + r, count);
        room == kLanes ? simd::store(to + r, values) : simd::store(to + r, values, room);
      }
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

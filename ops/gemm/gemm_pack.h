// Copies a part of a matrix into panels, the order in which a micro-kernel reads it.
#pragma once

#include <cstdint>

namespace mixrec::kernel {

// A factor of a product seen by its lines (rows of op(A), columns of op(B)), each k elements long.
template <class T>
struct Factor {
  const T* data;
  int64_t ld;
  bool line_major;  // element p of line i lies at data[i·ld + p], else at data[p·ld + i]
};

// Writes elements [p, p + depth) of lines [i, i + lines) as floats into panels of `width` lines:
// line i + q·width + r, element p + s goes to panels[(q·depth + s)·width + r].  The last panel is filled up
// with anything finite.  Writes up to kPackSlack floats behind the last panel.
template <class T>
void pack(const Factor<T>& factor, int64_t i, int64_t lines, int64_t p, int64_t depth, int64_t width,
          float* panels);

constexpr int64_t kPackSlack = 8;

}  // namespace mixrec::kernel

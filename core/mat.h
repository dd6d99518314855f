// Mat: what a kernel sees of a tensor: rows with a dense last dimension and two outer strides.
#pragma once

#include "mixrec/core/host_device.h"

#include <cstdint>

namespace mixrec {

// `batch` groups of `rows` rows of `cols` elements.  Row r of group b starts at data + b * batch_stride + r *
// row_stride, so a head slice x[:, a:b, :] and a column slice of a fused buffer need no copy.
template <class T>
struct Mat {
  T* data = nullptr;
  int64_t batch = 1;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t batch_stride = 0;
  int64_t row_stride = 0;

  MR_HOST_DEVICE int64_t count() const { return batch * rows; }
  MR_HOST_DEVICE bool dense() const {
    return row_stride == cols && (batch == 1 || batch_stride == rows * cols);
  }

  // Row `i` of all count() rows.
  MR_HOST_DEVICE T* row(int64_t i) const {
    if (batch == 1) return data + i * row_stride;
    return data + i / rows * batch_stride + i % rows * row_stride;
  }
  MR_HOST_DEVICE T* row(int64_t b, int64_t r) const { return data + b * batch_stride + r * row_stride; }
};

}  // namespace mixrec

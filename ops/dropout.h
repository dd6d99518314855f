// Dropout (Srivastava et al. 2014): zeroes elements with probability `rate` and scales the others by
// 1 / (1 - rate).
//
//   y_i = keep_i x_i / (1 - rate)        keep_i: word_i >= rate 2³²        dx_i = keep_i dy_i / (1 - rate)
//
// word_i is word i % 4 of Philox block counter + i / 4, i counting elements in row-major order: the decisions
// depend on seed, counter and shape alone and are the same on every device.  Saves seed and counter, no mask.
#pragma once

#include "mixrec/core/rng.h"
#include "mixrec/core/tensor.h"

namespace mixrec {

// x: any shape; rate in [0, 1).  Itself when not training or when rate is 0; otherwise advances `rng` by
// ⌈elements / 4⌉ blocks.
Tensor dropout(const Tensor& x, double rate, Rng& rng, bool training);

namespace kernel {

// Element i is kept when its word is not below the threshold.
template <class T>
void dropout(Cpu, Mat<const T> x, uint64_t seed, uint64_t counter, uint32_t threshold, double scale,
             Mat<T> y);

// The same on a device.
template <class T>
void dropout(Cuda, Mat<const T> x, uint64_t seed, uint64_t counter, uint32_t threshold, double scale,
             Mat<T> y);

}  // namespace kernel
}  // namespace mixrec

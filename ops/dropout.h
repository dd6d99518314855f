// Dropout: zeroes elements with probability `rate` and scales the others by 1 / (1 - rate).
//
//   y_i = x_i keep_i / (1 - rate),   keep_i: word i of the Philox stream ≥ ⌊rate 2³²⌉        dx_i = dy_i
//   keep_i / (1 - rate)
//
// Saves the stream's seed and position instead of a mask; the decisions are the same bits on every device.
#pragma once

#include "mixrec/core/rng.h"
#include "mixrec/core/tensor.h"

namespace mixrec {

// Itself when not training or when rate is 0; rate in [0, 1).  Advances `rng` by ⌈numel / 4⌉ blocks
// otherwise.
Tensor dropout(const Tensor& x, double rate, Rng& rng, bool training);

namespace kernel {

// y = x keep scale over n elements; element i uses word i % 4 of block `counter` + i / 4.
template <class T>
void dropout(Cpu, int64_t n, const T* x, uint64_t seed, uint64_t counter, uint32_t threshold, double scale,
             T* y);

}  // namespace kernel
}  // namespace mixrec

// Between requests and their candidates, or rows and their segments: R segments of C rows, segment r being
// rows offsets[r] .. offsets[r + 1].
//
//   expand_by_request  y[c] = x[r] for every c of segment r        dx[r] = sum over c of dy[c]      saves
//   offsets segment_sum        y[r] = sum over c of x[c]                   dx[c] = dy[r] saves offsets
//   segment_mean       y[r] = the same over the segment's length   dx[c] = dy[r] / length           saves
//   offsets
//
// An empty segment has no rows, a sum of zero and a mean of zero.  Sums run in the order of the rows and are
// kept in f32 (f64 for f64).  Throws unless offsets are i64 [R + 1], start at 0, never fall and end at C.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

Tensor expand_by_request(const Tensor& x, const Tensor& offsets);  // [R, ...] -> [C, ...]
Tensor segment_sum(const Tensor& x, const Tensor& offsets);        // [C, ...] -> [R, ...]
Tensor segment_mean(const Tensor& x, const Tensor& offsets);       // [C, ...] -> [R, ...]

namespace kernel {

// y[c] = x[r], over the segment's length if `mean`.  x: R rows, y: C rows.
template <class T>
void expand_segments(Cpu, Mat<const T> x, const int64_t* offsets, bool mean, Mat<T> y);

// y[r] = sum (or mean) of x[ids[i]] over the segment's positions i; null ids stand for ids[i] = i.
template <class T>
void sum_segments(Cpu, Mat<const T> x, const int64_t* ids, const int64_t* offsets, bool mean, Mat<T> y);

}  // namespace kernel
}  // namespace mixrec

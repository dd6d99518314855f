// Between requests and their candidates, or rows and their segments: R segments of C rows, segment r being
// rows offsets[r] .. offsets[r + 1].
//
//   expand_by_request  y[c] = x[r] for every c of segment r        dx[r] = sum over c of dy[c]
//   segment_sum        y[r] = sum over c of x[c]                   dx[c] = dy[r]
//   segment_mean       y[r] = the same over the segment's length   dx[c] = dy[r] / length
//
// All save offsets.  An empty segment has no rows, a sum of zero and a mean of zero.  Sums run in the order of
// the rows and are kept in f32 (f64 for f64); on a device eight at a time.  Throws unless offsets are i64
// [R + 1], start at 0, never fall and end at C.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// `total` is C, where the caller knows it; -1 reads it from the offsets, which waits for a device.
Tensor expand_by_request(const Tensor& x, const Tensor& offsets, int64_t total = -1);  // [R, ...] -> [C, ...]
Tensor segment_sum(const Tensor& x, const Tensor& offsets);                            // [C, ...] -> [R, ...]
Tensor segment_mean(const Tensor& x, const Tensor& offsets);                           // [C, ...] -> [R, ...]

namespace kernel {

// y[c] = x[r], over the segment's length if `mean`.  x: R rows, y: C rows.
template <class T>
void expand_segments(Cpu, Mat<const T> x, const int64_t* offsets, bool mean, Mat<T> y);
template <class T>
void expand_segments(Cuda, Mat<const T> x, const int64_t* offsets, bool mean, Mat<T> y);

// y[r] = sum (or mean) of x[ids[i]] over the segment's positions i; null ids stand for ids[i] = i.  X and Y
// are one type, or float and bfloat16.  On a device an id outside x counts as zeros, and is reported by
// cuda::check_device_errors().
template <class X, class Y>
void sum_segments(Cpu, Mat<const X> x, const int64_t* ids, const int64_t* offsets, bool mean, Mat<Y> y);
template <class X, class Y>
void sum_segments(Cuda, Mat<const X> x, const int64_t* ids, const int64_t* offsets, bool mean, Mat<Y> y);

}  // namespace kernel
}  // namespace mixrec

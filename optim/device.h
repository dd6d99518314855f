// An optimiser's step on a device: what its kernels are given, what they share, and the kernels.
//
// The host queues the whole step and waits for nothing.  What it would decide with numbers (is the norm finite,
// how much is clipped, how many steps were there) is decided by one thread in decide(), and the kernels after it
// read the outcome from a DeviceStep in device memory.  So a step can be recorded into a CUDA graph.
#pragma once

#include "mixrec/core/bfloat16.h"
#include "mixrec/core/device.h"
#include "mixrec/core/dtype.h"
#include "mixrec/optim/rules.h"
#include "mixrec/optim/state.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace mixrec::optim {

inline constexpr int32_t kNoParameter = INT32_MAX;

// One in device memory for each optimiser.  Parameters are numbered: dense ones first, then tables.
struct DeviceStep {
  // From the host, before the step.
  double lr_factor = 1, gradient_scale = 1;

  // Found on the way: the first parameter whose gradient is not finite, and look-ups, since the start, with an
  // id outside their table.  These are left out.
  int32_t suspect = kNoParameter;
  int64_t lost_lookups = 0;

  // Decided.  After a refused step the ones that follow are refused too, with the weights and the findings of
  // the first, until the host has seen it.
  int64_t refused = 0;
  int32_t applied = 0;  // 0: every later kernel leaves all as it is
  int32_t not_finite = kNoParameter;
  double gradient_norm = 0, clip_factor = 1;
  double scale = 1;    // on every gradient: gradient_scale times clip_factor
  int64_t number = 0;  // of this step, from 1
  int64_t table_rows = 0;
  AdamCorrection correction;  // of dense parameters after this step
  double average_kept = 0;    // MovingAverage::kept() from the step before to this one
};

// Sums of squares, to be added up in order.
struct Partials {
  const double* values = nullptr;
  int64_t count = 0;
};

// ---- Dense parameters. ----

// A run of elements of one parameter, worked on by one block of threads.  It starts at, and with the padding
// between parameters is, a multiple of 16 bytes.
struct DenseBlock {
  int64_t begin, count;
  double lr, weight_decay;
  int32_t parameter;
};

inline constexpr int64_t kDenseBlock = 4096;  // elements at most

template <class T>
struct DenseView {
  const DenseBlock* blocks;
  int64_t count;
  T* values;
  const T* gradients;
  T* state[2];
  T* averages;       // or null
  bfloat16* shadow;  // or null: the values in bf16
};

// ---- Tables. ----

struct DeviceTable {
  int64_t base;  // of its rows among the rows of all tables
  int64_t rows, width;
  double lr, weight_decay;
  void* value;
  void* slots[2];         // as in TableView
  int32_t* steps;         // lazy_adam
  void* average;          // or null,
  int32_t* average_step;  // then too
};

struct DeviceTables {
  const DeviceTable* tables;  // in device memory
  int32_t count;
  int32_t first_parameter;  // number of the first table
  int64_t rows, widest;     // of all tables together; the largest width
  bool vectorisable;        // whether rows of values and state can be walked 16 bytes at a time
};

// A run of look-ups: those of one backward.
struct LookupView {
  int64_t first, count;  // places among all look-ups
  int64_t base, table_rows;
  const int64_t* ids;
  const int64_t* places;        // null: place j
  const void* weights;          // null: 1
  const std::byte* dy;          // row i at dy + i · stride
  int64_t stride, dy_rows;      // stride in bytes
  bool narrow, narrow_weights;  // dy, or weights, are bf16, not the table's dtype
};

// The look-ups of a step by row; made and read by kernels (device_rows.cuh).
struct DeviceRows;

namespace kernel {

void set_numbers(Cuda device, double lr_factor, double gradient_scale, DeviceStep* step);
void accept_again(Cuda device, DeviceStep* step);  // after refused steps

// One number a block; a parameter with a gradient that is not finite becomes the suspect.
template <class T>
void square_dense(Cuda device, const DenseView<T>& view, double* partials, DeviceStep* step);

// Whether and how the step is applied, after both sums of squares are there.
struct Terms {
  double clip_norm = 0;
  double beta1 = 0, beta2 = 0;  // of the dense rule
  MovingAverage average;
  const void* loss = nullptr;  // one number: the step is refused unless it is finite
  DType loss_dtype = DType::f32;
};
void decide(Cuda device, const Terms& terms, const Partials& dense, const DeviceRows* rows, int64_t* steps,
            DeviceStep* step);

template <class T>
void update_dense(Cuda device, const RuleOptions& rule, const DenseView<T>& view, const DeviceStep* step);

// Sorts `count` look-ups by row, in the order of recording within one, and sums up the rows that have many.
// Numbers of the rows' sums of squares wait in it for decide().
template <class T>
std::shared_ptr<DeviceRows> collect_rows(Cuda device, const DeviceTables& tables,
                                         const std::vector<LookupView>& lookups, int64_t count,
                                         DeviceStep* step);

template <class T>
void update_rows(Cuda device, const RuleOptions& rule, MovingAverage average, const DeviceRows& rows,
                 const DeviceStep* step);

// Exchanges values and averages of the rows that were ever updated, as TableSet::swap_averages.
template <class T>
void swap_averages(Cuda device, MovingAverage average, const DeviceTable& table, const int64_t* steps);

}  // namespace kernel
}  // namespace mixrec::optim

// Dense parameters on a device: one launch sums the squares of all gradients, one updates all parameters.
//
// The flat buffers are cut into DenseBlocks of at most 4096 elements, each of one parameter and with that
// parameter's learning rate and decay.  A block of 256 threads takes one, 16 bytes a thread at a time; the
// padding between parameters fills the last vector.  adamw in f32 moves 28 bytes an element (gradient read;
// value, m and v read and written), 30 with a bf16 shadow, 38 with averages too: the time is that of the
// memory.
#include "mixrec/core/cuda_launch.cuh"
#include "mixrec/optim/device.h"

#include <type_traits>

namespace mixrec::optim::kernel {

namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    square_blocks(DenseView<T> view, double* partials, DeviceStep* step) {
  constexpr int kSize = cuda::Vec<T>::kSize;
  const DenseBlock block = view.blocks[blockIdx.x];
  const T* const gradients = view.gradients + block.begin;
  double square = 0;
  for (int64_t i = threadIdx.x * kSize; i < block.count; i += kThreads * kSize) {
    const cuda::Vec<T> g = cuda::load_vec(gradients + i);
#pragma unroll
    for (int k = 0; k < kSize; ++k) square += static_cast<double>(g.at[k]) * static_cast<double>(g.at[k]);
  }
  square = cuda::block_sum<kThreads>(square);
  if (threadIdx.x != 0) return;
  partials[blockIdx.x] = square;
  if (!isfinite(square)) atomicMin(&step->suspect, block.parameter);
}

// The shadow is f32's: of doubles there is none.
template <class T>
__device__ void store_shadow(bfloat16* to, const cuda::Vec<T>& values) {
  if constexpr (std::is_same_v<T, float>) {
    struct alignas(8) Four {
      bfloat16 at[4];
    } four;
#pragma unroll
    for (int k = 0; k < 4; ++k) four.at[k] = bfloat16(values.at[k]);
    *reinterpret_cast<Four*>(to) = four;
  }
}

template <class T, class Rule>
__global__ void __launch_bounds__(kThreads)
    update_blocks(DenseView<T> view, RuleNumbers numbers, const DeviceStep* step) {
  constexpr int kSize = cuda::Vec<T>::kSize;
  const DenseBlock block = view.blocks[blockIdx.x];
  const bool applied = step->applied != 0;
  // A refused step still leaves a shadow, which may be a fresh one.
  if (!applied && !view.shadow) return;
  const Rule rule = Rule::make(numbers, block.lr * step->lr_factor, block.weight_decay, step->correction);
  const T scale = static_cast<T>(step->scale), kept = static_cast<T>(step->average_kept);
  for (int64_t i = threadIdx.x * kSize; i < block.count; i += kThreads * kSize) {
    const int64_t at = block.begin + i;
    cuda::Vec<T> p = cuda::load_vec(view.values + at);
    if (applied) {
      const cuda::Vec<T> g = cuda::load_vec(view.gradients + at);
      cuda::Vec<T> s[2], average;
#pragma unroll
      for (int k = 0; k < Rule::kSlots; ++k) s[k] = cuda::load_vec(view.state[k] + at);
      if (view.averages) average = cuda::load_vec(view.averages + at);
#pragma unroll
      for (int k = 0; k < kSize; ++k) {
        const T scaled = scale * g.at[k];
        if constexpr (Rule::kSlots == 0) {
          rule(scaled, p.at[k]);
        } else if constexpr (Rule::kSlots == 1) {
          rule(scaled, p.at[k], s[0].at[k]);
        } else {
          rule(scaled, p.at[k], s[0].at[k], s[1].at[k]);
        }
      }
      cuda::store_vec(view.values + at, p);
#pragma unroll
      for (int k = 0; k < Rule::kSlots; ++k) cuda::store_vec(view.state[k] + at, s[k]);
      if (view.averages) {
#pragma unroll
        for (int k = 0; k < kSize; ++k) average.at[k] = blended(kept, p.at[k], average.at[k]);
        cuda::store_vec(view.averages + at, average);
      }
    }
    if (view.shadow) store_shadow(view.shadow + at, p);
  }
}

}  // namespace

template <class T>
void square_dense(Cuda device, const DenseView<T>& view, double* partials, DeviceStep* step) {
  cuda::launch(device, square_blocks<T>, view.count, kThreads, 0, view, partials, step);
}
template void square_dense(Cuda, const DenseView<float>&, double*, DeviceStep*);
template void square_dense(Cuda, const DenseView<double>&, double*, DeviceStep*);

template <class T>
void update_dense(Cuda device, const RuleOptions& rule, const DenseView<T>& view, const DeviceStep* step) {
  with_dense_rule<T>(rule, [&]<class Rule>() {
    cuda::launch(device, update_blocks<T, Rule>, view.count, kThreads, 0, view, RuleNumbers(rule), step);
  });
}
template void update_dense(Cuda, const RuleOptions&, const DenseView<float>&, const DeviceStep*);
template void update_dense(Cuda, const RuleOptions&, const DenseView<double>&, const DeviceStep*);

}  // namespace mixrec::optim::kernel

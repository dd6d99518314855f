// Where the ids of bags belong, for the backward of embedding_bag(): a thread an id finds its bag by
// bisection.  Floor: 8 bytes (or a weight) written an id.
#include "mixrec/ops/embedding.h"
#include "mixrec/ops/rows.cuh"

namespace mixrec::kernel {
namespace {

__device__ inline int64_t id_of_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__global__ void __launch_bounds__(rows::kThreads)
    find_bags(const int64_t* offsets, int64_t bags, int64_t count, int64_t* places) {
  const int64_t i = id_of_thread();
  if (i < count) places[i] = rows::segment_of(offsets, bags, i);
}

template <class T>
__global__ void __launch_bounds__(rows::kThreads)
    weigh_ids(const int64_t* offsets, int64_t bags, int64_t count, T* weights) {
  const int64_t i = id_of_thread();
  if (i >= count) return;
  const int64_t r = rows::segment_of(offsets, bags, i);
  weights[i] = static_cast<T>(acc_t<T>(1) / static_cast<acc_t<T>>(offsets[r + 1] - offsets[r]));
}

}  // namespace

void bag_of_each_id(Cuda device, const int64_t* offsets, int64_t bags, int64_t count, int64_t* places) {
  cuda::launch(device, find_bags, cuda::blocks(count, rows::kThreads), rows::kThreads, 0, offsets, bags,
               count, places);
}

template <class T>
void mean_weights(Cuda device, const int64_t* offsets, int64_t bags, int64_t count, T* weights) {
  cuda::launch(device, weigh_ids<T>, cuda::blocks(count, rows::kThreads), rows::kThreads, 0, offsets, bags,
               count, weights);
}

template void mean_weights(Cuda, const int64_t*, int64_t, int64_t, float*);
template void mean_weights(Cuda, const int64_t*, int64_t, int64_t, bfloat16*);
template void mean_weights(Cuda, const int64_t*, int64_t, int64_t, double*);

}  // namespace mixrec::kernel

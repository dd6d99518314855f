// Where the ids of bags belong, for the backward of embedding_bag(): a thread an id finds its bag by
// bisection.  Floor: 8 bytes and a weight written an id.
#include "mixrec/ops/embedding.h"
#include "mixrec/ops/rows.cuh"

namespace mixrec::kernel {
namespace {

template <class T>
__global__ void __launch_bounds__(rows::kThreads)
    find_places(const int64_t* offsets, int64_t bags, int64_t count, int64_t* places, T* weights) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t r = rows::segment_of(offsets, bags, i);
  places[i] = r;
  if (weights) weights[i] = static_cast<T>(acc_t<T>(1) / static_cast<acc_t<T>>(offsets[r + 1] - offsets[r]));
}

}  // namespace

template <class T>
void place_ids(Cuda device, const int64_t* offsets, int64_t bags, int64_t count, int64_t* places,
               T* weights) {
  cuda::launch(device, find_places<T>, cuda::blocks(count, rows::kThreads), rows::kThreads, 0, offsets, bags,
               count, places, weights);
}

template void place_ids(Cuda, const int64_t*, int64_t, int64_t, int64_t*, float*);
template void place_ids(Cuda, const int64_t*, int64_t, int64_t, int64_t*, bfloat16*);
template void place_ids(Cuda, const int64_t*, int64_t, int64_t, int64_t*, double*);

}  // namespace mixrec::kernel

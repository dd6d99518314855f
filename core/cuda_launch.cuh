// What CUDA kernels are made of: launching, errors, scratch memory, sums over warps and blocks, 16-byte loads.
//
//   template <class T>
//   void square(Cuda device, Mat<const T> x, Mat<T> y) {
//     cuda::launch(device, square_rows<T>, cuda::blocks(x.count(), kWarps), kWarps * 32, 0, x, y);
//   }
//
// Only .cu files include this.
#pragma once

#include "mixrec/core/cuda.h"
#include "mixrec/core/dtype.h"
#include "mixrec/core/error.h"
#include "mixrec/core/mat.h"

#include <algorithm>
#include <cmath>
#include <cuda_runtime.h>
#include <type_traits>

namespace mixrec::cuda {

// Throws Error with CUDA's sentence; `what` says what was tried.
void check(cudaError_t status, const char* what);

// After every launch: throws what it found; waits first when MIXREC_SYNC=1.
void check_launch(Cuda device);

inline cudaStream_t stream_of(Cuda device) { return static_cast<cudaStream_t>(device.stream); }

inline constexpr int kWarp = 32;
inline constexpr int64_t kMaxGrid = 0x7fffffff;

// ⌈items / per_block⌉, in 64 bits, as the size of a one-dimensional grid.  0 means that there is nothing to
// launch.
inline int64_t blocks(int64_t items, int64_t per_block) { return (items + per_block - 1) / per_block; }

// Queues kernel<<<grid, threads, shared>>>(arguments…).  An empty grid launches nothing.
template <class... Parameters, class... Arguments>
void launch(Cuda device, void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t shared_bytes,
            Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          "asking for shared memory");
  }
  kernel<<<grid, threads, shared_bytes, stream_of(device)>>>(static_cast<Parameters>(arguments)...);
  check_launch(device);
}
template <class... Parameters, class... Arguments>
void launch(Cuda device, void (*kernel)(Parameters...), int64_t grid, int threads, size_t shared_bytes,
            Arguments&&... arguments) {
  if (grid <= 0) return;
  MR_CHECK(grid <= kMaxGrid, "a launch of ", grid, " blocks is more than the device takes");
  launch(device, kernel, dim3(static_cast<unsigned>(grid)), dim3(static_cast<unsigned>(threads)),
         shared_bytes, std::forward<Arguments>(arguments)...);
}

// Multiprocessors of the current device: the natural size of a grid that loops.
int multiprocessors();

// Device memory for the time of a few launches on the current stream.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : Scratch(count, current_index()) {}
  ~Scratch() { cuda::free(reinterpret_cast<std::byte*>(data_), index_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }
  operator T*() const { return data_; }  // NOLINT: it is that memory

 private:
  Scratch(int64_t count, int index)
      : data_(reinterpret_cast<T*>(
            allocate(sizeof(T) * static_cast<size_t>(std::max<int64_t>(count, 1)), index))),
        index_(index) {}
  static int current_index() {
    int index = 0;
    check(cudaGetDevice(&index), "asking for the current device");
    return index;
  }

  T* data_;
  int index_;
};

// ---- In kernels. ----

// Sum, or largest, over the lanes of a warp; every lane gets it.  The order is the same in every launch.
template <class T>
__device__ inline T warp_sum(T value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
template <class T>
__device__ inline T warp_max(T value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(0xffffffffu, value, step);
    value = other > value ? other : value;
  }
  return value;
}

// Sum over a block of kThreads; every thread gets it.  All threads must call it, and may call it again.
template <int kThreads, class T>
__device__ inline T block_sum(T value) {
  static_assert(kThreads % kWarp == 0 && kThreads <= 1024);
  constexpr int kWarps = kThreads / kWarp;
  __shared__ T partial[kWarps];
  value = warp_sum(value);
  if constexpr (kWarps == 1) return value;
  __syncthreads();  // an earlier call's readers are done
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
  __syncthreads();
  T total = partial[0];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) total += partial[w];
  return total;
}

// Consecutive elements that move with one access of 16 bytes.
template <class T>
struct alignas(16) Vec {
  static constexpr int kSize = 16 / sizeof(T);
  T at[kSize];
};
template <class T>
__device__ inline Vec<std::remove_const_t<T>> load_vec(const T* from) {
  return *reinterpret_cast<const Vec<std::remove_const_t<T>>*>(from);
}
template <class T>
__device__ inline void store_vec(T* to, const Vec<T>& value) {
  *reinterpret_cast<Vec<T>*>(to) = value;
}

// Whether rows of `cols` elements, this far apart, can be walked in Vec<T>.
template <class T>
bool vectorisable(const T* data, int64_t cols, int64_t row_stride, int64_t batch_stride = 0) {
  constexpr int64_t kSize = 16 / static_cast<int64_t>(sizeof(T));
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && cols % kSize == 0 && row_stride % kSize == 0 &&
         batch_stride % kSize == 0;
}
template <class T>
bool vectorisable(const Mat<T>& m) {
  return vectorisable(m.data, m.cols, m.row_stride, m.batch == 1 ? 0 : m.batch_stride);
}

}  // namespace mixrec::cuda

// Copies, sums and fills of strided tensors on a device.
//
// One thread an element, the innermost dimension along a warp, so that accesses coalesce wherever a stride is 1.
// Copies of one dtype whose rows allow it move 16 bytes at a time (the walk is then over 16-byte units), dense
// conversions four elements at a time.  Floor: bytes read plus bytes written over the copy bandwidth.
#include "mixrec/core/copy.h"
#include "mixrec/core/cuda_launch.cuh"

namespace mixrec::kernel {
namespace {

constexpr int kThreads = 256;

// A Walk that travels as a kernel's argument.
struct Steps {
  int dims;
  int64_t count;
  int64_t size[Shape::kMaxDims], dst[Shape::kMaxDims], src[Shape::kMaxDims];

  explicit Steps(const Walk& walk, int64_t unit = 1)
      : dims(walk.shape.ndim()), count(walk.shape.numel() / unit) {
    for (int i = 0; i < dims; ++i) {
      const bool last = i == dims - 1;
      size[i] = last ? walk.shape[i] / unit : walk.shape[i];
      dst[i] = last ? walk.dst[i] : walk.dst[i] / unit;
      src[i] = last ? walk.src[i] : walk.src[i] / unit;
    }
  }
};

// Where element i of the walk is; divisions in 32 bits are several times faster than in 64.
template <class Index>
__device__ void locate(const Steps& steps, Index i, int64_t* dst, int64_t* src) {
  int64_t at_dst = 0, at_src = 0;
  for (int k = steps.dims - 1; k > 0; --k) {
    const auto size = static_cast<Index>(steps.size[k]);
    const Index next = i / size, index = i - next * size;
    at_dst += static_cast<int64_t>(index) * steps.dst[k];
    at_src += static_cast<int64_t>(index) * steps.src[k];
    i = next;
  }
  *dst = at_dst + static_cast<int64_t>(i) * steps.dst[0];
  *src = at_src + static_cast<int64_t>(i) * steps.src[0];
}

template <class Index, class D, class S, bool kAdd>
__global__ void walk_elements(Steps steps, D* dst, const S* src) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= steps.count) return;
  int64_t to, from;
  locate<Index>(steps, static_cast<Index>(i), &to, &from);
  if constexpr (kAdd) {
    dst[to] = static_cast<D>(static_cast<acc_t<D>>(dst[to]) + static_cast<acc_t<D>>(src[from]));
  } else {
    dst[to] = static_cast<D>(src[from]);
  }
}

template <class D, class S, bool kAdd>
void walk_all(Cuda device, const Steps& steps, D* dst, const S* src) {
  const int64_t grid = cuda::blocks(steps.count, kThreads);
  if (steps.count < (int64_t{1} << 31)) {
    cuda::launch(device, walk_elements<uint32_t, D, S, kAdd>, grid, kThreads, 0, steps, dst, src);
  } else {
    cuda::launch(device, walk_elements<uint64_t, D, S, kAdd>, grid, kThreads, 0, steps, dst, src);
  }
}

// Four elements a thread, the last thread what is left.
template <class T>
struct alignas(4 * sizeof(T)) Four {
  T at[4];
};

template <class D, class S>
__global__ void convert_dense(int64_t n, D* dst, const S* src) {
  const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (i + 4 <= n) {
    const Four<S> in = *reinterpret_cast<const Four<S>*>(src + i);
    Four<D> out;
#pragma unroll
    for (int k = 0; k < 4; ++k) out.at[k] = static_cast<D>(in.at[k]);
    *reinterpret_cast<Four<D>*>(dst + i) = out;
  } else {
    for (int64_t k = i; k < n; ++k) dst[k] = static_cast<D>(src[k]);
  }
}

template <class T>
__global__ void add_dense(int64_t n, T* dst, const T* src) {
  constexpr int kSize = cuda::Vec<T>::kSize;
  const int64_t i = kSize * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (i + kSize <= n) {
    auto sum = cuda::load_vec(dst + i);
    const auto part = cuda::load_vec(src + i);
#pragma unroll
    for (int k = 0; k < kSize; ++k)
      sum.at[k] = static_cast<T>(static_cast<acc_t<T>>(sum.at[k]) + static_cast<acc_t<T>>(part.at[k]));
    cuda::store_vec(dst + i, sum);
  } else {
    for (int64_t k = i; k < n; ++k)
      dst[k] = static_cast<T>(static_cast<acc_t<T>>(dst[k]) + static_cast<acc_t<T>>(src[k]));
  }
}

bool dense(const Walk& walk) { return walk.shape.ndim() == 1 && walk.dst[0] == 1 && walk.src[0] == 1; }

template <class T>
bool aligned(const T* p, size_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

// Whether the walk can go in units of 16 bytes.
template <class T>
bool in_units(const Walk& walk, const T* dst, const T* src) {
  constexpr int64_t kSize = cuda::Vec<T>::kSize;
  const int last = walk.shape.ndim() - 1;
  if (!aligned(dst, 16) || !aligned(src, 16) || walk.dst[last] != 1 || walk.src[last] != 1) return false;
  if (walk.shape[last] % kSize) return false;
  for (int i = 0; i < last; ++i)
    if (walk.dst[i] % kSize || walk.src[i] % kSize) return false;
  return true;
}

template <class T>
__global__ void fill_elements(int64_t n, T value, T* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = value;
}

__global__ void count_elements(int64_t n, int64_t* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = i;
}

}  // namespace

void count_up(Cuda device, int64_t n, int64_t* to) {
  cuda::launch(device, count_elements, cuda::blocks(n, kThreads), kThreads, 0, n, to);
}

template <class D, class S>
void copy_elements(Cuda device, const Walk& walk, D* dst, const S* src) {
  if constexpr (std::is_same_v<D, S>) {
    if (dense(walk)) {
      const auto bytes = static_cast<size_t>(walk.shape[0]) * sizeof(D);
      return cuda::check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, cuda::stream_of(device)),
                         "copying");
    }
    if (in_units(walk, dst, src)) {
      return walk_all<uint4, uint4, false>(device, Steps(walk, cuda::Vec<D>::kSize),
                                           reinterpret_cast<uint4*>(dst),
                                           reinterpret_cast<const uint4*>(src));
    }
  }
  if (dense(walk) && aligned(dst, 4 * sizeof(D)) && aligned(src, 4 * sizeof(S))) {
    const int64_t n = walk.shape[0];
    return cuda::launch(device, convert_dense<D, S>, cuda::blocks(n, 4 * kThreads), kThreads, 0, n, dst, src);
  }
  walk_all<D, S, false>(device, Steps(walk), dst, src);
}

template <class T>
void add_elements(Cuda device, const Walk& walk, T* dst, const T* src) {
  if (dense(walk) && aligned(dst, 16) && aligned(src, 16)) {
    const int64_t n = walk.shape[0];
    cuda::launch(device, add_dense<T>, cuda::blocks(n, cuda::Vec<T>::kSize * kThreads), kThreads, 0, n, dst,
                 src);
  } else {
    walk_all<T, T, true>(device, Steps(walk), dst, src);
  }
}

template <class T>
void fill(Cuda device, int64_t n, T value, T* to) {
  cuda::launch(device, fill_elements<T>, cuda::blocks(n, kThreads), kThreads, 0, n, value, to);
}

#define MR_INSTANTIATE_FROM(D, S) template void copy_elements(Cuda, const Walk&, D*, const S*)
#define MR_INSTANTIATE(T)           \
  MR_INSTANTIATE_FROM(T, float);    \
  MR_INSTANTIATE_FROM(T, bfloat16); \
  MR_INSTANTIATE_FROM(T, double);   \
  MR_INSTANTIATE_FROM(T, int32_t);  \
  MR_INSTANTIATE_FROM(T, int64_t);  \
  MR_INSTANTIATE_FROM(T, uint8_t);  \
  template void fill(Cuda, int64_t, T, T*)
MR_INSTANTIATE(float);
MR_INSTANTIATE(bfloat16);
MR_INSTANTIATE(double);
MR_INSTANTIATE(int32_t);
MR_INSTANTIATE(int64_t);
MR_INSTANTIATE(uint8_t);
#undef MR_INSTANTIATE
#undef MR_INSTANTIATE_FROM

template void add_elements(Cuda, const Walk&, float*, const float*);
template void add_elements(Cuda, const Walk&, bfloat16*, const bfloat16*);
template void add_elements(Cuda, const Walk&, double*, const double*);

}  // namespace mixrec::kernel

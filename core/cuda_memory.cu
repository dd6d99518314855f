// Device memory: a cache by size class and stream above CUDA's stream-ordered pool.
//
// A block belongs to the stream that was current when it was handed out.  When it is freed it goes back to that
// stream's list and may be handed out again at once: work queued later on the same stream runs after all work
// that used it.  A second stream that used the block must have been waited for (Event) before it is freed.
//
//   up to 1 MiB     size classes of eighths of a power of two, kept in lists of our own (0.1 µs)
//   above           CUDA's pool, which splits and joins, so that batches of many different lengths do not leave
//                   a list for every size (2 µs)
//   while a graph   an arena by size class and stream: addresses must not be handed to anybody else
//   is recorded     afterwards
#include "mixrec/core/cuda_launch.cuh"
#include "mixrec/core/cuda_memory.h"

#include <bit>
#include <cstdio>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mixrec::cuda {
namespace {

constexpr size_t kLargestClass = size_t{1} << 20;
constexpr size_t kSmallest = 512;
constexpr size_t kSlab = size_t{16} << 20;  // small blocks are cut from slabs of this size

// Multiples of 256 bytes, which is what the libraries ask of an address.
size_t rounded(size_t bytes) {
  const size_t size = std::max(bytes, kSmallest);
  const size_t step = std::max(std::bit_floor(size) / 8, size_t{256});
  return (size + step - 1) / step * step;
}

}  // namespace

class Arena {
 public:
  explicit Arena(int index) : index_(index) {}
  ~Arena() {
    for (void* slab : slabs_) cudaFree(slab);
  }

  std::byte* allocate(size_t size, cudaStream_t stream) {
    auto& list = free_[{stream, size}];
    if (!list.empty()) {
      std::byte* block = list.back();
      list.pop_back();
      return block;
    }
    if (size > kSlab / 4) return fresh(size);
    if (slab_left_ < size) {
      slab_at_ = fresh(kSlab);
      slab_left_ = kSlab;
    }
    std::byte* block = slab_at_;
    slab_at_ += size;
    slab_left_ -= size;
    return block;
  }
  void free(std::byte* block, size_t size, cudaStream_t stream) { free_[{stream, size}].push_back(block); }
  int index() const { return index_; }

 private:
  std::byte* fresh(size_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "asking for a graph's memory");
    slabs_.push_back(memory);
    return static_cast<std::byte*>(memory);
  }

  int index_;
  std::vector<void*> slabs_;
  std::map<std::pair<cudaStream_t, size_t>, std::vector<std::byte*>> free_;
  std::byte* slab_at_ = nullptr;
  size_t slab_left_ = 0;
};

namespace {

thread_local std::shared_ptr<Arena> current_arena;

class DeviceAllocator {
 public:
  std::byte* allocate(size_t bytes, int index) {
    const auto stream = static_cast<cudaStream_t>(current_stream(index));
    const size_t size = rounded(bytes);
    const std::lock_guard lock(mutex_);
    Block block{size, stream, current_arena};
    std::byte* address = nullptr;
    if (current_arena) {
      address = current_arena->allocate(size, stream);
    } else if (size <= kLargestClass) {
      address = small(size, stream);
    } else {
      address = from_pool(size, stream);
    }
    stats_.in_use += size;
    stats_.peak = std::max(stats_.peak, stats_.in_use);
    live_.emplace(address, std::move(block));
    return address;
  }

  void free(std::byte* address) {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(address);
    if (found == live_.end()) return;
    const Block block = std::move(found->second);
    live_.erase(found);
    stats_.in_use -= block.size;
    if (block.arena) {
      block.arena->free(address, block.size, block.stream);
    } else if (block.size <= kLargestClass) {
      streams_[block.stream].free[block.size].push_back(address);
      stats_.cached += block.size;
    } else if (is_recorded(block.stream)) {
      late_.push_back({address, block.stream});
    } else {
      (void)cudaFreeAsync(address, block.stream);
    }
  }

  MemoryStats stats(int index) {
    const std::lock_guard lock(mutex_);
    MemoryStats stats = stats_;
    uint64_t reserved = 0, used = 0;
    cudaMemPool_t pool = nullptr;
    if (cudaDeviceGetDefaultMemPool(&pool, index) == cudaSuccess) {
      cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved);
      cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used);
    }
    stats.cached += static_cast<size_t>(reserved - used);
    return stats;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak = stats_.in_use;
  }

  void trim(int index) {
    const std::lock_guard lock(mutex_);
    trim_pool(index);
  }

  void forget(cudaStream_t stream, cudaStream_t heir) {
    const std::lock_guard lock(mutex_);
    for (auto& [address, block] : live_)
      if (block.stream == stream) block.stream = heir;
    for (Late& late : late_)
      if (late.stream == stream) late.stream = heir;
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return;
    // Slabs stay with the process; their blocks go to whoever asks next for that size.
    for (auto& [size, list] : found->second.free) {
      auto& orphans = orphans_[size];
      orphans.insert(orphans.end(), list.begin(), list.end());
    }
    streams_.erase(found);
  }

 private:
  struct Block {
    size_t size;
    cudaStream_t stream;
    std::shared_ptr<Arena> arena;
  };
  struct Late {
    std::byte* address;
    cudaStream_t stream;
  };
  struct PerStream {
    std::map<size_t, std::vector<std::byte*>> free;
    std::byte* slab_at = nullptr;
    size_t slab_left = 0;
  };

  std::byte* small(size_t size, cudaStream_t stream) {
    PerStream& own = streams_[stream];
    for (auto* lists : {&own.free, &orphans_}) {
      const auto list = lists->find(size);
      if (list == lists->end() || list->second.empty()) continue;
      std::byte* block = list->second.back();
      list->second.pop_back();
      if (lists == &own.free) stats_.cached -= size;
      return block;
    }
    if (own.slab_left < size) {
      own.slab_at = from_pool(kSlab, stream);
      own.slab_left = kSlab;
    }
    std::byte* block = own.slab_at;
    own.slab_at += size;
    own.slab_left -= size;
    return block;
  }

  // A free while the stream is recorded would become part of the graph.
  static bool is_recorded(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone;
  }
  void free_late() {
    if (late_.empty() || is_recorded(late_.front().stream)) return;
    for (const Late& late : late_) (void)cudaFreeAsync(late.address, late.stream);
    late_.clear();
  }

  std::byte* from_pool(size_t size, cudaStream_t stream) {
    free_late();
    void* block = nullptr;
    cudaError_t status = cudaMallocAsync(&block, size, stream);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      int index = 0;
      cudaGetDevice(&index);
      cudaStreamSynchronize(stream);
      trim_pool(index);
      status = cudaMallocAsync(&block, size, stream);
    }
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      size_t free_bytes = 0, total = 0;
      cudaMemGetInfo(&free_bytes, &total);
      const auto gib = [](size_t bytes) { return static_cast<double>(bytes) / 0x1p30; };
      char text[240];
      std::snprintf(text, sizeof text,
                    "out of device memory: asked for %.3f GiB with %.2f GiB in use (peak %.2f) and %.2f of "
                    "%.2f GiB free; "
                    "a smaller batch or recompute = block needs less",
                    gib(size), gib(stats_.in_use), gib(stats_.peak), gib(free_bytes), gib(total));
      MR_FAIL(text);
    }
    check(status, "asking for device memory");
    return static_cast<std::byte*>(block);
  }

  void trim_pool(int index) {
    cudaMemPool_t pool = nullptr;
    if (cudaDeviceGetDefaultMemPool(&pool, index) == cudaSuccess) cudaMemPoolTrimTo(pool, 0);
  }

  std::mutex mutex_;
  MemoryStats stats_;
  std::unordered_map<std::byte*, Block> live_;
  std::unordered_map<cudaStream_t, PerStream> streams_;
  std::map<size_t, std::vector<std::byte*>> orphans_;
  std::vector<Late> late_;
};

// Never destroyed: tensors in static storage may outlive any static allocator.
DeviceAllocator& allocator(int index) {
  static DeviceAllocator* all[16] = {};
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (!all[index]) {
    all[index] = new DeviceAllocator;
    // What is freed stays with the process, ready for the next step.
    cudaMemPool_t pool = nullptr;
    uint64_t keep = UINT64_MAX;
    check(cudaDeviceGetDefaultMemPool(&pool, index), "asking for the device's memory pool");
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
          "setting up the memory pool");
  }
  return *all[index];
}

}  // namespace

std::shared_ptr<Arena> make_arena(int index) { return std::make_shared<Arena>(index); }

ArenaScope::ArenaScope(std::shared_ptr<Arena> arena)
    : outer_(std::exchange(current_arena, std::move(arena))) {}
ArenaScope::~ArenaScope() { current_arena = outer_; }

void forget_stream(cudaStream_t stream, cudaStream_t heir, int index) {
  allocator(index).forget(stream, heir);
}

std::byte* allocate(size_t bytes, int index) {
  (void)current_stream(index);  // selects the card, or says why there is none
  return allocator(index).allocate(bytes, index);
}
void free(std::byte* block, int index) {
  if (block) allocator(index).free(block);
}

MemoryStats memory(int index) {
  return device_count() > index ? allocator(index).stats(index) : MemoryStats{};
}
void reset_memory_peak(int index) { allocator(index).reset_peak(); }
void release_memory_cache(int index) {
  synchronize(index);
  allocator(index).trim(index);
}

std::byte* allocate_pinned(size_t bytes) {
  void* block = nullptr;
  check(cudaMallocHost(&block, std::max<size_t>(bytes, 1)), "asking for page-locked memory");
  return static_cast<std::byte*>(block);
}
void free_pinned(std::byte* block) { cudaFreeHost(block); }

}  // namespace mixrec::cuda

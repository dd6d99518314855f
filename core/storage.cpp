#include "mixrec/core/storage.h"

#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <ostream>
#include <sys/mman.h>
#include <vector>

namespace mixrec {

std::ostream& operator<<(std::ostream& out, Device device) {
  if (device.is_cpu()) return out << "cpu";
  return out << "cuda:" << device.index;
}

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kPage = size_t{2} << 20;

// Freed blocks are kept by size class and handed out again: a training step asks for the same sizes every
// time, and fresh memory costs a page fault for every 4 KiB.  Classes are eighths of a power of two, so at
// most 12.5 % is wasted.
class HostAllocator {
 public:
  std::byte* allocate(size_t bytes) {
    const size_t size = rounded(bytes);
    {
      const std::lock_guard lock(mutex_);
      stats_.in_use += size;
      stats_.peak = std::max(stats_.peak, stats_.in_use);
      auto& list = free_[class_of(size)];
      if (!list.empty()) {
        std::byte* block = list.back();
        list.pop_back();
        stats_.cached -= size;
        return block;
      }
    }
    const size_t alignment = size >= kPage ? kPage : kAlignment;
    void* block = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (!block) {
      release();
      block = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    }
    if (!block) {
      const std::lock_guard lock(mutex_);
      stats_.in_use -= size;
      MR_FAIL("out of host memory: asked for ", bytes, " bytes with ", stats_.in_use, " in use");
    }
    if (size >= kPage) madvise(block, size, MADV_HUGEPAGE);
    return static_cast<std::byte*>(block);
  }

  void free(std::byte* block, size_t bytes) {
    const size_t size = rounded(bytes);
    const std::lock_guard lock(mutex_);
    stats_.in_use -= size;
    // Tables and other one-off giants are not worth keeping.
    if (size > kLargestKept) return std::free(block);
    stats_.cached += size;
    free_[class_of(size)].push_back(block);
  }

  void release() {
    const std::lock_guard lock(mutex_);
    for (auto& list : free_) {
      for (std::byte* block : list) std::free(block);
      list.clear();
    }
    stats_.cached = 0;
  }

  MemoryStats stats() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak = stats_.in_use;
  }

 private:
  static constexpr size_t kLargestKept = size_t{1} << 30;

  static size_t rounded(size_t bytes) {
    const size_t size = std::max(bytes, 8 * kAlignment);
    const size_t step = std::bit_floor(size) / 8;
    return (size + step - 1) / step * step;
  }
  // `size` is already rounded: the three bits below the leading one tell the eighth.
  static size_t class_of(size_t size) {
    const int power = std::bit_width(size) - 1;
    return static_cast<size_t>(power) * 8 + ((size >> (power - 3)) & 7);
  }

  std::mutex mutex_;
  std::vector<std::byte*> free_[64 * 8];
  MemoryStats stats_;
};

constexpr int kPoison = 0xff;  // every floating type reads it as NaN
std::atomic<bool> guards_on{false};
std::atomic<int64_t> guard_violations{0};

bool intact(const std::byte* band) {
  return std::all_of(band, band + kAlignment, [](std::byte b) { return b == std::byte{kPoison}; });
}

// Never destroyed: tensors in static storage may outlive any static allocator.
HostAllocator& host_allocator() {
  static auto* it = new HostAllocator;
  return *it;
}

std::byte* take(size_t bytes, Device device) {
  return device.is_cpu() ? host_allocator().allocate(bytes) : cuda::allocate(bytes, device.index);
}
void give_back(std::byte* block, size_t bytes, Device device) {
  device.is_cpu() ? host_allocator().free(block, bytes) : cuda::free(block, device.index);
}

// A device's bands are as wide as its alignment asks for.
size_t band_width(Device device) { return device.is_cpu() ? kAlignment : 4 * kAlignment; }

void poison(std::byte* block, size_t bytes, Device device) {
  if (device.is_cpu()) {
    std::memset(block, kPoison, bytes);
  } else {
    cuda::fill_bytes(block, kPoison, bytes);
  }
}

bool band_intact(const std::byte* band, Device device) {
  if (device.is_cpu()) return intact(band);
  std::byte bytes[kAlignment];
  try {
    cuda::copy(bytes, kCpu, band, device, kAlignment);
  } catch (const Error&) {
    return false;  // asked for in a destructor
  }
  return intact(bytes);
}

}  // namespace

Storage::Storage(size_t bytes, Device device)
    : bytes_(bytes), device_(device), guarded_(guards_on && !cuda::capturing()) {
  if (guarded_) {
    const size_t band = band_width(device);
    std::byte* block = take(bytes + 2 * band, device);
    poison(block, bytes + 2 * band, device);
    data_ = block + band;
  } else if (bytes) {
    data_ = take(bytes, device);
  }
}

Storage::Storage(std::shared_ptr<Storage> whole, size_t begin, size_t bytes)
    : whole_(std::move(whole)), data_(whole_->data() + begin), bytes_(bytes), device_(whole_->device()) {
  MR_CHECK(begin <= whole_->bytes() && bytes <= whole_->bytes() - begin, "a part of ", bytes, " bytes at ",
           begin, " lies outside a block of ", whole_->bytes());
}

Storage::~Storage() {
  if (whole_) return;
  if (guarded_) {
    const size_t band = band_width(device_);
    std::byte* block = data_ - band;
    if (!band_intact(data_ - kAlignment, device_) || !band_intact(data_ + bytes_, device_))
      ++guard_violations;
    give_back(block, bytes_ + 2 * band, device_);
  } else if (data_) {
    give_back(data_, bytes_, device_);
  }
}

void set_memory_guards(bool on) { guards_on = on; }
int64_t memory_guard_violations() { return guard_violations; }

MemoryStats host_memory() { return host_allocator().stats(); }
void reset_host_memory_peak() { host_allocator().reset_peak(); }

}  // namespace mixrec

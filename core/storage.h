// A block of memory shared by tensors, and the host allocator behind it.
#pragma once

#include "mixrec/core/device.h"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace mixrec {

// Owns `bytes` bytes on `device`, aligned to 64 bytes, uninitialised.  The version counts in-place changes,
// so that autograd can tell when a saved tensor was overwritten.
class Storage {
 public:
  Storage(size_t bytes, Device device);
  // A part of another storage, which it keeps alive, with a version of its own: one parameter of a flat buffer.
  Storage(std::shared_ptr<Storage> whole, size_t begin, size_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

  uint32_t version() const { return version_; }
  void bump_version() { ++version_; }

 private:
  std::shared_ptr<Storage> whole_;  // null: the memory is its own
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  Device device_;
  uint32_t version_ = 0;
  bool guarded_ = false;
};

// Memory handed out by this process's host allocator, in bytes.
struct MemoryStats {
  size_t in_use = 0;  // held by live storages
  size_t cached = 0;  // freed, kept for reuse
  size_t peak = 0;    // largest `in_use` since the start or the last reset
};

MemoryStats host_memory();
void reset_host_memory_peak();

// For tests: while on, fresh host memory is filled with NaN bytes between two guard bands.
void set_memory_guards(bool on);
// Guard bands found overwritten when their storage was freed, since the start.
int64_t memory_guard_violations();

}  // namespace mixrec

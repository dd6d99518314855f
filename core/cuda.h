// The CUDA side of the machine, without CUDA headers: cards, streams, memory, graphs.
//
// All of it exists in every build.  Without CUDA, or without a card, device_count() is 0, unavailable_reason()
// says why, and what needs a card throws that sentence.
//
// Work on a device is queued on the calling thread's current stream and runs in order; the host does not wait.
// Reading a tensor (item(), to_vector(), to(kCpu)) waits.  With MIXREC_SYNC=1 in the environment every launch
// is waited for, and an error is thrown by the op that caused it.
#pragma once

#include "mixrec/core/device.h"
#include "mixrec/core/storage.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace mixrec::cuda {

// Usable cards: built in, with a driver and an architecture that this build has code for.
int device_count();
std::string unavailable_reason();  // "" when there is a card

// Name, compute capability, memory and driver of one card, for the first line of a log.
std::string describe(int index = 0);

// The current stream of this thread on `device` (a cudaStream_t).  Selects the device for this thread.
void* current_stream(int index = 0);

// Waits for all work that was queued on the current stream, and throws what it found wrong.
void synchronize(int index = 0);

// Waits, and throws about the first id since the last call that led outside its table, with the op that met
// it.  Kernels that meet one take zeros and go on: ids are checked on the host when a batch is built.
void check_device_errors(int index = 0);

// A stream of one's own for the lifetime: { StreamScope copies(copy_stream); … }.  Tensors made on it may outlive it.
class Stream {
 public:
  explicit Stream(int index = 0);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void* handle() const { return handle_; }

 private:
  void* handle_ = nullptr;
  int index_;
};

class StreamScope {
 public:
  explicit StreamScope(const Stream& stream);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  void* outer_;
};

// A point in the work of a stream, for other streams, the host and stop-watches.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record();                                  // in the current stream
  void wait() const;                              // the current stream waits for it
  void synchronize() const;                       // the host waits for it
  double milliseconds_since(const Event&) const;  // both done

 private:
  void* handle_ = nullptr;
};

// A second stream beside the current one, from where that one is now until the branch ends:
//
//   Branch branch;
//   { StreamScope beside(branch.stream()); … }      runs at the same time as
//   …                                               what is queued after it; an Event says when a part is done
//
// At its end the current stream waits for all of it.  Tensors made on the branch must not outlive the work that is
// queued on the outer stream by then.  Works inside a recorded graph as well.
class Branch {
 public:
  explicit Branch(int index = 0);
  ~Branch();
  Branch(const Branch&) = delete;
  Branch& operator=(const Branch&) = delete;

  const Stream& stream() const { return *stream_; }

 private:
  const Stream* stream_ = nullptr;
};

// Device memory of this process.  `in_use` counts live storages, `cached` what is kept for reuse.
MemoryStats memory(int index = 0);
void reset_memory_peak(int index = 0);
void release_memory_cache(int index = 0);

// Copies bytes in the order of the current stream; either side may be the host.  When the call returns, a host
// source has been read, unless it is page-locked, and a host target has been written.
void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
void fill_bytes(void* to, int value, size_t bytes);

// What Storage calls.  The memory belongs to the current stream; it may be freed from any thread.
std::byte* allocate(size_t bytes, int index);
void free(std::byte* block, int index);
// Page-locked host memory, which copies to and from the device without a stop.
std::byte* allocate_pinned(size_t bytes);
void free_pinned(std::byte* block);

// A recorded piece of work, to be replayed with one launch.  Everything inside `work` must stay on the device:
// no item(), no new shapes.  Memory that `work` allocates belongs to the graph and is written by every replay:
// tensors made inside keep their place.
class Graph {
 public:
  explicit Graph(const std::function<void()>& work, int index = 0);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void replay();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// True while this thread records a graph.
bool capturing();

}  // namespace mixrec::cuda

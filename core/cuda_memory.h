// Where device memory comes from: between core/cuda.cu and core/cuda_memory.cu.
#pragma once

#include "mixrec/core/cuda.h"

#include <memory>

struct CUstream_st;

namespace mixrec::cuda {

// Memory that a recorded graph works in: handed out while it is recorded, reused inside, kept until the graph
// and all tensors made in it are gone.
class Arena;
std::shared_ptr<Arena> make_arena(int index);

// This thread allocates from the arena for the lifetime.
class ArenaScope {
 public:
  explicit ArenaScope(std::shared_ptr<Arena> arena);
  ~ArenaScope();
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  std::shared_ptr<Arena> outer_;
};

// A stream is about to be destroyed, its work is done: what was cached for it is given back, and what still lives
// belongs to `heir` from now on.
void forget_stream(CUstream_st* stream, CUstream_st* heir, int index);

}  // namespace mixrec::cuda

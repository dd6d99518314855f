// What a kernel does about an id that leads nowhere: it takes a zero instead, and reports the id here, for
// cuda::check_device_errors() (core/cuda.h) to find when somebody waits for the device anyway.
#pragma once

#include "mixrec/core/cuda_launch.cuh"

namespace mixrec::cuda {

// The first of the ids outside their tables since the last look.
struct BadId {
  unsigned found;
  const char* op;  // on the host
  int64_t position, id, rows;
};

// In the memory of the current device, where it stays.
BadId* bad_id();

// What a kernel is given to check ids with.
struct IdCheck {
  BadId* bad = bad_id();
  const char* op = detail::current_op();  // names are literals: they live as long as the program

  // Whether the id at this position is one of `rows` rows.
  __device__ bool passes(int64_t id, int64_t position, int64_t rows) const {
    if (id >= 0 && id < rows) return true;
    if (atomicCAS(&bad->found, 0u, 1u) == 0u) {
      bad->op = op;
      bad->position = position;
      bad->id = id;
      bad->rows = rows;
    }
    return false;
  }
};

}  // namespace mixrec::cuda

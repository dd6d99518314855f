// Marks functions that kernels call on host and device.
#pragma once

#ifdef __CUDACC__
#define MR_HOST_DEVICE __host__ __device__
#else
#define MR_HOST_DEVICE
#endif

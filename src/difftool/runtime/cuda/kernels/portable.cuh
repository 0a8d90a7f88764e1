// One source for two compilers. On the GPU a kernel's threads share its loop; compiled as plain
// C++ a kernel is a function that one thread runs from end to end, so that tests need no GPU.
#pragma once

#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void
#define DEVICE __device__ inline
DEVICE long long first_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
DEVICE long long index_stride() { return (long long)gridDim.x * blockDim.x; }
#else
#include <math.h>
#define KERNEL extern "C" void
#define DEVICE inline
DEVICE long long first_index() { return 0; }
DEVICE long long index_stride() { return 1; }
#endif

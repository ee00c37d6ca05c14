// The language of the kernels: fixed-width types and the operations that C++ lacks.
//
// A kernel source includes this header (those in sm_90a/ hopper.h, which includes it), numeric.h and what is built on
// them, and nothing else. It is compiled twice: by clang for the GPU (device_gpu.h: builtins and inline PTX for sm_80)
// and, with STANDIN defined, by g++ for the test-only driver in ../standin that runs kernels on the CPU
// (device_standin.h). Both halves declare the same functions; the contract of each is stated in device_gpu.h.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

// bf16 is the upper half of a float32, as it lies in memory.
struct bf16 {
  u16 bits;
};

// Vec2 and Vec4 are what one memory access of 8 or 16 bytes moves.
struct alignas(8) Vec2 {
  u32 x, y;
};

struct alignas(16) Vec4 {
  u32 x, y, z, w;
};

#ifdef STANDIN
#include "device_standin.h"
#else
#include "device_gpu.h"
#endif

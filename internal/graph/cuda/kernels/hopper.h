// The primitives of compute capability 9.0: bulk copies of boxes of a tensor (TMA), barriers in shared memory, and
// matrix products of a warpgroup (wgmma).
//
// A source in sm_90a/ includes this header, which includes device.h, and is compiled like it: hopper_gpu.h is inline
// PTX for sm_90a and states the contract of each function, hopper_standin.h declares the same for the test-only driver.
//
// Shared memory is addressed by u32: what PTX calls an address in the .shared window.
#pragma once
#include "device.h"

// TensorMap describes a tensor in device memory and the box that one copy takes of it; the driver encodes it. It lies
// in device memory at a multiple of 64 bytes, so it comes first in a struct that lies there at a multiple of 256.
struct TensorMap {
  u64 words[16];
};

// wgmma_descriptor says where an operand of a product lies: at an address, a multiple of 16, in the layout that a copy
// with the 128-byte swizzle makes: pieces of 16 bytes are permuted within 8 rows of 128 bytes, 1024 bytes at a
// multiple of 1024. leading and stride are bytes, multiples of 16, less than 2^18. A row is 64 numbers:
//   - of k, for an operand stored with k contiguous. Rows follow each other in M/N, stride is from 8 rows to the next
//     8. leading does not matter. The next 16 of k lie 32 bytes further.
//   - of M/N, for an operand stored "turned". Rows follow each other in k, stride is from 8 of k to the next 8, and
//     leading from 64 of M/N to the next 64. The next 16 of k lie 2*stride bytes further.
DEV u64 wgmma_descriptor(u32 address, u32 leading, u32 stride) {
  const u64 swizzle_128 = (u64)1 << 62;
  const u64 place = address >> 4 & 0x3fff;
  return place | (u64)(leading >> 4 & 0x3fff) << 16 | (u64)(stride >> 4 & 0x3fff) << 32 | swizzle_128;
}

#ifdef STANDIN
#include "hopper_standin.h"
#else
#include "hopper_gpu.h"
#endif

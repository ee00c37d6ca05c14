// Tensor maps: what cuTensorMapEncodeTiled keeps in the 128 bytes of a CUtensorMap.
#pragma once

#include "worker.h"

const int max_rank = 5;

// TiledTensor is a tensor in device memory and a box of it. Dimensions go from the innermost outwards.
struct TiledTensor {
  u64 magic;
  u64 address;
  u64 strides[max_rank - 1];   // bytes, of all dimensions but the first
  u32 last[max_rank];          // extents less 1
  u16 box[max_rank];           // elements
  u8 steps[max_rank];          // take each n-th element
  u8 rank;
  u8 element_bytes;
  u8 swizzle;                  // bytes of the pattern: 0, 32, 64 or 128
  u8 unused[42];
};
static_assert(sizeof(TiledTensor) == 128, "it fills a CUtensorMap");

// is_tensor_map reports whether a map was made here.
bool is_tensor_map(const TiledTensor& t);

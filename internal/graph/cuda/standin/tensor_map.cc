#include "tensor_map.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "call.h"
#include "settings.h"

const u64 map_magic = 0x70616d2064706d64;  // any number that is unlikely elsewhere

bool is_tensor_map(const TiledTensor& t) { return t.magic == map_magic; }

enum { interleave_none, interleave_16, interleave_32 };

// The sizes of data types, by their number.
static const u8 element_sizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
static const unsigned types = sizeof element_sizes;
static const unsigned swizzle_sizes[] = {0, 32, 64, 128};

static bool is_float(unsigned type) { return type >= 6 && type < types; }

// refuse says on standard error which rule was broken, as the result does not.
static CUresult refuse(const char* format, ...) __attribute__((format(printf, 1, 2)));
static CUresult refuse(const char* format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  fprintf(stderr, "stand-in: cuTensorMapEncodeTiled: %s\n", line);
  return CUDA_ERROR_INVALID_VALUE;
}

// The rules are those that the driver's documentation states for each argument, but for one that drivers do not
// enforce: strides need not grow from one dimension to the next.
DRIVER_CALL cuTensorMapEncodeTiled(void* map, unsigned type, unsigned rank, void* address, const u64* extents,
                                   const u64* strides, const unsigned* box, const unsigned* steps,
                                   unsigned interleave, unsigned swizzle, unsigned promotion, unsigned fill) {
  return driver_call("cuTensorMapEncodeTiled", 0, [&]() -> CUresult {
    if (settings_capability().major < 9) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (!map || (uintptr_t)map % 64) {
      return refuse("the map lies at %p, not at a multiple of 64", map);
    }
    if (type >= types || interleave > interleave_32 || swizzle > 3 || promotion > 3 || fill > 1) {
      return refuse("type %u, interleave %u, swizzle %u, promotion %u or fill %u is unknown", type, interleave, swizzle,
                    promotion, fill);
    }
    if (rank < (interleave ? 3u : 1u) || rank > max_rank) {
      return refuse("rank %u with interleave %u", rank, interleave);
    }
    const unsigned alignment = interleave == interleave_32 ? 32 : 16;
    if (!address || (uintptr_t)address % alignment) {
      return refuse("the tensor lies at %p, not at a multiple of %u", address, alignment);
    }
    TiledTensor t{};
    t.magic = map_magic;
    t.address = (u64)address;
    t.rank = (u8)rank;
    t.element_bytes = element_sizes[type];
    t.swizzle = (u8)swizzle_sizes[swizzle];
    for (unsigned i = 0; i < rank; i++) {
      if (extents[i] < 1 || extents[i] > (u64)1 << 32) {
        return refuse("extent %llu of dimension %u is not from 1 to 2^32", extents[i], i);
      }
      if (box[i] < 1 || box[i] > 256) {
        return refuse("extent %u of the box in dimension %u is not from 1 to 256", box[i], i);
      }
      if (steps[i] < 1 || steps[i] > 8) {
        return refuse("element stride %u of dimension %u is not from 1 to 8", steps[i], i);
      }
      if (i > 0 && (strides[i - 1] % alignment || strides[i - 1] >= (u64)1 << 40)) {
        return refuse("stride %llu of dimension %u is no multiple of %u, or not less than 2^40", strides[i - 1], i,
                      alignment);
      }
      t.last[i] = (u32)(extents[i] - 1);
      t.box[i] = (u16)box[i];
      // The innermost dimension has no steps unless elements are interleaved.
      t.steps[i] = i || interleave ? (u8)steps[i] : 1;
      if (i > 0) {
        t.strides[i - 1] = strides[i - 1];
      }
    }
    const unsigned inner = box[0] * t.element_bytes;
    if (interleave == interleave_none && inner % 16) {
      return refuse("a row of the box has %u bytes, which is no multiple of 16", inner);
    }
    if (interleave == interleave_none && swizzle && inner > t.swizzle) {
      return refuse("a row of the box has %u bytes, more than the swizzle's %u", inner, t.swizzle);
    }
    if (interleave == interleave_32 && t.swizzle != 32) {
      return refuse("interleave of 32 bytes with a swizzle of %u", t.swizzle);
    }
    if (fill && !is_float(type)) {
      return refuse("NaN as fill of integers, type %u", type);
    }
    if (interleave || fill) {
      return refuse("the stand-in has neither interleave nor NaN as fill");
    }
    memcpy(map, &t, sizeof t);
    return CUDA_SUCCESS;
  });
}

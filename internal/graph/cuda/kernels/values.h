// Tensors as the kernels read and write them whose time is that of memory: no products, one pass.
//
// A tensor is stored in bfloat16 or float32, arithmetic is float32. Such a kernel is a template of how it accesses
// memory and comes in three instances, whose names end in:
//
//   _bf16   PackedBf16: 8 values, 16 bytes, at a time; every tensor is bfloat16
//   _f32    PackedF32: 4 values, 16 bytes, at a time; every tensor is float32
//   _any    Single: one value at a time, each tensor of either type
//
// The launcher may choose a packed instance where every tensor begins at a multiple of 16 bytes and what is contiguous
// in one, such as the channels of a pixel, is whole packs.
#pragma once

#include "device.h"
#include "numeric.h"

// Values is a tensor in global memory.
struct Values {
  void* data;
  int bf16;
};

// The ways to access memory. A function of one takes it as its first argument, which is empty.
struct PackedBf16 {
  static constexpr int width = 8;
  typedef Vec4 Raw;
};

struct PackedF32 {
  static constexpr int width = 4;
  typedef Vec4 Raw;
};

struct Single {
  static constexpr int width = 1;
  typedef float Raw;
};

// fetch reads the values from element at on as they are stored. It is apart from unpack so that a thread can have
// several reads under way before it uses the first.
DEV Vec4 fetch(PackedBf16, const Values& x, i64 at) { return load_global16((const u16*)x.data + at); }
DEV Vec4 fetch(PackedF32, const Values& x, i64 at) { return load_global16((const float*)x.data + at); }
DEV float fetch(Single, const Values& x, i64 at) { return load_any(x.data, at, x.bf16); }

DEV void unpack(PackedBf16, const Vec4& raw, float v[8]) {
  const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[2 * i] = lower_half(words[i]);
    v[2 * i + 1] = upper_half(words[i]);
  }
}

DEV void unpack(PackedF32, const Vec4& raw, float v[4]) {
  v[0] = as_float(raw.x);
  v[1] = as_float(raw.y);
  v[2] = as_float(raw.z);
  v[3] = as_float(raw.w);
}

DEV void unpack(Single, float raw, float v[1]) { v[0] = raw; }

// store rounds and writes the values from element at on.
DEV void store(PackedBf16, const Values& x, i64 at, const float v[8]) {
  store_global16((u16*)x.data + at,
                 Vec4{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])});
}

DEV void store(PackedF32, const Values& x, i64 at, const float v[4]) {
  store_global16((float*)x.data + at, Vec4{as_bits(v[0]), as_bits(v[1]), as_bits(v[2]), as_bits(v[3])});
}

DEV void store(Single, const Values& x, i64 at, const float v[1]) { store_any(x.data, at, v[0], x.bf16); }

// load is fetch and unpack.
template <class Access>
DEV void load(Access access, const Values& x, i64 at, float v[Access::width]) {
  unpack(access, fetch(access, x, at), v);
}

// silu_for and silu_slope_for are silu and its derivative as exactly as the access needs them. What is stored in
// bfloat16 is good to 2^-9, so the special function unit alone will do: relative error about 1e-6 for |z| below 10,
// and where e^-z overflows the sigmoid is 0, as it should be.
template <class Access>
DEV float silu_for(Access, float z) {
  return silu(z);
}

template <class Access>
DEV float silu_slope_for(Access, float z) {
  return silu_slope(z);
}

DEV float quick_sigmoid(float z) { return rcp_approx(1.0f + exp2_approx(z * -1.44269504f)); }

DEV float silu_for(PackedBf16, float z) { return z * quick_sigmoid(z); }

DEV float silu_slope_for(PackedBf16, float z) {
  const float sigmoid = quick_sigmoid(z);
  return sigmoid * fma(z, 1.0f - sigmoid, 1.0f);
}

DEV int min_int(int a, int b) { return a < b ? a : b; }
DEV int max_int(int a, int b) { return a > b ? a : b; }
DEV i64 min_i64(i64 a, i64 b) { return a < b ? a : b; }

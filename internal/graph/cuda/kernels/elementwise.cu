// Elementwise operations: sums, SiLU and its gradient, copies between storage types, a value per sample.
//
// The output may be the memory of the first operand: a thread reads its elements before it writes them.
#include "device.h"
#include "numeric.h"
#include "values.h"

constexpr int map_threads = 256;
constexpr int map_packs = 4;  // that a thread computes, a block apart

// ---- one function of equal elements ----

// MapParams: out[i] = f(x[i], y[i]) for n elements; y is unused by functions of one operand. Launcher: 256 threads,
// each block takes 1024 packs. n need not be whole packs: the first block also takes what is left.
struct MapParams {
  Values x, y, out;
  i64 n;
};

struct AddFunction {
  static constexpr bool binary = true;
  template <class Access>
  DEV float at(Access, float x, float y) {
    return x + y;
  }
};

struct SiluFunction {
  static constexpr bool binary = false;
  template <class Access>
  DEV float at(Access access, float x, float) {
    return silu_for(access, x);
  }
};

struct SiluGradFunction {
  static constexpr bool binary = true;
  template <class Access>
  DEV float at(Access access, float x, float dy) {
    return dy * silu_slope_for(access, x);
  }
};

struct CopyFunction {
  static constexpr bool binary = false;
  template <class Access>
  DEV float at(Access, float x, float) {
    return x;
  }
};

template <class Access, class Function>
DEV void map(Access access, Function f, const MapParams& p) {
  constexpr int W = Access::width;
  const i64 packs = p.n / W;
  const i64 first = (i64)block_x() * (map_packs * map_threads) + thread_x();
  typename Access::Raw raw_x[map_packs], raw_y[map_packs];
#pragma unroll
  for (int k = 0; k < map_packs; k++) {
    const i64 pack = first + k * map_threads;
    if (pack < packs) {
      raw_x[k] = fetch(access, p.x, pack * W);
      if (Function::binary) {
        raw_y[k] = fetch(access, p.y, pack * W);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < map_packs; k++) {
    const i64 pack = first + k * map_threads;
    if (pack < packs) {
      float x[W], y[W];
      unpack(access, raw_x[k], x);
      if (Function::binary) {
        unpack(access, raw_y[k], y);
      }
#pragma unroll
      for (int i = 0; i < W; i++) {
        x[i] = f.at(access, x[i], Function::binary ? y[i] : 0);
      }
      store(access, p.out, pack * W, x);
    }
  }
  const i64 left = packs * W + thread_x();
  if (W > 1 && block_x() == 0 && left < p.n) {
    const float y = Function::binary ? fetch(Single{}, p.y, left) : 0;
    const float result[1] = {f.at(access, fetch(Single{}, p.x, left), y)};
    store(Single{}, p.out, left, result);
  }
}

KERNEL BOUNDS(256, 4) map_add_bf16(MapParams p) { map(PackedBf16{}, AddFunction{}, p); }
KERNEL BOUNDS(256, 4) map_add_f32(MapParams p) { map(PackedF32{}, AddFunction{}, p); }
KERNEL BOUNDS(256, 4) map_add_any(MapParams p) { map(Single{}, AddFunction{}, p); }

KERNEL BOUNDS(256, 4) map_silu_bf16(MapParams p) { map(PackedBf16{}, SiluFunction{}, p); }
KERNEL BOUNDS(256, 4) map_silu_f32(MapParams p) { map(PackedF32{}, SiluFunction{}, p); }
KERNEL BOUNDS(256, 4) map_silu_any(MapParams p) { map(Single{}, SiluFunction{}, p); }

KERNEL BOUNDS(256, 4) map_silu_grad_bf16(MapParams p) { map(PackedBf16{}, SiluGradFunction{}, p); }
KERNEL BOUNDS(256, 4) map_silu_grad_f32(MapParams p) { map(PackedF32{}, SiluGradFunction{}, p); }
KERNEL BOUNDS(256, 4) map_silu_grad_any(MapParams p) { map(Single{}, SiluGradFunction{}, p); }

KERNEL BOUNDS(256, 4) map_copy_bf16(MapParams p) { map(PackedBf16{}, CopyFunction{}, p); }
KERNEL BOUNDS(256, 4) map_copy_f32(MapParams p) { map(PackedF32{}, CopyFunction{}, p); }
KERNEL BOUNDS(256, 4) map_copy_any(MapParams p) { map(Single{}, CopyFunction{}, p); }

// ---- copies from one storage type to the other ----

// Launcher: as for the others, with packs of 8 values; both arrays begin at multiples of 16 bytes.
DEV void convert_left(const MapParams& p) {
  const i64 left = p.n / 8 * 8 + thread_x();
  if (block_x() == 0 && left < p.n) {
    const float v[1] = {fetch(Single{}, p.x, left)};
    store(Single{}, p.out, left, v);
  }
}

template <int FROM_BF16, int TO_BF16>
DEV void map_convert(const MapParams& p) {
  const i64 first = (i64)block_x() * (map_packs * map_threads) + thread_x();
#pragma unroll
  for (int k = 0; k < map_packs; k++) {
    const i64 pack = first + k * map_threads;
    if (pack < p.n / 8) {
      float v[8];
      load8(p.x.data, pack * 8, FROM_BF16, v);
      store8(p.out.data, pack * 8, TO_BF16, v);
    }
  }
  convert_left(p);
}

// map_round copies float32 to bfloat16, map_widen bfloat16 to float32.
KERNEL BOUNDS(256, 4) map_round(MapParams p) { map_convert<0, 1>(p); }
KERNEL BOUNDS(256, 4) map_widen(MapParams p) { map_convert<1, 0>(p); }

// ---- a value for each sample and channel ----

// AddPerSampleParams: out[n,p,c] = x[n,p,c] + v[n,c]. A block takes a chunk of the pixels of an image, lanes threads
// beside each other a pack of channels each, rows of them different pixels. Launcher: 256 threads, grid
// {images * chunks, slabs of lanes packs}, lanes*rows at most 256; whole packs of channels.
struct AddPerSampleParams {
  Values x;
  const float* v;
  Values out;
  int pixels;
  int channels;
  int chunk;
  int chunks;
  int lanes;
  int rows;
};

template <class Access>
DEV void add_per_sample(Access access, const AddPerSampleParams& p) {
  constexpr int W = Access::width;
  constexpr int ahead = 4;
  const int image = block_x() / p.chunks;
  const int begin = block_x() % p.chunks * p.chunk;
  const int end = min_int(begin + p.chunk, p.pixels);
  const int row = thread_x() / p.lanes;
  const int channel = (block_y() * p.lanes + thread_x() % p.lanes) * W;
  if (row >= p.rows || channel >= p.channels) {
    return;
  }
  const i64 first = (i64)image * p.pixels * p.channels + channel;
  float added[W];
#pragma unroll
  for (int i = 0; i < W; i++) {
    added[i] = p.v[(i64)image * p.channels + channel + i];
  }
  for (int pixel = begin + row; pixel < end; pixel += ahead * p.rows) {
    typename Access::Raw raw[ahead];
#pragma unroll
    for (int k = 0; k < ahead; k++) {
      if (pixel + k * p.rows < end) {
        raw[k] = fetch(access, p.x, first + (i64)(pixel + k * p.rows) * p.channels);
      }
    }
#pragma unroll
    for (int k = 0; k < ahead; k++) {
      if (pixel + k * p.rows < end) {
        float v[W];
        unpack(access, raw[k], v);
#pragma unroll
        for (int i = 0; i < W; i++) {
          v[i] += added[i];
        }
        store(access, p.out, first + (i64)(pixel + k * p.rows) * p.channels, v);
      }
    }
  }
}

KERNEL BOUNDS(256, 4) add_per_sample_bf16(AddPerSampleParams p) { add_per_sample(PackedBf16{}, p); }
KERNEL BOUNDS(256, 4) add_per_sample_f32(AddPerSampleParams p) { add_per_sample(PackedF32{}, p); }
KERNEL BOUNDS(256, 4) add_per_sample_any(AddPerSampleParams p) { add_per_sample(Single{}, p); }

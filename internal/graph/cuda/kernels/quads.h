// Kernels that work sample by sample, four neighbouring values a thread: the values of one block of random words.
#pragma once

#include "device.h"
#include "numeric.h"
#include "values.h"

constexpr int quad_threads = 256;

// QuadExtents: samples of size values each, blocks of 1024 of them. Launcher: 256 threads, grid {samples * blocks};
// whole says that size is a multiple of 4 and every tensor begins at a multiple of 16 bytes.
struct QuadExtents {
  i64 size;
  int blocks;  // of a sample: size/1024 rounded up
  int whole;
};

// Quad is what a thread works on.
struct Quad {
  i64 sample;
  i64 first;  // value in the sample
  i64 at;     // the same value in the whole tensor
  int count;  // of values: 4, fewer at the end of a sample, none beyond
};

DEV Quad quad_place(const QuadExtents& e) {
  Quad q;
  q.sample = block_x() / e.blocks;
  q.first = ((i64)(block_x() % e.blocks) * quad_threads + thread_x()) * 4;
  q.at = q.sample * e.size + q.first;
  const i64 left = e.size - q.first;
  q.count = left >= 4 ? 4 : left > 0 ? (int)left : 0;
  return q;
}

// load_quad and store_quad move the values of q, offset elements further on; those beyond count are loaded as 0.
DEV void load_quad(const QuadExtents& e, const Quad& q, const Values& x, float v[4]) {
  if (e.whole) {
    load4(x.data, q.at, x.bf16, v);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[i] = i < q.count ? load_any(x.data, q.at + i, x.bf16) : 0;
  }
}

DEV void store_quad(const QuadExtents& e, const Quad& q, const Values& x, i64 offset, const float v[4]) {
  if (e.whole) {
    store4(x.data, q.at + offset, x.bf16, v);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (i < q.count) {
      store_any(x.data, q.at + offset + i, v[i], x.bf16);
    }
  }
}

// WideChannels: count channels of a pixel, in a tensor that has times as many: 1 or 2.
struct WideChannels {
  FastDivisor count;
  int times;
};

// wide_place is where the counterpart of value i of a sample lies in the wide tensor, among the first count channels of
// its pixel; the sample begins at value begin of the narrow one.
DEV i64 wide_place(const WideChannels& w, i64 begin, u32 i) {
  const u32 channel = w.times == 1 ? 0 : remainder(i, w.count);
  return (begin + i - channel) * w.times + channel;
}

// load_wide_quad loads the counterparts of the values of q, or what lies offset channels further on. extents are those
// of the narrow tensor.
DEV void load_wide_quad(const QuadExtents& e, const WideChannels& w, const Quad& q, const Values& x, i64 offset,
                        float v[4]) {
  if (w.times == 1) {
    load_quad(e, q, x, v);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[i] = i < q.count ? load_any(x.data, wide_place(w, q.at - q.first, (u32)q.first + i) + offset, x.bf16) : 0;
  }
}

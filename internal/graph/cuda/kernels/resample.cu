// Rearrangements: nearest-neighbour doubling and its gradient, concatenation and slices on channels.
//
// Lanes threads beside each other have a pack of channels each, rows of them different pixels or rows. Launcher: 256
// threads, lanes*rows at most 256. A packed instance needs whole packs wherever rows are joined or cut.
#include "device.h"
#include "numeric.h"
#include "values.h"

// DoubleParams: small [N,H,W,C] and large [N,2H,2W,C]. A block takes up to rows pixels of one line of small.
// Launcher: grid {N*H*tiles, slabs of lanes packs}, tiles = W/rows rounded up.
struct DoubleParams {
  Values small, large;
  int width;  // W
  int channels;
  int tiles;  // of a line
  int lanes;
  int rows;
};

// DoublePlace is a thread's pixel in small and the upper left of the four in large that it corresponds to.
struct DoublePlace {
  i64 small, large;  // elements
  i64 below;         // elements from a line of large to the next
  bool active;
};

template <class Access>
DEV DoublePlace double_place(Access, const DoubleParams& p) {
  const i64 line = block_x() / p.tiles;
  const int row = thread_x() / p.lanes;
  const int column = block_x() % p.tiles * p.rows + row;
  const int channel = (block_y() * p.lanes + thread_x() % p.lanes) * Access::width;
  DoublePlace at;
  at.active = row < p.rows && column < p.width && channel < p.channels;
  at.below = 2 * (i64)p.width * p.channels;
  at.small = (line * p.width + column) * p.channels + channel;
  at.large = 2 * line * at.below + 2 * (i64)column * p.channels + channel;
  return at;
}

// upsample repeats each pixel of small in 2x2 of large.
template <class Access>
DEV void upsample(Access access, const DoubleParams& p) {
  const DoublePlace at = double_place(access, p);
  if (!at.active) {
    return;
  }
  float v[Access::width];
  load(access, p.small, at.small, v);
  store(access, p.large, at.large, v);
  store(access, p.large, at.large + p.channels, v);
  store(access, p.large, at.large + at.below, v);
  store(access, p.large, at.large + at.below + p.channels, v);
}

// upsample_grad sums 2x2 of large into each pixel of small.
template <class Access>
DEV void upsample_grad(Access access, const DoubleParams& p) {
  constexpr int W = Access::width;
  const DoublePlace at = double_place(access, p);
  if (!at.active) {
    return;
  }
  float a[W], b[W], c[W], d[W];
  load(access, p.large, at.large, a);
  load(access, p.large, at.large + p.channels, b);
  load(access, p.large, at.large + at.below, c);
  load(access, p.large, at.large + at.below + p.channels, d);
#pragma unroll
  for (int i = 0; i < W; i++) {
    a[i] = (a[i] + b[i]) + (c[i] + d[i]);
  }
  store(access, p.small, at.small, a);
}

KERNEL BOUNDS(256, 4) upsample_bf16(DoubleParams p) { upsample(PackedBf16{}, p); }
KERNEL BOUNDS(256, 4) upsample_f32(DoubleParams p) { upsample(PackedF32{}, p); }
KERNEL BOUNDS(256, 4) upsample_any(DoubleParams p) { upsample(Single{}, p); }

KERNEL BOUNDS(256, 4) upsample_grad_bf16(DoubleParams p) { upsample_grad(PackedBf16{}, p); }
KERNEL BOUNDS(256, 4) upsample_grad_f32(DoubleParams p) { upsample_grad(PackedF32{}, p); }
KERNEL BOUNDS(256, 4) upsample_grad_any(DoubleParams p) { upsample_grad(Single{}, p); }

// JoinParams: out [M,C] is, row for row, channels [a_from, a_from+split) of a [M,a_stride], then b [M,C-split]. So it
// is a concatenation, or with split = C a slice. A block takes 4*rows rows. Launcher: grid {M/(4*rows) rounded up,
// slabs of lanes packs}.
struct JoinParams {
  Values a, b, out;
  i64 height;  // M
  int a_stride;
  int a_from;
  int split;
  int channels;
  int lanes;
  int rows;
};

template <class Access>
DEV void join(Access access, const JoinParams& p) {
  constexpr int ahead = 4;
  const int channel = (block_y() * p.lanes + thread_x() % p.lanes) * Access::width;
  const int row = thread_x() / p.lanes;
  if (row >= p.rows || channel >= p.channels) {
    return;
  }
  const bool of_a = channel < p.split;
  const Values part = {of_a ? p.a.data : p.b.data, of_a ? p.a.bf16 : p.b.bf16};
  const int stride = of_a ? p.a_stride : p.channels - p.split;
  const int from = of_a ? p.a_from + channel : channel - p.split;
  const i64 first = (i64)block_x() * (ahead * p.rows) + row;
  float v[ahead][Access::width];
#pragma unroll
  for (int k = 0; k < ahead; k++) {
    if (first + k * p.rows < p.height) {
      load(access, part, (first + k * p.rows) * stride + from, v[k]);
    }
  }
#pragma unroll
  for (int k = 0; k < ahead; k++) {
    if (first + k * p.rows < p.height) {
      store(access, p.out, (first + k * p.rows) * p.channels + channel, v[k]);
    }
  }
}

KERNEL BOUNDS(256, 4) join_bf16(JoinParams p) { join(PackedBf16{}, p); }
KERNEL BOUNDS(256, 4) join_f32(JoinParams p) { join(PackedF32{}, p); }
KERNEL BOUNDS(256, 4) join_any(JoinParams p) { join(Single{}, p); }

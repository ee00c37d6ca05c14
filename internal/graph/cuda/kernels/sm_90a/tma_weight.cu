// The gradient of convolutions and linear layers with respect to their weights, by TMA and wgmma.
//
//   dw[r,s,c,k] = sum over output pixels (n, i, j) of x[n, i*stride+r-top, j*stride+s-left, c] dy[n,i,j,k]
//
// The k of the product are pixels of dy, 64 a step: a box of 8 images by 8 pixels of a row, or of 16 by 4, or 64 rows
// of a linear layer. Boxes hold 64 channels and have the images inside, so that a pixel of 8 images is one pattern of
// 1024 bytes: the box of x for the next tap of a row is the same box, one pixel further. What lies outside of a tensor
// arrives as zeros, so that padding, ragged batches and odd numbers of boxes need no code.
//
// A block computes, for a share of the steps, 128 columns (output channels) of a group of boxes of x:
//
//   tma_weight_3     2 boxes, each read for 3 taps that are neighbours in a row:  384 rows of the result
//   tma_weight_2     2 boxes, each for 2 such taps:                               256 rows
//   tma_weight_1     4 boxes, each for one tap:                                   256 rows
//
// In these x is the operand of 64 rows (a tap of a box), and dy that of 128 columns. The instances _joint multiply the
// other way around, where one wgmma takes all taps of a box: its blocks of 64 columns are boxes that start one pixel
// apart and overlap. Either way a sum is of the same products in the same order.
//
// Threads 0 to 127 bring boxes (one of them does), two warpgroups multiply. A launch has 384 threads and
//
//   grid x           column tiles, ceil(columns / 128), of each group
//   grid y           shares of the steps: sums are [shares][rows][columns]
//   shared memory    TmaWeightStages::memory bytes
//
// All sums of all rows are written, so groups must have every row once. Channels are multiples of 64.
#include "hopper.h"
#include "tma_ring.h"

constexpr int tma_weight_x_maps = 8;
constexpr int tma_weight_dy_maps = 4;
constexpr int tma_weight_groups = 64;
constexpr int tma_weight_boxes = 4;

// TmaWeightBox is 64 channels of x.
struct TmaWeightBox {
  int map;
  int channel;  // beyond the tensor's for a box of zeros
  int x, y;     // of its first pixel, seen from that of dy
  int row;      // of the result, that the first channel of the first tap has; -1 for none
};

// TmaWeightGroup is what a block multiplies with columns of dy: all boxes in tma_weight_1, else the first two.
struct TmaWeightGroup {
  TmaWeightBox boxes[tma_weight_boxes];
  int dy;     // its map
  int first;  // row of dy's images where the steps begin
  int rows;   // of each image
};

struct TmaWeightTable {
  TensorMap x[tma_weight_x_maps];
  TensorMap dy[tma_weight_dy_maps];
  TmaWeightGroup groups[tma_weight_groups];
};

struct TmaWeightParams {
  const TmaWeightTable* table;
  float* sums;
  int rows;          // of the result
  int columns;       // of the result: channels of dy
  int tap_rows;      // rows of the result from one tap of a box to the next
  int column_tiles;  // of 128
  int images;        // of a box
  int width;         // pixels of a box of dy
  int image_boxes;   // boxes that have all images
  int row_boxes;     // boxes of dy that have all pixels of a row
  int pixel_bytes;   // from one pixel of a box to the next
  int box_bytes;     // of x
};

// TmaWeightStages is the ring of boxes in shared memory. A stage has 2 boxes of dy, then those of x.
template <int TAPS>
struct TmaWeightStages {
  static constexpr int taps = TAPS;
  static constexpr int boxes = TAPS == 1 ? 4 : 2;
  static constexpr u32 dy_box = 8192;
  // 8 images by 10 pixels or 16 by 6 for 3 taps; 8 by 9 or 16 by 5; 64 pixels.
  static constexpr u32 x_box = TAPS == 3 ? 12288 : TAPS == 2 ? 10240 : 8192;
  static constexpr u32 x_at = 2 * dy_box;
  static constexpr u32 bytes = x_at + boxes * x_box;
  static constexpr int count = TAPS == 3 ? 5 : TAPS == 2 ? 6 : 4;
  static constexpr u32 barriers = count * bytes;
  static constexpr u32 memory = barriers + 16 * count;
  static_assert(memory <= 227 * 1024, "what a block may have");
};

// TmaWeightShare is the steps of a block, a range of all steps of its group.
struct TmaWeightShare {
  int first;
  int count;
};

DEV TmaWeightShare weight_share(const TmaWeightParams& p, const TmaWeightGroup& group) {
  const int steps = p.row_boxes * group.rows * p.image_boxes;
  const int shares = grid_y();
  const int share = block_y();
  const int each = steps / shares;
  const int more = steps % shares;  // shares with one step more, the first ones
  return TmaWeightShare{share * each + (share < more ? share : more), each + (share < more)};
}

// bring_boxes copies the boxes of so many steps to the stages; one thread.
template <class S>
DEV void bring_boxes(const TmaWeightParams& p, const TmaWeightGroup& group, int column, TmaWeightShare share,
                     u32 memory) {
  if (share.count == 0) {
    return;
  }
  const TmaWeightTable* table = p.table;
  const TensorMap* dy = &table->dy[group.dy];
  const int last = group.first + group.rows;
  int x = share.first % p.row_boxes * p.width;
  const int above = share.first / p.row_boxes;
  int y = group.first + above % group.rows;
  int n = above / group.rows * p.images;
  TmaRing ring = tma_ring(memory + S::barriers, S::count);
  for (int step = 0; step < share.count; step++) {
    const u32 stage = memory + ring.stage * S::bytes;
    const u32 full = tma_ring_claim(ring, 2 * S::dy_box + S::boxes * p.box_bytes);
    tma_load4(stage, dy, column, n, x, y, full);
    tma_load4(stage + S::dy_box, dy, column + 64, n, x, y, full);
#pragma unroll
    for (int b = 0; b < S::boxes; b++) {
      const TmaWeightBox& box = group.boxes[b];
      tma_load4(stage + S::x_at + b * S::x_box, &table->x[box.map], box.channel, n, x + box.x, y + box.y, full);
    }
    tma_ring_advance(ring);
    x += p.width;
    if (x == p.row_boxes * p.width) {
      x = 0;
      y++;
      if (y == last) {
        y = group.first;
        n += p.images;
      }
    }
  }
}

// Separate is a warpgroup's part of the sums by taps: blocks of 64 rows by 128 columns. A warpgroup has one box for
// all taps, or two for one.
template <class S>
struct Separate {
  static constexpr int blocks = S::taps == 1 ? 2 : S::taps;
  float d[blocks][64];
};

// Joint is a warpgroup's part of the sums, transposed: 64 channels of dy by 64 of x for each tap, of both boxes.
template <class S>
struct Joint {
  static constexpr int blocks = S::boxes;
  float d[blocks][32 * S::taps];
};

// multiply starts the products of a stage, in the order of k.
template <class S>
DEV void multiply(Separate<S>& sums, const TmaWeightParams& p, u32 stage, u32 warpgroup) {
  const u32 x = stage + S::x_at + warpgroup * (S::taps == 1 ? 2 : 1) * S::x_box;
  const u32 next = S::taps == 1 ? S::x_box : p.pixel_bytes;
#pragma unroll
  for (int k = 0; k < 4; k++) {
#pragma unroll
    for (int b = 0; b < Separate<S>::blocks; b++) {
      wgmma_64x128<true, true>(sums.d[b], wgmma_descriptor(x + b * next + k * 2048, 1024, 1024),
                               wgmma_descriptor(stage + k * 2048, S::dy_box, 1024));
    }
  }
}

// multiply_taps is one product for 2 or 3 taps.
DEV void multiply_taps(float (&d)[64], u64 a, u64 b) { wgmma_64x128<true, true>(d, a, b); }
DEV void multiply_taps(float (&d)[96], u64 a, u64 b) { wgmma_64x192<true, true>(d, a, b); }

template <class S>
DEV void multiply(Joint<S>& sums, const TmaWeightParams& p, u32 stage, u32 warpgroup) {
  const u32 dy = stage + warpgroup * S::dy_box;
  const u32 x = stage + S::x_at;
#pragma unroll
  for (int k = 0; k < 4; k++) {
#pragma unroll
    for (int b = 0; b < Joint<S>::blocks; b++) {
      multiply_taps(sums.d[b], wgmma_descriptor(dy + k * 2048, 1024, 1024),
                    wgmma_descriptor(x + b * S::x_box + k * 2048, p.pixel_bytes, 1024));
    }
  }
}

// store writes pairs of columns: 4 threads fill 32 bytes.
template <class S>
DEV void store(const Separate<S>& sums, const TmaWeightParams& p, const TmaWeightGroup& group, float* to, u32 column,
               u32 warpgroup) {
  const u32 thread = thread_x() % 128;
  column += thread % 4 * 2;
#pragma unroll
  for (int b = 0; b < Separate<S>::blocks; b++) {
    const int first = group.boxes[S::taps == 1 ? 2 * warpgroup + b : warpgroup].row;
    const int tap = S::taps == 1 ? 0 : b * p.tap_rows;
    const i64 row = first + tap + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int j = 0; j < 16; j++) {
      if (first >= 0 && column + 8 * j < (u32)p.columns) {
        const float* v = &sums.d[b][4 * j];
        float* at = to + row * p.columns + column + 8 * j;
        store_global8(at, Vec2{as_bits(v[0]), as_bits(v[1])});
        store_global8(at + (i64)8 * p.columns, Vec2{as_bits(v[2]), as_bits(v[3])});
      }
    }
  }
}

// store writes single columns: 8 threads, every fourth, fill 32 bytes.
template <class S>
DEV void store(const Joint<S>& sums, const TmaWeightParams& p, const TmaWeightGroup& group, float* to, u32 column,
               u32 warpgroup) {
  const u32 thread = thread_x() % 128;
  column += warpgroup * 64 + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int b = 0; b < Joint<S>::blocks; b++) {
    const int first = group.boxes[b].row;
#pragma unroll
    for (int j = 0; j < 8 * S::taps; j++) {
      if (first >= 0 && column < (u32)p.columns) {
        const float* v = &sums.d[b][4 * j];
        const i64 row = first + j / 8 * p.tap_rows + j % 8 * 8 + thread % 4 * 2;
        float* at = to + row * p.columns + column;
        at[0] = v[0];
        at[p.columns] = v[1];
        at[8] = v[2];
        at[p.columns + 8] = v[3];
      }
    }
  }
}

// multiply_boxes multiplies the boxes of so many steps as they come.
template <class S, class Sums>
DEV void multiply_boxes(const TmaWeightParams& p, Sums& sums, int steps, u32 warpgroup, u32 memory) {
#pragma unroll
  for (int b = 0; b < Sums::blocks; b++) {
#pragma unroll
    for (float& v : sums.d[b]) {
      v = 0;
    }
    wgmma_pin(sums.d[b]);
  }
  const bool speaks = thread_x() % 32 == 0;
  TmaRing ring = tma_ring(memory + S::barriers, S::count);
  int read = -1;  // the stage before, which nobody reads when only the products of this one are left
  // One loop without others inside: else the compiler waits for every product.
  if (steps > 0) {
    do {
      tma_ring_wait(ring);
      wgmma_fence();
      multiply(sums, p, memory + ring.stage * S::bytes, warpgroup);
      wgmma_commit();
      wgmma_wait<1>();
      tma_ring_release(ring, read, speaks && read >= 0);
      read = ring.stage;
      tma_ring_advance(ring);
    } while (--steps > 0);
  }
  wgmma_wait<0>();
#pragma unroll
  for (int b = 0; b < Sums::blocks; b++) {
    wgmma_pin(sums.d[b]);
  }
}

// weight_gradient: REGISTERS are those of a multiplying thread, GIVEN those of the others; together 384 times 168.
template <class S, class Sums, int REGISTERS, int GIVEN>
DEV void weight_gradient(const TmaWeightParams& p) {
  const u32 memory = shared_base();
  const u32 thread = thread_x();
  const TmaWeightGroup& group = p.table->groups[block_x() / p.column_tiles];
  const u32 column = block_x() % p.column_tiles * 128;
  const TmaWeightShare share = weight_share(p, group);
  if (thread == 0) {
    const int multiplying = 8;  // warps
    tma_ring_init(tma_ring(memory + S::barriers, S::count), multiplying);
    mbarrier_init_fence();
  }
  barrier();
  if (thread < 128) {
    registers_give<GIVEN>();
    if (thread == 0) {
      bring_boxes<S>(p, group, column, share, memory);
    }
    return;
  }
  registers_take<REGISTERS>();
  Sums sums;
  const u32 warpgroup = thread / 128 - 1;
  multiply_boxes<S>(p, sums, share.count, warpgroup, memory);
  float* to = p.sums + (i64)block_y() * p.rows * p.columns;
  store(sums, p, group, to, column, warpgroup);
}

KERNEL BOUNDS(384, 1) tma_weight_3(TmaWeightParams p) {
  weight_gradient<TmaWeightStages<3>, Separate<TmaWeightStages<3>>, 240, 24>(p);
}
KERNEL BOUNDS(384, 1) tma_weight_3_joint(TmaWeightParams p) {
  weight_gradient<TmaWeightStages<3>, Joint<TmaWeightStages<3>>, 240, 24>(p);
}
KERNEL BOUNDS(384, 1) tma_weight_2(TmaWeightParams p) {
  weight_gradient<TmaWeightStages<2>, Separate<TmaWeightStages<2>>, 232, 40>(p);
}
KERNEL BOUNDS(384, 1) tma_weight_2_joint(TmaWeightParams p) {
  weight_gradient<TmaWeightStages<2>, Joint<TmaWeightStages<2>>, 232, 40>(p);
}
KERNEL BOUNDS(384, 1) tma_weight_1(TmaWeightParams p) {
  weight_gradient<TmaWeightStages<1>, Separate<TmaWeightStages<1>>, 232, 40>(p);
}

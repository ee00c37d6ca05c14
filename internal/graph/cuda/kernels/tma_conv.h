// What the kernels of convolutions by bulk copies work on: tiles of the result, and the tables that say what is summed.
//
// A bulk copy takes a box of C x N x W x H of a feature map [N,H,W,C]: 64 channels of 8 or 16 images and a few columns
// and rows of their pixels. In shared memory a row of 128 bytes is the channels of one pixel of one image, the rows of
// the images of a pixel follow each other, then its columns, then its rows. 8 such rows, 1024 bytes, are an atom of the
// pattern that wgmma reads; so a pixel is a whole number of atoms, and the box of a tile with a margin around serves
// all taps of the kernel: the operand of a tap is the same box at another atom.
//
// The launcher lists what is summed in a table, and the kernels know nothing of taps, strides, parts or phases:
//   - a box is one stage of the activations, of which the table has the map, the first channel and the place;
//   - a step multiplies with 64 x 128 weights, one stage of them: where its operand begins in the box before, and
//     which weights;
//   - a piece is some boxes and steps, and where their sums go: a phase of the pixels, or a share of the sums.
#pragma once
#include "hopper.h"
#include "numeric.h"
#include "tma_ring.h"

// Room in a table; the launcher leaves alone what needs more.
constexpr int tma_conv_maps = 8;
constexpr int tma_conv_pieces = 16;
constexpr int tma_conv_boxes = 64;
constexpr int tma_conv_steps = 256;

struct TmaConvPiece {
  i64 offset;  // of its first pixel's result, in elements
  int box;     // its boxes, boxes many
  int boxes;
  int step;  // its steps, steps many, at least 1
  int steps;
};

struct TmaConvBox {
  int map;
  int channel;
  int column;  // of the first pixel, relative to the tile
  int row;
};

struct TmaConvStep {
  int opens;  // whether it is the first of its box
  int atom;   // of the box, where the tile as the tap sees it begins
  int channel;
  int tap;
};

// TmaConvTable lies in device memory, at a multiple of 256 bytes.
struct TmaConvTable {
  TensorMap maps[tma_conv_maps];  // of activations
  TensorMap weights;              // [taps][c][k]
  TmaConvPiece pieces[tma_conv_pieces];
  TmaConvBox boxes[tma_conv_boxes];
  TmaConvStep steps[tma_conv_steps];
};

// TmaConvParams: extents and strides are those of a phase of the result, strides in elements.
struct TmaConvParams {
  const TmaConvTable* table;
  void* y;                  // bf16, or float32 if the pieces are shares
  const float* bias;        // [channels], or null
  const float* per_sample;  // [images][channels], or null
  const void* residual;     // bf16, as y, which it may be; or null
  float* moments;           // [images][slots][2][channels/4], or null (tma_moments.h)
  i64 image_stride;
  i64 row_stride;
  i64 column_stride;
  int images;
  int height;
  int width;
  int channels;  // a multiple of 64
  int tiles_n;   // in each dimension
  int tiles_y;
  int tiles_x;
  int tiles_c;
  int pieces;
  int shares;      // whether they are those of the sums, which are left as they are
  int box_bytes;   // a multiple of 1024
  int box_stages;  // so many boxes have room in shared memory
  int box_pitch;   // atoms from one row of a box to the next
  int slots;       // of an image, if moments or sums are left
};

// TmaConvTile is how a block of threads computes a tile of the result: two warpgroups, one above the other, BLOCKS
// products of 64 x 128 each. The 64 rows of one are IMAGES images of one row of pixels; 128 are output channels.
template <int BLOCKS, int IMAGES>
struct TmaConvTile {
  static constexpr int blocks = BLOCKS;
  static constexpr int images = IMAGES;
  static constexpr int columns = 64 / IMAGES;
  static constexpr int rows = 2 * BLOCKS;
  static constexpr int channels = 128;
  static constexpr int thread_images = IMAGES / 8;  // that one thread has values of
  static constexpr int slot = rows * columns;       // pixels of an image
};

// Threads: a warpgroup that loads, and two that multiply.
constexpr int tma_conv_threads = 384;
constexpr int tma_conv_readers = 8;  // warps that multiply

// Dynamic shared memory: stages of boxes, stages of weights, what is exchanged at the end of a tile (tma_moments.h,
// tma_norm_sums.h), then 16 bytes for each stage. The launcher knows these extents too (../hopper.go).
constexpr int tma_conv_weight_stages = 5;
constexpr int tma_conv_weight_bytes = 128 * 64 * 2;

template <class T>
DEV u32 exchange_bytes() {
  return tma_conv_readers * T::images * 32 * 8;
}

// TmaConvMemory is where these are.
struct TmaConvMemory {
  u32 boxes;
  u32 weights;
  u32 exchange;
  u32 barriers;
};

template <class T>
DEV TmaConvMemory tma_conv_memory(const TmaConvParams& p) {
  TmaConvMemory memory;
  memory.boxes = shared_base();
  memory.weights = memory.boxes + p.box_stages * p.box_bytes;
  memory.exchange = memory.weights + tma_conv_weight_stages * tma_conv_weight_bytes;
  memory.barriers = memory.exchange + exchange_bytes<T>();
  return memory;
}

// TmaConvPlace is a tile of a piece.
struct TmaConvPlace {
  int piece;
  int image;
  int row;
  int column;
  int channel;
};

DEV int tma_conv_tiles(const TmaConvParams& p) { return p.pieces * p.tiles_n * p.tiles_y * p.tiles_x * p.tiles_c; }

// tma_conv_place is tile i: neighbours have the same pixels, so that they find them in the L2 cache.
template <class T>
DEV TmaConvPlace tma_conv_place(const TmaConvParams& p, int i) {
  TmaConvPlace at;
  at.channel = i % p.tiles_c * T::channels;
  i /= p.tiles_c;
  at.column = i % p.tiles_x * T::columns;
  i /= p.tiles_x;
  at.row = i % p.tiles_y * T::rows;
  i /= p.tiles_y;
  at.image = i % p.tiles_n * T::images;
  at.piece = i / p.tiles_n;
  return at;
}

// tma_conv_slot is the slot of its images that a tile is, of a piece that is a phase.
template <class T>
DEV int tma_conv_slot(const TmaConvParams& p, const TmaConvPlace& at) {
  return (at.piece * p.tiles_y + at.row / T::rows) * p.tiles_x + at.column / T::columns;
}

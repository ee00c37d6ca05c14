// Convolutions, linear layers and their data gradients on compute capability 9.0: products of bf16 by wgmma, of
// operands that bulk copies bring to shared memory. What they compute is what conv_forward.h and conv_data.h say;
// tma_conv.h says how a table describes it, and how tiles and shared memory are laid out.
//
//   y[pixel][channel] = sum over the steps of 64 channels of a pixel that a tap sees, times 64 x 128 weights
//
// Blocks stay: block b computes tiles b, b + grid, ... One thread brings boxes of activations and another one, of
// another warp, weights, each as far ahead as there are stages; two warpgroups multiply, and while they store a tile
// the operands of the next one come. Every sum has the order of the steps, whatever the tile, the grid and the device.
//
// Weights [taps][C][K] lie in memory with K contiguous. A convolution has the columns of its product along K: their
// operand is turned, two boxes of 64 x 64. A data gradient has them along C, in one box of 128 rows.
//
// A launch has up to one block for each multiprocessor, 384 threads, and dynamic shared memory as tma_conv.h lays it
// out. A kernel named PxN has tiles of P pixels of N images. Tensors begin at multiples of 16 bytes.
#include "tma_conv.h"
#include "tma_moments.h"
#include "tma_norm_sums.h"
#include "tma_result.h"

// Registers of a thread that loads, and of one that multiplies.
constexpr int few_registers = 40;
constexpr int many_registers = 232;

// bring_boxes is the thread that loads activations.
template <class T>
DEV void bring_boxes(const TmaConvParams& p, TmaRing ring, u32 memory) {
  const TmaConvTable* table = p.table;
  const int tiles = tma_conv_tiles(p);
  tma_prefetch(&table->maps[0]);
  for (int tile = block_x(); tile < tiles; tile += grid_x()) {
    const TmaConvPlace at = tma_conv_place<T>(p, tile);
    const int first = table->pieces[at.piece].box;
    const int end = first + table->pieces[at.piece].boxes;
    for (int i = first; i < end; i++) {
      const TmaConvBox box = table->boxes[i];
      const u32 full = tma_ring_claim(ring, p.box_bytes);
      tma_load4(memory + ring.stage * p.box_bytes, &table->maps[box.map], box.channel, at.image, at.column + box.column,
                at.row + box.row, full);
      tma_ring_advance(ring);
    }
  }
}

// bring_weights is the thread that loads weights.
template <class T, bool TURNED>
DEV void bring_weights(const TmaConvParams& p, TmaRing ring, u32 memory) {
  const TmaConvTable* table = p.table;
  const int tiles = tma_conv_tiles(p);
  tma_prefetch(&table->weights);
  for (int tile = block_x(); tile < tiles; tile += grid_x()) {
    const TmaConvPlace at = tma_conv_place<T>(p, tile);
    const int first = table->pieces[at.piece].step;
    const int end = first + table->pieces[at.piece].steps;
    for (int i = first; i < end; i++) {
      const int channel = table->steps[i].channel;
      const int tap = table->steps[i].tap;
      const u32 full = tma_ring_claim(ring, tma_conv_weight_bytes);
      const u32 to = memory + ring.stage * tma_conv_weight_bytes;
      if (TURNED) {
        tma_load3(to, &table->weights, at.channel, channel, tap, full);
        tma_load3(to + tma_conv_weight_bytes / 2, &table->weights, at.channel + 64, channel, tap, full);
      } else {
        tma_load3(to, &table->weights, channel, at.channel, tap, full);
      }
      tma_ring_advance(ring);
    }
  }
}

// multiply_step starts the products of one step, 64 of k: of the tile as it begins at a, and of the weights at b.
template <class T, bool TURNED>
DEV void multiply_step(float (&sums)[T::blocks][64], u32 a, u32 block_bytes, u32 b) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const u64 weights = TURNED ? wgmma_descriptor(b + k * 2048, tma_conv_weight_bytes / 2, 1024)
                               : wgmma_descriptor(b + k * 32, 16, 1024);
#pragma unroll
    for (int block = 0; block < T::blocks; block++) {
      wgmma_64x128<false, TURNED>(sums[block], wgmma_descriptor(a + block * block_bytes + k * 32, 16, 1024), weights);
    }
  }
}

// multiply_tile computes the sums of a warpgroup's half of a tile. Its loop is flat, over steps, and runs at least
// once: around loops within loops the driver's compiler would wait for every single product.
template <class T, bool TURNED>
DEV void multiply_tile(float (&sums)[T::blocks][64], const TmaConvParams& p, const TmaConvPiece& piece,
                       const TmaConvMemory& memory, TmaRing& boxes, TmaRing& weights) {
#pragma unroll
  for (int block = 0; block < T::blocks; block++) {
#pragma unroll
    for (int i = 0; i < 64; i++) {
      sums[block][i] = 0;
    }
    wgmma_pin(sums[block]);
  }
  const bool speaks = thread_x() % 32 == 0;  // for its warp
  const u32 block_bytes = p.box_pitch * 1024;
  const u32 half = (thread_x() / 128 - 1) * T::blocks * block_bytes;
  const TmaConvStep* step = p.table->steps + piece.step;
  const TmaConvStep* end = step + piece.steps;
  int box = -1;
  int weight = -1;
  do {
    const Vec2 entry = load_global8(&step->opens);  // and atom
    int box_before = -1;
    if (entry.x) {
      box_before = box;
      box = boxes.stage;
      tma_ring_wait(boxes);
      tma_ring_advance(boxes);
    }
    tma_ring_wait(weights);
    wgmma_fence();
    multiply_step<T, TURNED>(sums, memory.boxes + box * p.box_bytes + half + entry.y * 1024, block_bytes,
                             memory.weights + weights.stage * tma_conv_weight_bytes);
    wgmma_commit();
    // While this step's products run, those of the one before are done.
    wgmma_wait<1>();
    tma_ring_release(weights, weight, speaks && weight >= 0);
    tma_ring_release(boxes, box_before, speaks && box_before >= 0);
    weight = weights.stage;
    tma_ring_advance(weights);
  } while (++step != end);
  wgmma_wait<0>();
#pragma unroll
  for (int block = 0; block < T::blocks; block++) {
    wgmma_pin(sums[block]);
  }
  tma_ring_release(weights, weight, speaks);
  tma_ring_release(boxes, box, speaks);
}

// multipliers_barrier is a barrier of the two warpgroups that multiply.
DEV void multipliers_barrier() { named_barrier<1, 256>(); }

// Plain stores the result, and leaves its moments.
struct Plain {
  template <class T>
  DEV void finish(const float (&sums)[T::blocks][64], const TmaConvParams& p, const TmaConvPlace& at, i64 offset,
                  u32 exchange) const {
    const TmaConvThread t = tma_conv_thread();
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++) {
      const int channel = at.channel + 32 * quarter;
      if (channel >= p.channels) {
        break;
      }
      TmaAddends addends[T::thread_images];
#pragma unroll
      for (int which = 0; which < T::thread_images; which++) {
        addends[which] = tma_addends(p, tma_image(at, t, which), channel + 2 * t.q);
      }
      u32 rounded[T::blocks][2][4];
#pragma unroll
      for (int block = 0; block < T::blocks; block++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const TmaPixel pixel = tma_pixel<T>(p, at, t, block, half);
          finish_quarter<T>(sums[block], quarter, half, p, pixel, offset + tma_element(p, pixel) + channel,
                            addends[T::thread_images == 2 ? half : 0], t.q, rounded[block][half]);
        }
      }
      if (p.moments) {
        tma_moments_part<T>(rounded, exchange, quarter);
      }
    }
    if (p.moments) {
      multipliers_barrier();
      tma_moments_store<T>(p, at, exchange);
      multipliers_barrier();
    }
  }
};

// Normed stores the result, and leaves sums for the gradient of the normalisation in front.
struct Normed {
  const TmaNorm& norm;

  template <class T>
  DEV void finish(const float (&sums)[T::blocks][64], const TmaConvParams& p, const TmaConvPlace& at, i64 offset,
                  u32 exchange) const {
    const TmaConvThread t = tma_conv_thread();
    const TmaAddends none = {};
#pragma unroll
    for (int quarter = 0; quarter < 4; quarter++) {
      const int channel = at.channel + 32 * quarter;
      if (channel >= p.channels) {
        break;
      }
      u32 x[T::blocks][2][4], dy[T::blocks][2][4];
#pragma unroll
      for (int block = 0; block < T::blocks; block++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const TmaPixel pixel = tma_pixel<T>(p, at, t, block, half);
          load_quarter(tma_norm_input(norm, p, pixel, channel + 8 * t.q), pixel.inside, t.q, x[block][half]);
          finish_quarter<T>(sums[block], quarter, half, p, pixel, offset + tma_element(p, pixel) + channel, none, t.q,
                            dy[block][half]);
        }
      }
      tma_norm_part<T>(x, dy, norm, p, at, channel, exchange);
      multipliers_barrier();
      tma_norm_store<T>(norm, p, at, exchange, quarter);
      multipliers_barrier();
    }
  }
};

template <class T, bool TURNED, class Finish>
DEV void convolve(const TmaConvParams& p, const Finish& finish) {
  const TmaConvMemory memory = tma_conv_memory<T>(p);
  TmaRing weights = tma_ring(memory.barriers, tma_conv_weight_stages);
  TmaRing boxes = tma_ring(memory.barriers + 16 * tma_conv_weight_stages, p.box_stages);
  const int thread = thread_x();
  if (thread == 0) {
    tma_ring_init(weights, tma_conv_readers);
    tma_ring_init(boxes, tma_conv_readers);
    mbarrier_init_fence();
  }
  barrier();
  if (thread < 128) {
    registers_give<few_registers>();
    if (thread == 0) {
      bring_boxes<T>(p, boxes, memory.boxes);
    } else if (thread == 32) {
      bring_weights<T, TURNED>(p, weights, memory.weights);
    }
    return;
  }
  registers_take<many_registers>();
  const int tiles = tma_conv_tiles(p);
  for (int tile = block_x(); tile < tiles; tile += grid_x()) {
    const TmaConvPlace at = tma_conv_place<T>(p, tile);
    const TmaConvPiece piece = p.table->pieces[at.piece];
    float sums[T::blocks][64];
    multiply_tile<T, TURNED>(sums, p, piece, memory, boxes, weights);
    if (p.shares) {
      store_share<T>(sums, p, at, piece.offset);
    } else {
      finish.template finish<T>(sums, p, at, piece.offset, memory.exchange);
    }
  }
}

typedef TmaConvTile<2, 8> Tile32x8;
typedef TmaConvTile<1, 8> Tile16x8;
typedef TmaConvTile<1, 16> Tile8x16;

KERNEL BOUNDS(384, 1) tma_conv_forward_32x8(TmaConvParams p) { convolve<Tile32x8, true>(p, Plain{}); }
KERNEL BOUNDS(384, 1) tma_conv_forward_16x8(TmaConvParams p) { convolve<Tile16x8, true>(p, Plain{}); }
KERNEL BOUNDS(384, 1) tma_conv_forward_8x16(TmaConvParams p) { convolve<Tile8x16, true>(p, Plain{}); }

KERNEL BOUNDS(384, 1) tma_conv_data_32x8(TmaConvParams p) { convolve<Tile32x8, false>(p, Plain{}); }
KERNEL BOUNDS(384, 1) tma_conv_data_16x8(TmaConvParams p) { convolve<Tile16x8, false>(p, Plain{}); }
KERNEL BOUNDS(384, 1) tma_conv_data_8x16(TmaConvParams p) { convolve<Tile8x16, false>(p, Plain{}); }

// TmaConvNormParams: a data gradient of one phase, in whole sums, and the normalisation it is for.
struct TmaConvNormParams {
  TmaConvParams conv;
  TmaNorm norm;
};

KERNEL BOUNDS(384, 1) tma_conv_data_norm_32x8(TmaConvNormParams p) {
  convolve<Tile32x8, false>(p.conv, Normed{p.norm});
}
KERNEL BOUNDS(384, 1) tma_conv_data_norm_16x8(TmaConvNormParams p) {
  convolve<Tile16x8, false>(p.conv, Normed{p.norm});
}
KERNEL BOUNDS(384, 1) tma_conv_data_norm_8x16(TmaConvNormParams p) {
  convolve<Tile8x16, false>(p.conv, Normed{p.norm});
}

// Matrix products through shared memory: c[m][n] = sum over k of a[m][k] b[n][k]. A block computes a tile of 64x64 with
// 4 warps of 32x32; three stages of shared memory, filled two steps ahead.
// Launch: grid {n/64, m/64}, 128 threads, 3*2*64*80 bytes (bf16) or 3*2*64*80 (tf32) of dynamic shared memory.
#include "numeric.h"
#include "params.h"

const int stages = 3;
const int tile = 64;

// Rows of shared memory are padded so that eight consecutive ones lie in different banks.
struct Bf16 {
  typedef u16 Element;
  static const int depth = 32;  // along k, of a step
  static const int pitch = 40;
};

struct Tf32 {
  typedef float Element;
  static const int depth = 16;
  static const int pitch = 20;
};

// load_step starts the copies of one step's tiles of a and b.
template <class Format>
DEV void load_step(const GemmParams& p, typename Format::Element* stage, int step) {
  typedef typename Format::Element Element;
  const int chunk = 16 / (int)sizeof(Element);
  const int chunks = Format::depth / chunk;
  for (int i = (int)thread_x(); i < tile * chunks; i += 128) {
    const int row = i / chunks;
    const int column = i % chunks * chunk;
    const i64 k = (i64)step * Format::depth + column;
    copy_async16(stage + row * Format::pitch + column,
                 (const Element*)p.a + ((i64)block_y() * tile + row) * p.k + k, 16);
    copy_async16(stage + (tile + row) * Format::pitch + column,
                 (const Element*)p.b + ((i64)block_x() * tile + row) * p.k + k, 16);
  }
}

DEV void multiply_step(Bf16, const u16* a, const u16* b, float sum[2][4][4]) {
  const int lane = (int)thread_x() % 32;
  for (int k = 0; k < Bf16::depth; k += 16) {
    u32 fa[2][4], fb[2][4];
    for (int i = 0; i < 2; i++) {
      load_matrix4(fa[i], a + (i * 16 + lane % 16) * Bf16::pitch + k + lane / 16 * 8);
      load_matrix4(fb[i], b + (i * 16 + lane / 16 * 8 + lane % 8) * Bf16::pitch + k + lane / 8 % 2 * 8);
    }
    for (int i = 0; i < 2; i++) {
      for (int j = 0; j < 4; j++) {
        mma_bf16(sum[i][j], fa[i], &fb[j / 2][j % 2 * 2]);
      }
    }
  }
}

DEV void multiply_step(Tf32, const float* a, const float* b, float sum[2][4][4]) {
  const int row = (int)thread_x() % 32 / 4;
  const int column = (int)thread_x() % 4;
  for (int k = 0; k < Tf32::depth; k += 8) {
    u32 fa[2][4], fb[4][2];
    for (int i = 0; i < 2; i++) {
      for (int w = 0; w < 4; w++) {
        fa[i][w] = to_tf32(a[(i * 16 + w % 2 * 8 + row) * Tf32::pitch + k + w / 2 * 4 + column]);
      }
    }
    for (int j = 0; j < 4; j++) {
      for (int w = 0; w < 2; w++) {
        fb[j][w] = to_tf32(b[(j * 8 + row) * Tf32::pitch + k + w * 4 + column]);
      }
    }
    for (int i = 0; i < 2; i++) {
      for (int j = 0; j < 4; j++) {
        mma_tf32(sum[i][j], fa[i], fb[j]);
      }
    }
  }
}

template <class Format>
DEV void gemm(const GemmParams& p) {
  typedef typename Format::Element Element;
  Element* shared = (Element*)dynamic_shared();
  const int stage_size = 2 * tile * Format::pitch;
  const int steps = p.k / Format::depth;
  const int warp_m = (int)thread_x() / 64 * 32;
  const int warp_n = (int)thread_x() / 32 % 2 * 32;
  float sum[2][4][4] = {};
  for (int step = 0; step < stages - 1; step++) {
    if (step < steps) {
      load_step<Format>(p, shared + step * stage_size, step);
    }
    copy_async_commit();
  }
  for (int step = 0; step < steps; step++) {
    copy_async_wait<stages - 2>();
    barrier();
    const int ahead = step + stages - 1;
    if (ahead < steps) {
      load_step<Format>(p, shared + ahead % stages * stage_size, ahead);
    }
    copy_async_commit();
    const Element* stage = shared + step % stages * stage_size;
    multiply_step(Format(), stage + warp_m * Format::pitch, stage + (tile + warp_n) * Format::pitch, sum);
  }
  const int lane = (int)thread_x() % 32;
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 4; j++) {
      for (int v = 0; v < 4; v++) {
        const i64 row = (i64)block_y() * tile + warp_m + i * 16 + v / 2 * 8 + lane / 4;
        const i64 column = (i64)block_x() * tile + warp_n + j * 8 + lane % 4 * 2 + v % 2;
        p.c[row * p.n + column] = sum[i][j][v];
      }
    }
  }
}

KERNEL BOUNDS(128, 2) gemm_bf16(GemmParams p) { gemm<Bf16>(p); }
KERNEL BOUNDS(128, 2) gemm_tf32(GemmParams p) { gemm<Tf32>(p); }

// gemm_bf16_kn has b as [k][n] and reads its fragments transposed. One warp computes a tile of 16x8, one step at a
// time. Launch: grid {n/8, m/16}, 32 threads; k a multiple of 16.
KERNEL BOUNDS(32, 1) gemm_bf16_kn(GemmParams p) {
  SHARED __attribute__((aligned(16))) u16 a[16 * 16];
  SHARED __attribute__((aligned(16))) u16 b[16 * 8];
  const int lane = (int)thread_x();
  float sum[4] = {};
  for (int k = 0; k < p.k; k += 16) {
    copy_async16(a + lane * 8, (const u16*)p.a + ((i64)block_y() * 16 + lane / 2) * p.k + k + lane % 2 * 8, 16);
    if (lane < 16) {
      copy_async16(b + lane * 8, (const u16*)p.b + (i64)(k + lane) * p.n + block_x() * 8, 16);
    }
    copy_async_commit();
    copy_async_wait<0>();
    warp_barrier();
    u32 fa[4], fb[2];
    load_matrix4(fa, a + lane % 16 * 16 + lane / 16 * 8);
    load_matrix2_transposed(fb, b + lane % 16 * 8);
    mma_bf16(sum, fa, fb);
    warp_barrier();
  }
  for (int v = 0; v < 4; v++) {
    const i64 row = (i64)block_y() * 16 + v / 2 * 8 + lane / 4;
    p.c[row * p.n + block_x() * 8 + lane % 4 * 2 + v % 2] = sum[v];
  }
}

// What tensor cores compute at most: products of operands that stay in registers, so that no memory is waited for.
//
// A warp multiplies the same two matrices of random numbers again and again and adds the products to the same sums,
// 8 fragments of them that do not depend on each other. Nothing is left to the compiler to leave out, and the sums
// tell how many rounds there were.
#include "device.h"

constexpr int ceiling_fragments_m = 2;
constexpr int ceiling_fragments_n = 4;

// CeilingParams: every warp leaves the sums of rounds products of A [32][k] and B [k][32], k one block of the
// instruction. operands [32 lanes][16] are what a lane has of A's two fragments, 4 words each, then of B's four, 2 words
// each; sums [warps][2][4][4][32 lanes] what it has of the sums. Launcher: 256 threads, any grid, operands at a multiple
// of 16 bytes.
struct CeilingParams {
  const u32* operands;
  float* sums;
  int rounds;
};

struct CeilingBf16 {};
struct CeilingTf32 {};

DEV void multiply(CeilingBf16, float d[4], const u32 a[4], const u32 b[2]) { mma_bf16(d, a, b); }
DEV void multiply(CeilingTf32, float d[4], const u32 a[4], const u32 b[2]) { mma_tf32(d, a, b); }

template <class Precision>
DEV void ceiling(Precision precision, const CeilingParams& p) {
  const u32 lane = thread_x() % 32;
  u32 a[ceiling_fragments_m][4];
  u32 b[ceiling_fragments_n][2];
  const u32* operands = p.operands + lane * 16;
#pragma unroll
  for (int i = 0; i < ceiling_fragments_m; i++) {
    const Vec4 v = load_global16(operands + 4 * i);
    a[i][0] = v.x;
    a[i][1] = v.y;
    a[i][2] = v.z;
    a[i][3] = v.w;
  }
#pragma unroll
  for (int j = 0; j < ceiling_fragments_n; j++) {
    const Vec2 v = load_global8(operands + 4 * ceiling_fragments_m + 2 * j);
    b[j][0] = v.x;
    b[j][1] = v.y;
  }
  float d[ceiling_fragments_m][ceiling_fragments_n][4];
#pragma unroll
  for (int i = 0; i < ceiling_fragments_m; i++) {
#pragma unroll
    for (int j = 0; j < ceiling_fragments_n; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        d[i][j][e] = 0;
      }
    }
  }
#pragma unroll 1
  for (int round = 0; round < p.rounds; round++) {
#pragma unroll
    for (int i = 0; i < ceiling_fragments_m; i++) {
#pragma unroll
      for (int j = 0; j < ceiling_fragments_n; j++) {
        multiply(precision, d[i][j], a[i], b[j]);
      }
    }
  }
  const i64 warp = (i64)block_x() * (block_threads() / 32) + thread_x() / 32;
  float* sums = p.sums + warp * (ceiling_fragments_m * ceiling_fragments_n * 4 * 32) + lane;
#pragma unroll
  for (int i = 0; i < ceiling_fragments_m; i++) {
#pragma unroll
    for (int j = 0; j < ceiling_fragments_n; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        sums[((i * ceiling_fragments_n + j) * 4 + e) * 32] = d[i][j][e];
      }
    }
  }
}

KERNEL BOUNDS(256, 2) ceiling_bf16(CeilingParams p) { ceiling(CeilingBf16(), p); }
KERNEL BOUNDS(256, 2) ceiling_tf32(CeilingParams p) { ceiling(CeilingTf32(), p); }

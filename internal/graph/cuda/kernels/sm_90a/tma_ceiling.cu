// What tensor cores compute at most by wgmma: products of operands that stay in shared memory.
//
// A block has A and B there, in the layout of the 128-byte swizzle with k contiguous. Two warpgroups multiply half of A's
// rows each with B again and again and add the products to the same sums, which tell how many rounds there were.
#include "hopper.h"

constexpr int tma_ceiling_m = 128;
constexpr int tma_ceiling_n = 256;
constexpr int tma_ceiling_k = 64;
constexpr int tma_ceiling_row = 2 * tma_ceiling_k;  // bytes
constexpr int tma_ceiling_threads = 256;

// TmaCeilingParams: every block leaves the sums of rounds products, sums [blocks][128][256], of a [128][64] and the
// transpose of b [256][64], bf16 at multiples of 16 bytes. Launcher: 256 threads, any grid, 48 KiB of dynamic shared
// memory.
struct TmaCeilingParams {
  const u16* a;
  const u16* b;
  float* sums;
  int rounds;
};

// bring copies rows of 128 bytes to shared memory, a multiple of 1024, as copies with the swizzle would.
DEV void bring(u32 shared, const u16* rows, int count) {
  const char* from = (const char*)rows;
#pragma unroll 1
  for (int piece = (int)thread_x(); piece < count * (tma_ceiling_row / 16); piece += tma_ceiling_threads) {
    const int row = piece / (tma_ceiling_row / 16);
    const int place = piece % (tma_ceiling_row / 16) ^ row % 8;
    store_shared16(shared + row * tma_ceiling_row + place * 16, load_global16(from + (i64)piece * 16));
  }
}

KERNEL BOUNDS(256, 1) tma_ceiling(TmaCeilingParams p) {
  const u32 shared_a = shared_base();
  const u32 shared_b = shared_a + tma_ceiling_m * tma_ceiling_row;
  bring(shared_a, p.a, tma_ceiling_m);
  bring(shared_b, p.b, tma_ceiling_n);
  fence_async_proxy();
  barrier();

  const u32 group = thread_x() / 128;
  const u64 a = wgmma_descriptor(shared_a + group * 64 * tma_ceiling_row, 0, 8 * tma_ceiling_row);
  const u64 b = wgmma_descriptor(shared_b, 0, 8 * tma_ceiling_row);
  float d[128];
#pragma unroll
  for (int i = 0; i < 128; i++) {
    d[i] = 0;
  }
  wgmma_pin(d);
  wgmma_fence();
#pragma unroll 1
  for (int round = 0; round < p.rounds; round++) {
#pragma unroll
    for (int k = 0; k < tma_ceiling_k / 16; k++) {
      // The next 16 of k lie 32 bytes further, in units of 16.
      wgmma_64x256<false, false>(d, a + 2 * k, b + 2 * k);
    }
    wgmma_commit();
    wgmma_wait<1>();
  }
  wgmma_wait<0>();
  wgmma_pin(d);

  const u32 warp = thread_x() / 32 % 4;
  const u32 lane = thread_x() % 32;
  const i64 row = (i64)block_x() * tma_ceiling_m + group * 64 + warp * 16 + lane / 4;
  float* sums = p.sums + row * tma_ceiling_n + 2 * (lane % 4);
#pragma unroll
  for (int j = 0; j < tma_ceiling_n / 8; j++) {
    store_global8(sums + 8 * j, Vec2{as_bits(d[4 * j]), as_bits(d[4 * j + 1])});
    store_global8(sums + 8 * tma_ceiling_n + 8 * j, Vec2{as_bits(d[4 * j + 2]), as_bits(d[4 * j + 3])});
  }
}

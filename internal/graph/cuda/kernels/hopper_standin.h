// The CPU half of hopper.h, for the test-only driver in ../standin: the same functions as hopper_gpu.h, which states
// their contracts. All are part of the driver.
#pragma once

// In the driver: shared memory by address, and named barriers (hopper_block.cc).
u32 shared_base();
Words4 read_shared16(u32 address);
void write_shared16(u32 address, Words4 v);
u64 read_shared8(u32 address);
void write_shared8(u32 address, u64 v);
void wait_at_named_barrier(int id, int threads);

// In the driver: mbarriers and bulk copies (mbarrier.cc, tma.cc).
void mbarrier_init(u32 barrier, int arrivals);
void mbarrier_init_fence();
void mbarrier_arrive(u32 barrier);
void mbarrier_arrive_expect(u32 barrier, u32 bytes);
void mbarrier_wait(u32 barrier, u32 parity);
void tma_load3(u32 shared, const TensorMap* map, int c0, int c1, int c2, u32 barrier);
void tma_load4(u32 shared, const TensorMap* map, int c0, int c1, int c2, int c3, u32 barrier);
void tma_load5(u32 shared, const TensorMap* map, int c0, int c1, int c2, int c3, int c4, u32 barrier);
void tma_prefetch(const TensorMap* map);
void fence_async_proxy();

// In the driver: warpgroups (warpgroup.cc).
void start_wgmma(float* sums, int n, u64 a, u64 b, bool a_turned, bool b_turned);
void wgmma_fence();
void wgmma_commit();
void wait_for_wgmma(int in_progress);
void set_registers(int registers, bool more);

DEV Vec4 load_shared16(u32 address) {
  const Words4 v = read_shared16(address);
  return Vec4{v[0], v[1], v[2], v[3]};
}

DEV void store_shared16(u32 address, Vec4 v) { write_shared16(address, Words4{v.x, v.y, v.z, v.w}); }

DEV Vec2 load_shared8(u32 address) {
  const u64 v = read_shared8(address);
  return Vec2{(u32)v, (u32)(v >> 32)};
}

DEV void store_shared8(u32 address, Vec2 v) { write_shared8(address, v.x | (u64)v.y << 32); }

DEV void mbarrier_arrive_if(u32 barrier, bool condition) {
  if (condition) {
    mbarrier_arrive(barrier);
  }
}

template <int ID, int THREADS>
DEV void named_barrier() {
  static_assert(ID > 0 && ID < 16, "barrier 0 is barrier()");
  static_assert(THREADS > 0 && THREADS % 32 == 0, "whole warps");
  wait_at_named_barrier(ID, THREADS);
}

template <int N>
DEV void registers_give() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a number of registers");
  set_registers(N, false);
}

template <int N>
DEV void registers_take() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a number of registers");
  set_registers(N, true);
}

template <int N>
DEV void wgmma_wait() {
  static_assert(N >= 0 && N < 8, "a number of groups");
  wait_for_wgmma(N);
}

// The driver changes sums in calls that the compiler does not see into.
template <int COUNT>
DEV void wgmma_pin(float (&)[COUNT]) {}

template <bool A_TURNED, bool B_TURNED>
DEV void wgmma_64x64(float (&d)[32], u64 a, u64 b) {
  start_wgmma(d, 64, a, b, A_TURNED, B_TURNED);
}

template <bool A_TURNED, bool B_TURNED>
DEV void wgmma_64x128(float (&d)[64], u64 a, u64 b) {
  start_wgmma(d, 128, a, b, A_TURNED, B_TURNED);
}

template <bool A_TURNED, bool B_TURNED>
DEV void wgmma_64x192(float (&d)[96], u64 a, u64 b) {
  start_wgmma(d, 192, a, b, A_TURNED, B_TURNED);
}

template <bool A_TURNED, bool B_TURNED>
DEV void wgmma_64x256(float (&d)[128], u64 a, u64 b) {
  start_wgmma(d, 256, a, b, A_TURNED, B_TURNED);
}

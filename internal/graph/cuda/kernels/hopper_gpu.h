// The GPU half of hopper.h: inline PTX for sm_90a.
//
// "Warpgroup" functions must be reached by all 128 threads of a warpgroup, threads 128*g to 128*g+127 of the block,
// together and at the same place in the source, with the same arguments.
//
// Two proxies access shared memory: the generic one of ordinary loads and stores, and the asynchronous one of bulk
// copies and wgmma. What one wrote is seen by the other only after
//   - mbarrier_wait for the barrier that a copy completes on, by the thread that then reads, or that starts a wgmma;
//   - fence_async_proxy in the thread that wrote, then a barrier of any kind, for generic writes that wgmma reads;
//   - a barrier of any kind after the last generic read, or after wgmma_wait for the last wgmma that reads, before a
//     copy overwrites.
#pragma once

// shared_base is the address of the dynamic shared memory, a multiple of 1024.
DEV u32 shared_base() {
  const u32 address = shared_address(dynamic_shared());
  if (address % 1024 != 0) {
    __builtin_trap();
  }
  return address;
}

// One access of 16 or 8 bytes to shared memory, aligned to as much.
DEV Vec4 load_shared16(u32 address) {
  Vec4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

DEV void store_shared16(u32 address, Vec4 v) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

DEV Vec2 load_shared8(u32 address) {
  Vec2 v;
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address) : "memory");
  return v;
}

DEV void store_shared8(u32 address, Vec2 v) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(address), "r"(v.x), "r"(v.y) : "memory");
}

// An mbarrier is 8 bytes of shared memory at a multiple of 8. It counts phases, which have parities 0, 1, 0, 1...; a
// phase is complete when as many threads have arrived as mbarrier_init said (1 to 2^20 - 1) and all bytes that were
// expected in it have come. One thread calls mbarrier_init for every mbarrier and then mbarrier_init_fence; a barrier()
// must come before the mbarriers are used.
DEV void mbarrier_init(u32 barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

DEV void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// mbarrier_arrive is one arrival; what this thread wrote before is visible to who waits for the phase.
// mbarrier_arrive_if arrives if the condition holds, without a branch.
DEV void mbarrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

DEV void mbarrier_arrive_if(u32 barrier, bool condition) {
  asm volatile(
      "{\n"
      ".reg .pred arrives;\n"
      "setp.ne.b32 arrives, %1, 0;\n"
      "@arrives mbarrier.arrive.shared::cta.b64 _, [%0];\n"
      "}" ::"r"(barrier),
      "r"((int)condition)
      : "memory");
}

// mbarrier_arrive_expect is one arrival that also expects bytes in this phase: what the copies that complete on the
// barrier write, zeros outside of the tensor included; less than 2^20 in a phase. It comes before those copies.
DEV void mbarrier_arrive_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// mbarrier_wait waits until the phase of a parity is complete: of the current phase or the one before. On a fresh
// mbarrier a wait for parity 1 returns at once. It ends the kernel with an error after some seconds.
DEV void mbarrier_wait(u32 barrier, u32 parity) {
  // The upper half of the clock counts periods of two seconds or a little more.
  asm volatile(
      "{\n"
      ".reg .pred complete, patient;\n"
      ".reg .u32 since, time;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
      "@complete bra complete_%=;\n"
      "mov.u32 since, %%clock_hi;\n"
      "again_%=:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
      "@complete bra complete_%=;\n"
      "mov.u32 time, %%clock_hi;\n"
      "sub.u32 time, time, since;\n"
      "setp.lt.u32 patient, time, 4;\n"
      "@patient bra again_%=;\n"
      "trap;\n"
      "complete_%=:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// tma_load3, 4 and 5 start a copy of one box of a tensor of that rank to shared memory, at a multiple of 128, with the
// 128-byte swizzle of 1024. One thread calls it. c0... are the coordinates of the box's first element, innermost first;
// they may be negative, and what lies outside of the tensor is zero. The copy completes on a barrier, with the bytes
// of the whole box.
#define TMA_LOAD(rank) \
  "cp.async.bulk.tensor." rank "d.shared::cluster.global.mbarrier::complete_tx::bytes"

DEV void tma_load3(u32 shared, const TensorMap* map, int c0, int c1, int c2, u32 barrier) {
  asm volatile(TMA_LOAD("3") " [%0], [%1, {%3, %4, %5}], [%2];"
               ::"r"(shared), "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2)
               : "memory");
}

DEV void tma_load4(u32 shared, const TensorMap* map, int c0, int c1, int c2, int c3, u32 barrier) {
  asm volatile(TMA_LOAD("4") " [%0], [%1, {%3, %4, %5, %6}], [%2];"
               ::"r"(shared), "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
               : "memory");
}

DEV void tma_load5(u32 shared, const TensorMap* map, int c0, int c1, int c2, int c3, int c4, u32 barrier) {
  asm volatile(TMA_LOAD("5") " [%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
               ::"r"(shared), "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
               : "memory");
}

#undef TMA_LOAD

// tma_prefetch brings a map near before the first copy needs it.
DEV void tma_prefetch(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

// fence_async_proxy makes what this thread wrote to shared memory visible to copies and products that come after a
// barrier, or that it starts itself.
DEV void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// named_barrier waits for THREADS threads of the block, whole warps, that call it with the same ID, 1 to 15; a
// barrier() of those.
template <int ID, int THREADS>
DEV void named_barrier() {
  static_assert(ID > 0 && ID < 16, "barrier 0 is barrier()");
  static_assert(THREADS > 0 && THREADS % 32 == 0, "whole warps");
  asm volatile("bar.sync %0, %1;" ::"n"(ID), "n"(THREADS) : "memory");
}

// registers_give lowers the number of registers of each thread to N, registers_take raises it and waits until others
// have given enough; warpgroup. N is a multiple of 8 from 24 to 256. The kernel's BOUNDS say how many it starts with:
// 65536 by the threads of the block, rounded down to a multiple of 8, and 168 at the start of a kernel of 384 threads.
template <int N>
DEV void registers_give() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a number of registers");
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N>
DEV void registers_take() {
  static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a number of registers");
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

// wgmma_fence comes before the first product and wherever sums were accessed since; wgmma_commit closes a group of the
// products since the last one; wgmma_wait waits until at most N groups are in progress, the latest ones. Sums may
// be accessed, and operands overwritten, only after a wait for their product. Warpgroup.
DEV void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEV void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int N>
DEV void wgmma_wait() {
  static_assert(N >= 0 && N < 8, "a number of groups");
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// wgmma_pin keeps the compiler from moving accesses to sums across this place, to where a product is in progress. It
// comes between other code that accesses them and the wgmma_fence of the first product, and after the last wgmma_wait.
template <int COUNT>
DEV void wgmma_pin(float (&d)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    asm volatile("" : "+f"(d[i])::"memory");
  }
}

// wgmma_64xN starts d += a b of a 64x16 matrix a and a 16xN matrix b of bf16 in shared memory, given by
// wgmma_descriptor; warpgroup. An operand that is TURNED is stored with its index of M or N contiguous, else with k
// contiguous. With w the warp of the warpgroup, g = lane/4 and c = 2*(lane%4), for j = 0 to N/8-1:
//   d[4j], d[4j+1]:     D[16w+g][8j+c], D[16w+g][8j+c+1]
//   d[4j+2], d[4j+3]:   D[16w+g+8][8j+c], D[16w+g+8][8j+c+1]
#define SUMS_8(i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define SUMS_32(i) SUMS_8(i), SUMS_8(i + 8), SUMS_8(i + 16), SUMS_8(i + 24)
#define REGISTERS_0 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define REGISTERS_1 \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define REGISTERS_2 \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define REGISTERS_3 \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

template <bool A_TURNED, bool B_TURNED>
DEV void wgmma_64x64(float (&d)[32], u64 a, u64 b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
               REGISTERS_0
               "}, %32, %33, 1, 1, 1, %34, %35;"
               : SUMS_32(0)
               : "l"(a), "l"(b), "n"((int)A_TURNED), "n"((int)B_TURNED)
               : "memory");
}

template <bool A_TURNED, bool B_TURNED>
DEV void wgmma_64x128(float (&d)[64], u64 a, u64 b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
               REGISTERS_0 ", " REGISTERS_1
               "}, %64, %65, 1, 1, 1, %66, %67;"
               : SUMS_32(0), SUMS_32(32)
               : "l"(a), "l"(b), "n"((int)A_TURNED), "n"((int)B_TURNED)
               : "memory");
}

template <bool A_TURNED, bool B_TURNED>
DEV void wgmma_64x192(float (&d)[96], u64 a, u64 b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {"
               REGISTERS_0 ", " REGISTERS_1 ", " REGISTERS_2
               "}, %96, %97, 1, 1, 1, %98, %99;"
               : SUMS_32(0), SUMS_32(32), SUMS_32(64)
               : "l"(a), "l"(b), "n"((int)A_TURNED), "n"((int)B_TURNED)
               : "memory");
}

template <bool A_TURNED, bool B_TURNED>
DEV void wgmma_64x256(float (&d)[128], u64 a, u64 b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
               REGISTERS_0 ", " REGISTERS_1 ", " REGISTERS_2 ", " REGISTERS_3
               "}, %128, %129, 1, 1, 1, %130, %131;"
               : SUMS_32(0), SUMS_32(32), SUMS_32(64), SUMS_32(96)
               : "l"(a), "l"(b), "n"((int)A_TURNED), "n"((int)B_TURNED)
               : "memory");
}

#undef SUMS_8
#undef SUMS_32
#undef REGISTERS_0
#undef REGISTERS_1
#undef REGISTERS_2
#undef REGISTERS_3

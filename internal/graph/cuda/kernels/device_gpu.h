// The GPU half of device.h: clang's builtins for nvptx64 and inline PTX, for compute capability 8.0 and later.
//
// Nothing here needs the CUDA toolkit. Warps are full: functions marked "whole warp" must be reached by all 32 lanes
// of a warp together, at the same place in the source.
#pragma once

#define KERNEL extern "C" __attribute__((global)) void
#define BOUNDS(threads, min_blocks) __attribute__((launch_bounds(threads, min_blocks)))
#define DEV __attribute__((device)) __attribute__((always_inline)) inline
#define SHARED __attribute__((shared))

// Addresses in global and shared memory. A cast from a generic pointer says which of the two it points to.
#define GLOBAL_MEMORY __attribute__((address_space(1)))
#define SHARED_MEMORY __attribute__((address_space(3)))

typedef u32 Words2 __attribute__((ext_vector_type(2)));
typedef u32 Words4 __attribute__((ext_vector_type(4)));

extern SHARED __attribute__((aligned(1024))) char dynamic_shared_memory[];

// dynamic_shared is the dynamic shared memory of the launch, aligned to 1024 bytes.
DEV char* dynamic_shared() { return dynamic_shared_memory; }

// Where this thread is. Blocks are one-dimensional, grids have three dimensions.
DEV u32 thread_x() { return __nvvm_read_ptx_sreg_tid_x(); }
DEV u32 block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEV u32 block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEV u32 block_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }
DEV u32 grid_x() { return __nvvm_read_ptx_sreg_nctaid_x(); }
DEV u32 grid_y() { return __nvvm_read_ptx_sreg_nctaid_y(); }
DEV u32 grid_z() { return __nvvm_read_ptx_sreg_nctaid_z(); }
DEV u32 block_threads() { return __nvvm_read_ptx_sreg_ntid_x(); }

// barrier waits for all threads of the block; what they wrote before it is visible to all of them after it.
DEV void barrier() { __syncthreads(); }

// warp_barrier is a barrier of the whole warp.
DEV void warp_barrier() { __nvvm_bar_warp_sync(0xffffffffu); }

// fence makes this thread's earlier writes to global memory visible to other blocks before its later ones.
DEV void fence() { __nvvm_membar_gl(); }

// atomic_add adds to an integer in global or shared memory and returns what was there before.
DEV int atomic_add(int* p, int v) { return __nvvm_atom_add_gen_i(p, v); }

// Values of other lanes; whole warp. shuffle_xor reads lane^mask, shuffle_down lane+delta (its own value where that
// is beyond lane 31), shuffle_from a given lane.
DEV u32 shuffle_xor(u32 v, int mask) { return (u32)__nvvm_shfl_sync_bfly_i32(0xffffffffu, (int)v, mask, 31); }
DEV float shuffle_xor(float v, int mask) { return __nvvm_shfl_sync_bfly_f32(0xffffffffu, v, mask, 31); }
DEV u32 shuffle_down(u32 v, int delta) { return (u32)__nvvm_shfl_sync_down_i32(0xffffffffu, (int)v, delta, 31); }
DEV float shuffle_down(float v, int delta) { return __nvvm_shfl_sync_down_f32(0xffffffffu, v, delta, 31); }
DEV u32 shuffle_from(u32 v, int lane) { return (u32)__nvvm_shfl_sync_idx_i32(0xffffffffu, (int)v, lane, 31); }
DEV float shuffle_from(float v, int lane) { return __nvvm_shfl_sync_idx_f32(0xffffffffu, v, lane, 31); }

// ballot is the set of lanes for which v holds, vote_all whether it holds for all; whole warp.
DEV u32 ballot(bool v) { return __nvvm_vote_ballot_sync(0xffffffffu, v); }
DEV int vote_all(bool v) { return __nvvm_vote_all_sync(0xffffffffu, v); }

// shared_address is the 32-bit address that PTX wants for a pointer to shared memory.
DEV u32 shared_address(const void* p) { return (u32)(u64)(const SHARED_MEMORY char*)p; }

// copy_async16 copies 16 bytes from global to shared memory, both aligned to 16, in the background and past the L1
// cache. bytes is 16, or 0 to write zeros and read nothing (global may then be any pointer). copy_async4 likewise
// copies 4 bytes, through the L1 cache.
DEV void copy_async16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"((const GLOBAL_MEMORY char*)global), "r"(bytes)
               : "memory");
}

DEV void copy_async4(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
               "l"((const GLOBAL_MEMORY char*)global), "r"(bytes)
               : "memory");
}

// copy_async_commit closes a group of the copies that this thread has started since the last one, which may be none.
DEV void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// copy_async_wait waits until at most N of this thread's groups are in flight, the latest ones. The data is then
// visible to this thread; to the others after a barrier.
template <int N>
DEV void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// load_matrix4 loads four 8x8 matrices of 16-bit elements from shared memory; whole warp. row is the address of one
// 16-byte row, aligned to 16: lane l gives row l%8 of matrix l/8. Lane l receives, in r[m], elements 2*(l%4) and
// 2*(l%4)+1 of row l/4 of matrix m, the first in the lower half. The transposed form gives elements of column l/4
// instead. load_matrix2 loads two matrices by the addresses of lanes 0..15; the other lanes' must be valid too.
DEV void load_matrix4(u32 r[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

DEV void load_matrix4_transposed(u32 r[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

DEV void load_matrix2(u32 r[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

DEV void load_matrix2_transposed(u32 r[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// mma_bf16 adds the product of a 16x16 and a 16x8 matrix of bf16 to a 16x8 matrix of float32; whole warp.
// With g = lane/4 and c = 2*(lane%4), pairs in one word along k, the lower k in the lower half:
//   a[0], a[1]: A[g][c..c+1], A[g+8][c..c+1]        a[2], a[3]: A[g][c+8..c+9], A[g+8][c+8..c+9]
//   b[0], b[1]: B[c..c+1][g], B[c+8..c+9][g]
//   d[0..3]:    D[g][c], D[g][c+1], D[g+8][c], D[g+8][c+1]
DEV void mma_bf16(float d[4], const u32 a[4], const u32 b[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// mma_tf32 adds the product of a 16x8 and an 8x8 matrix to a 16x8 matrix of float32; whole warp. Operands are float32
// rounded by to_tf32. With g = lane/4 and c = lane%4:
//   a[0..3]: A[g][c], A[g+8][c], A[g][c+4], A[g+8][c+4]        b[0], b[1]: B[c][g], B[c+4][g]        d as in mma_bf16
DEV void mma_tf32(float d[4], const u32 a[4], const u32 b[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// to_tf32 rounds to the 10 fraction bits of TF32, halves away from zero.
DEV u32 to_tf32(float v) {
  u32 r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
  return r;
}

// pack_bf16 rounds two floats to nearest even and packs them, low in the lower half. NaN becomes 0x7fff.
DEV u32 pack_bf16(float low, float high) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// round_bf16 rounds one float as pack_bf16 does.
DEV u16 round_bf16(float v) {
  u16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(v));
  return r;
}

DEV u32 as_bits(float v) { return __builtin_bit_cast(u32, v); }
DEV float as_float(u32 v) { return __builtin_bit_cast(float, v); }

// widen_bf16 is exact.
DEV float widen_bf16(u16 v) { return as_float((u32)v << 16); }

// The approximations of the special function unit; none flushes subnormal numbers. Errors as the PTX manual states
// them: exp2_approx 2 ulp, rcp_approx 1 ulp.
DEV float exp2_approx(float v) {
  float r;
  asm("ex2.approx.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}

DEV float rcp_approx(float v) {
  float r;
  asm("rcp.approx.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}

// sqrt_exact and div_exact round to nearest even, as IEEE 754 asks; fma does too, once.
DEV float sqrt_exact(float v) { return __nvvm_sqrt_rn_f(v); }
DEV float div_exact(float a, float b) { return __nvvm_div_rn_f(a, b); }
DEV float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// mul_hi is the upper half of the 64-bit product.
DEV u32 mul_hi(u32 a, u32 b) { return __nvvm_mulhi_ui(a, b); }

// One access of 16 or 8 bytes to global memory, aligned to as much.
DEV Vec4 load_global16(const void* p) {
  const Words4 v = *(const GLOBAL_MEMORY Words4*)p;
  return Vec4{v.x, v.y, v.z, v.w};
}

DEV void store_global16(void* p, Vec4 v) {
  *(GLOBAL_MEMORY Words4*)p = Words4{v.x, v.y, v.z, v.w};
}

DEV Vec2 load_global8(const void* p) {
  const Words2 v = *(const GLOBAL_MEMORY Words2*)p;
  return Vec2{v.x, v.y};
}

DEV void store_global8(void* p, Vec2 v) {
  *(GLOBAL_MEMORY Words2*)p = Words2{v.x, v.y};
}

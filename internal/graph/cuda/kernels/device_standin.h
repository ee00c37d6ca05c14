// The CPU half of device.h, for the test-only driver in ../standin: the same functions as device_gpu.h, which states
// their contracts. Those that need other threads, or shared or global memory, are part of the driver; they check what
// a GPU would leave undefined and end the process with a message where a kernel breaks a rule.
#pragma once

#ifdef LIST_KERNELS
#define KERNEL @kernel  // what ../standin/build.sh looks for
#else
#define KERNEL extern "C" __attribute__((noinline)) void
#endif
#define BOUNDS(threads, min_blocks)
#define DEV static inline  // but in the sources of kernels, see ../standin/kernel_source.h

// Each worker of the driver is an operating system thread that runs one block at a time, so what is local to a thread
// of the system is shared by a block.
#define SHARED static thread_local

// In the driver: blocks and threads (block.cc).
__attribute__((const)) u32 thread_x();
__attribute__((const)) u32 block_x();
__attribute__((const)) u32 block_y();
__attribute__((const)) u32 block_z();
__attribute__((const)) u32 grid_x();
__attribute__((const)) u32 grid_y();
__attribute__((const)) u32 grid_z();
__attribute__((const)) u32 block_threads();
void barrier();

// In the driver: warps (warp.cc, matrix.cc).
void warp_barrier();
u32 shuffle_xor(u32 v, int mask);
u32 shuffle_down(u32 v, int delta);
u32 shuffle_from(u32 v, int lane);
u32 ballot(bool v);
int vote_all(bool v);
void load_matrix4(u32 r[4], const void* row);
void load_matrix4_transposed(u32 r[4], const void* row);
void load_matrix2(u32 r[2], const void* row);
void load_matrix2_transposed(u32 r[2], const void* row);
void mma_bf16(float d[4], const u32 a[4], const u32 b[2]);
void mma_tf32(float d[4], const u32 a[4], const u32 b[2]);

// In the driver: memory (shared.cc, global.cc).
char* dynamic_shared();
void copy_async16(void* shared, const void* global, int bytes);
void copy_async4(void* shared, const void* global, int bytes);
void copy_async_commit();
void wait_for_copies(int in_flight);
int atomic_add(int* p, int v);
void fence();

// Vectors go to and from the driver in registers: the compiler does not report a load from shared memory that is an
// argument of a call, or a store there that is its result.
typedef u32 Words4 __attribute__((vector_size(16)));
Words4 read_global16(const void* p);
void write_global16(void* p, Words4 v);
u64 read_global8(const void* p);
void write_global8(void* p, u64 v);

DEV Vec4 load_global16(const void* p) {
  const Words4 v = read_global16(p);
  return Vec4{v[0], v[1], v[2], v[3]};
}

DEV void store_global16(void* p, Vec4 v) { write_global16(p, Words4{v.x, v.y, v.z, v.w}); }

DEV Vec2 load_global8(const void* p) {
  const u64 v = read_global8(p);
  return Vec2{(u32)v, (u32)(v >> 32)};
}

DEV void store_global8(void* p, Vec2 v) { write_global8(p, v.x | (u64)v.y << 32); }

template <int N>
DEV void copy_async_wait() {
  static_assert(N >= 0, "a number of groups");
  wait_for_copies(N);
}

DEV u32 as_bits(float v) { return __builtin_bit_cast(u32, v); }
DEV float as_float(u32 v) { return __builtin_bit_cast(float, v); }

DEV float shuffle_xor(float v, int mask) { return as_float(shuffle_xor(as_bits(v), mask)); }
DEV float shuffle_down(float v, int delta) { return as_float(shuffle_down(as_bits(v), delta)); }
DEV float shuffle_from(float v, int lane) { return as_float(shuffle_from(as_bits(v), lane)); }

// is_nan_bits reports whether a float32 with these bits is NaN.
DEV bool is_nan_bits(u32 bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }

DEV u32 to_tf32(float v) {
  const u32 bits = as_bits(v);
  if (is_nan_bits(bits)) {
    return 0x7fffffffu;
  }
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

DEV u16 round_bf16(float v) {
  const u32 bits = as_bits(v);
  return is_nan_bits(bits) ? (u16)0x7fff : (u16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

DEV u32 pack_bf16(float low, float high) { return (u32)round_bf16(low) | (u32)round_bf16(high) << 16; }
DEV float widen_bf16(u16 v) { return as_float((u32)v << 16); }

// Better than the approximations that they stand for, which no kernel may count on.
DEV float exp2_approx(float v) { return __builtin_exp2f(v); }
DEV float rcp_approx(float v) { return 1.0f / v; }

DEV float sqrt_exact(float v) { return __builtin_sqrtf(v); }
DEV float div_exact(float a, float b) { return a / b; }
DEV float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEV u32 mul_hi(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }

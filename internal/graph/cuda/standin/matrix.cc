// Matrix operations of a warp: loads of fragments from shared memory and products. device_gpu.h has the layouts.
#include <cstring>

#include "races.h"
#include "warp.h"

const u32 row_bytes = 16;  // of an 8x8 matrix of 16-bit elements

// element_pair is two elements of 16 bits, which lie at two addresses.
static inline u32 element_pair(const char* low, const char* high) {
  u16 elements[2];
  memcpy(&elements[0], low, sizeof elements[0]);
  memcpy(&elements[1], high, sizeof elements[1]);
  return elements[0] | (u32)elements[1] << 16;
}

static void load_matrices(u32* r, const void* row, u32 matrices, bool transposed) {
  Worker& w = this_worker();
  const u32 lane = w.current->index % warp_lanes;
  if ((uintptr_t)row % row_bytes) {
    die(w, "load_matrix of row %p, which is not aligned to 16 bytes", row);
  }
  if (lane < 8 * matrices) {
    check_shared(w, row, row_bytes, Access::read);
  }
  const Exchange& e = together(
      w, WarpOperation::load_matrix, [row](Exchange& e, u32 lane) { e.rows[lane] = (const char*)row; },
      [](Exchange&) {});
  const u32 i = lane / 4, k = lane % 4 * 2;
  for (u32 m = 0; m < matrices; m++) {
    const char* const* rows = e.rows + 8 * m;
    r[m] = transposed ? element_pair(rows[k] + 2 * i, rows[k + 1] + 2 * i)
                      : element_pair(rows[i] + 2 * k, rows[i] + 2 * k + 2);
  }
}

void load_matrix4(u32 r[4], const void* row) { load_matrices(r, row, 4, false); }
void load_matrix4_transposed(u32 r[4], const void* row) { load_matrices(r, row, 4, true); }
void load_matrix2(u32 r[2], const void* row) { load_matrices(r, row, 2, false); }
void load_matrix2_transposed(u32 r[2], const void* row) { load_matrices(r, row, 2, true); }

typedef u32 Words __attribute__((vector_size(32)));
typedef float Floats __attribute__((vector_size(32)));

// add_rows sets eight rows of the product to the sum over k of a[k][4*row] b[k], in the order of k. Each term is exact
// in float32, fused or not: a bf16 has 8 significant bits, a TF32 11.
template <int depth>
static inline __attribute__((always_inline)) void add_rows(float (*product)[8], const float* const a[depth],
                                                           const Floats b[depth]) {
  Floats sum[8] = {};
#pragma GCC unroll 16
  for (int k = 0; k < depth; k++) {
#pragma GCC unroll 8
    for (int row = 0; row < 8; row++) {
      sum[row] += a[k][4 * row] * b[k];
    }
  }
  memcpy(product, sum, sizeof sum);
}

static inline __attribute__((always_inline)) void multiply_bf16_anywhere(Exchange& e) {
  // Each word holds two elements along k, which are split.
  alignas(32) float a[2][4][warp_lanes];  // by parity of k, word, lane
  for (int word = 0; word < 4; word++) {
    for (int lane = 0; lane < warp_lanes; lane += 8) {
      Words pairs;
      memcpy(&pairs, &e.a[word][lane], sizeof pairs);
      const Words even = pairs << 16;
      const Words odd = pairs & 0xffff0000u;
      memcpy(&a[0][word][lane], &even, sizeof even);
      memcpy(&a[1][word][lane], &odd, sizeof odd);
    }
  }
  Floats b[16];
  const float* upper[16];
  const float* lower[16];
#pragma GCC unroll 16
  for (int k = 0; k < 16; k++) {
    Words pairs;
    memcpy(&pairs, e.b[k / 8][k % 8 / 2], sizeof pairs);
    b[k] = (Floats)(k % 2 ? pairs & 0xffff0000u : pairs << 16);
    upper[k] = &a[k % 2][k / 8 * 2][k % 8 / 2];
    lower[k] = &a[k % 2][k / 8 * 2 + 1][k % 8 / 2];
  }
  add_rows<16>(e.product, upper, b);
  add_rows<16>(e.product + 8, lower, b);
}

static inline __attribute__((always_inline)) void multiply_tf32_anywhere(Exchange& e) {
  Floats b[8];
  const float* upper[8];
  const float* lower[8];
#pragma GCC unroll 8
  for (int k = 0; k < 8; k++) {
    memcpy(&b[k], e.b[k / 4][k % 4], sizeof b[k]);
    upper[k] = (const float*)&e.a[k / 4 * 2][k % 4];
    lower[k] = (const float*)&e.a[k / 4 * 2 + 1][k % 4];
  }
  add_rows<8>(e.product, upper, b);
  add_rows<8>(e.product + 8, lower, b);
}

// The same for processors with wider vectors; the results are equal.
#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void multiply_bf16_avx2(Exchange& e) { multiply_bf16_anywhere(e); }
__attribute__((target("avx2,fma"))) static void multiply_tf32_avx2(Exchange& e) { multiply_tf32_anywhere(e); }
static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
static void multiply_bf16_avx2(Exchange&) {}
static void multiply_tf32_avx2(Exchange&) {}
static const bool has_avx2 = false;
#endif

static void multiply_bf16(Exchange& e) {
  if (has_avx2) {
    multiply_bf16_avx2(e);
  } else {
    multiply_bf16_anywhere(e);
  }
}

static void multiply_tf32(Exchange& e) {
  if (has_avx2) {
    multiply_tf32_avx2(e);
  } else {
    multiply_tf32_anywhere(e);
  }
}

// check_rounded ends the process unless operands have zeros below the 10 fraction bits of TF32. Any NaN will do, as it
// shows in the result. All are looked at together first, which is fast.
static void check_rounded(const Worker& w, const u32* operands, u32 count, char name) {
  const u32 low_bits = 0x1fff;
  u32 all = 0;
  for (u32 i = 0; i < count; i++) {
    all |= operands[i];
  }
  if (!(all & low_bits)) {
    return;
  }
  for (u32 i = 0; i < count; i++) {
    if ((operands[i] & low_bits) && !is_nan_bits(operands[i])) {
      die(w, "mma_tf32: an operand %c of the warp, 0x%08x = %g, is not rounded by to_tf32", name, operands[i],
          (double)as_float(operands[i]));
    }
  }
}

template <class Multiply>
static inline void multiply(Worker& w, WarpOperation operation, float d[4], const u32 a[4], const u32 b[2],
                            Multiply run) {
  const Exchange& e = together(
      w, operation,
      [a, b](Exchange& e, u32 lane) {
        for (int i = 0; i < 4; i++) {
          e.a[i][lane] = a[i];
        }
        for (int i = 0; i < 2; i++) {
          e.b[i][lane % 4][lane / 4] = b[i];
        }
      },
      run);
  const u32 lane = w.current->index % warp_lanes;
  const u32 row = lane / 4, column = lane % 4 * 2;
  d[0] += e.product[row][column];
  d[1] += e.product[row][column + 1];
  d[2] += e.product[row + 8][column];
  d[3] += e.product[row + 8][column + 1];
}

void mma_bf16(float d[4], const u32 a[4], const u32 b[2]) {
  multiply(this_worker(), WarpOperation::mma_bf16, d, a, b, [](Exchange& e) { multiply_bf16(e); });
}

void mma_tf32(float d[4], const u32 a[4], const u32 b[2]) {
  Worker& w = this_worker();
  multiply(w, WarpOperation::mma_tf32, d, a, b, [&w](Exchange& e) {
    check_rounded(w, &e.a[0][0], sizeof e.a / sizeof(u32), 'a');
    check_rounded(w, &e.b[0][0][0], sizeof e.b / sizeof(u32), 'b');
    multiply_tf32(e);
  });
}

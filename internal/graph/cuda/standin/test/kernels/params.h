// Parameters of the kernels that test the stand-in; the test program fills them in.
#pragma once

#include "device.h"

struct IndexParams {
  u32* out;  // [blocks][threads][8]
};

struct SumParams {
  const float* x;  // [blocks][block_threads()]
  float* y;        // [blocks]
};

struct LaneParams {
  u32* out;  // [32][6]
};

struct CopyParams {
  const char* x;  // [n]
  char* y;        // [n], blocks of 1024 bytes
  i64 n;          // bytes; a multiple of 4
};

struct GemmParams {
  const void* a;  // [m][k]
  const void* b;  // [n][k], of gemm_bf16_kn [k][n]
  float* c;       // [m][n]
  int m, n, k;    // multiples of the tile: 64, 64, 32 (bf16) or 16 (tf32)
};

struct TicketParams {
  const float* x;  // [blocks][32]
  float* partial;  // [blocks]
  float* y;        // [1]
  int* ticket;     // 0 before and after
};

struct ValueParams {
  const float* x;  // [n]
  float* y;        // [n]
  int n;
  float factor;
};

struct FaultParams {
  int fault;
  float* x;  // [256]
  int* ticket;
};

// Faults that the kernel fault commits.
enum Fault {
  none,
  missing_barrier,
  missing_barrier_after_read,
  missing_warp_barrier,
  missing_wait,
  missing_wait_with_barrier,
  missing_barrier_after_wait,
  barrier_in_branch,
  diverged_warp,
  ended_lane,
  partial_warp,
  unrounded_operand,
  misaligned_row,
  misaligned_copy,
  misaligned_vector,
  misaligned_cast,
  misaligned_shared,
  global_past_end,
  global_before_start,
  global_past_end_vector,
  global_past_end_copy,
  null_pointer,
  dynamic_past_end,
  dynamic_past_end_row,
  static_past_end,
  static_far_past_end,
  division_by_zero,
  copy_to_global,
  copy_of_eight_bytes,
  bad_shuffle,
  stack_overflow,
  block_race,
  missing_fence,
  thread_race_in_global,
  fault_count,
};

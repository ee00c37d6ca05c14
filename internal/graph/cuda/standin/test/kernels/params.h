// Parameters of the kernels that test the stand-in; the test program fills them in.
#pragma once

#include "hopper.h"

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

// Of the kernels for sm_90a.

struct BoxTable {
  TensorMap map;
};

struct BoxParams {
  const BoxTable* table;
  char* y;      // [bytes]
  int rank;
  int bytes;    // of the box, a multiple of 16
  int at[5];    // its first element
};

struct WgmmaTable {
  TensorMap a, b;
};

struct WgmmaParams {
  const WgmmaTable* table;  // boxes of a are 64 x 64, of b 64 of k by all of n or, turned, 64 of n by 64 of k
  float* c;                 // [m][n]
  int m, k;                 // multiples of 128 and 64
};

struct OverlapParams {
  const WgmmaTable* table;  // a is [64][64], b [80][64]
  float* c;                 // [64][192]
};

struct HopperFaultTable {
  TensorMap map;       // of bf16 [rows][64], a box of 64 x 64
  TensorMap nothing;   // zeros
  TensorMap too_long;  // says that it has more rows than there are
};

struct HopperFaultParams {
  int fault;
  const HopperFaultTable* table;
  float* y;
  int* told;  // 0
};

// Faults that the kernel hopper_fault commits.
enum HopperFault {
  hopper_none,
  no_wait_for_copy,
  wait_of_other_warp,
  copy_over_copy,
  copy_over_unfenced,
  copy_over_read,
  product_of_copy_in_flight,
  product_of_unfenced,
  product_of_unordered,
  write_during_product,
  copy_during_product,
  too_few_bytes,
  too_many_bytes,
  too_many_arrivals,
  no_init_barrier,
  no_init_fence,
  init_twice,
  no_mbarrier,
  mbarrier_overwritten,
  copy_over_mbarrier,
  misaligned_box,
  misaligned_map,
  no_map,
  other_rank,
  copy_past_shared,
  copy_past_global,
  copy_never_waited,
  other_descriptor,
  other_argument,
  no_descriptor,
  descriptor_in_row,
  descriptor_stride,
  product_past_shared,
  no_wgmma_fence,
  no_wgmma_wait,
  commits_differ,
  named_barrier_of_part,
  named_barrier_of_others,
  named_barrier_deadlock,
  take_without_give,
  take_less,
  give_more,
  unordered_warps,
  misaligned_shared16,
  shared16_past_end,
  hopper_fault_count,
};

// fault commits one of the faults that the stand-in has to notice. Launch: 256 bytes of dynamic shared memory, 1 block
// of 64 threads unless the test says otherwise.
#include "numeric.h"
#include "params.h"

// deep uses much of the stack; it recurses so that the compiler cannot lay it out in advance.
DEV float deep(int depth, const float* x) {
  volatile float local[1024];
  for (int i = 0; i < 1024; i++) {
    local[i] = x[i % 4] + (float)depth;
  }
  return depth == 0 ? local[7] : deep(depth - 1, x) + local[depth % 1024];
}

DEV void commit(const FaultParams& p) {
  SHARED __attribute__((aligned(16))) float a[64];
  SHARED __attribute__((aligned(16))) float last[4];
  const u32 t = thread_x();
  float* dynamic = (float*)dynamic_shared();
  float r = 0;
  u32 words[4] = {as_bits(1.0f), 0, 0, 0};
  float sum[4] = {};
  a[t % 64] = (float)t;
  if (t < 4) {
    last[t] = 0;
  }
  barrier();
  switch (p.fault) {
    case missing_barrier:
      a[t] = 1;
      r = a[63 - t];
      break;
    case missing_barrier_after_read:
      r = a[63 - t];
      a[t] = 1;
      break;
    case missing_warp_barrier:
      a[t] = 1;
      shuffle_xor(t, 1);  // orders nothing
      r = a[t ^ 1];
      break;
    case missing_wait:
      copy_async4(dynamic + t, p.x + t, 4);
      copy_async_commit();
      r = dynamic[t];
      break;
    case missing_wait_with_barrier:
      copy_async4(dynamic + t, p.x + t, 4);
      copy_async_commit();
      copy_async_wait<1>();
      barrier();
      r = dynamic[63 - t];
      break;
    case missing_barrier_after_wait:
      copy_async4(dynamic + t, p.x + t, 4);
      copy_async_commit();
      copy_async_wait<0>();
      r = dynamic[63 - t];
      break;
    case barrier_in_branch:
      if (t < 32) {
        barrier();
      } else {
        warp_barrier();
        r = shuffle_xor(r, 1);
        while (true) {
          if (t % 2) {
            warp_barrier();
          } else {
            barrier();
          }
        }
      }
      break;
    case diverged_warp:
      r = t % 2 ? shuffle_xor(r, 1) : (float)ballot(true);
      break;
    case ended_lane:
      if (t == 5) {
        return;
      }
      r = shuffle_xor(r, 1);
      break;
    case partial_warp:
      r = shuffle_xor(r, 1);
      break;
    case unrounded_operand:
      words[2] = as_bits(1.0001f);
      mma_tf32(sum, words, words);
      break;
    case misaligned_row:
      load_matrix4(words, (char*)a + t % 2 * 8);
      break;
    case misaligned_copy:
      copy_async16(dynamic, p.x + 1, 16);
      break;
    case misaligned_vector:
      r = as_float(load_global16(p.x + 2).x);
      break;
    case misaligned_cast:
      r = as_float(((const Vec2*)(p.x + 1))->x);
      break;
    case misaligned_shared: {
      const Vec4 v = *(const Vec4*)(a + 1);
      r = as_float(v.x) + as_float(v.w);
      break;
    }
    case global_past_end:
      r = p.x[t == 63 ? 256 : t];
      break;
    case global_before_start:
      p.x[t == 0 ? -1 : (int)t] = 1;
      break;
    case global_past_end_vector:
      r = as_float(load_global16(p.x + (t == 63 ? 256 : 0)).x);
      break;
    case global_past_end_copy:
      copy_async4(dynamic + t, p.x + (t == 63 ? 256 : 0), 4);
      break;
    case null_pointer:
      r = *(const float*)(u64)(p.fault - null_pointer);
      break;
    case dynamic_past_end:
      dynamic[t + 1] = 1;
      break;
    case dynamic_past_end_row:
      load_matrix2(words, dynamic + (t % 32 == 15 ? 64 : 0));
      break;
    case static_past_end:
      r = last[t / 16 + 1];
      break;
    case static_far_past_end:
      r = (last + t / 16 * 100000)[t % 4];
      break;
    case division_by_zero:
      r = (float)(p.fault / ((int)t / 64));
      break;
    case copy_to_global:
      copy_async4(p.x + t, p.x + t, 4);
      break;
    case copy_of_eight_bytes:
      copy_async16(dynamic + t / 4 * 4, p.x, 8);
      break;
    case bad_shuffle:
      r = shuffle_from(r, 32);
      break;
    case stack_overflow:
      r = deep(p.fault, p.x);
      break;
    case block_race:
      p.x[t] = (float)block_x();
      break;
    case missing_fence:
      if (t == 0) {
        p.x[block_x()] = 1;
        if (atomic_add(p.ticket, 1) == (int)grid_x() - 1) {
          fence();
          for (u32 i = 0; i < grid_x(); i++) {
            r += p.x[i];
          }
        }
      }
      break;
    case thread_race_in_global:
      p.x[t] = 1;
      r = p.x[63 - t];
      break;
    default:
      break;
  }
  if (r == 1234567.0f) {
    p.x[0] = r + as_float(words[0]) + sum[0];
  }
}

KERNEL BOUNDS(64, 1) fault(FaultParams p) { commit(p); }

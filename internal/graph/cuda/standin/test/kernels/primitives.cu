// One kernel for each group of primitives; ../driver_test.cc knows what they shall compute.
#include "numeric.h"
#include "params.h"

// indices writes what a thread knows about itself.
KERNEL BOUNDS(256, 1) indices(IndexParams p) {
  const i64 block = block_x() + (i64)grid_x() * (block_y() + (i64)grid_y() * block_z());
  u32* out = p.out + (block * block_threads() + thread_x()) * 8;
  const u32 v[8] = {thread_x(), block_x(), block_y(), block_z(), grid_x(), grid_y(), grid_z(), block_threads()};
  for (int i = 0; i < 8; i++) {
    out[i] = v[i];
  }
}

// block_sums adds one value a thread: in warps by shuffles, between warps through shared memory.
KERNEL BOUNDS(256, 1) block_sums(SumParams p) {
  SHARED float parts[8];
  const u32 t = thread_x();
  float sum = p.x[(i64)block_x() * block_threads() + t];
  for (int mask = 16; mask > 0; mask /= 2) {
    sum += shuffle_xor(sum, mask);
  }
  if (t % 32 == 0) {
    parts[t / 32] = sum;
  }
  barrier();
  if (t == 0) {
    sum = 0;
    for (u32 i = 0; i < block_threads() / 32; i++) {
      sum += parts[i];
    }
    p.y[block_x()] = sum;
  }
}

// lanes tries the operations of a warp.
KERNEL BOUNDS(32, 1) lanes(LaneParams p) {
  SHARED u32 turn[32];
  const u32 lane = thread_x();
  u32* out = p.out + lane * 6;
  out[0] = shuffle_xor(100 + lane, 5);
  out[1] = shuffle_down(100 + lane, 3);
  out[2] = shuffle_from(100 + lane, (int)(lane * 7 % 32));
  out[3] = ballot(lane % 3 == 0);
  out[4] = (u32)(vote_all(lane < 32) + 2 * vote_all(lane < 31));
  turn[lane] = lane * lane;
  warp_barrier();
  out[5] = turn[31 - lane];
}

// copy_pipeline moves bytes through two buffers of shared memory, one copy ahead, and writes zeros past the end of x.
KERNEL BOUNDS(64, 1) copy_pipeline(CopyParams p) {
  char* buffer = dynamic_shared();
  const u32 t = thread_x();
  const i64 steps = (p.n + 1023) / 1024;
  for (i64 step = 0; step <= steps; step++) {
    if (step < steps) {
      const i64 at = step * 1024 + t * 16;
      char* to = buffer + step % 2 * 1024 + t * 16;
      if (at + 16 <= p.n || at >= p.n) {
        copy_async16(to, at < p.n ? p.x + at : nullptr, at < p.n ? 16 : 0);
      } else {
        for (int i = 0; i < 16; i += 4) {
          copy_async4(to + i, p.x + at + i, at + i < p.n ? 4 : 0);
        }
      }
    }
    copy_async_commit();
    if (step == 0) {
      continue;
    }
    copy_async_wait<1>();
    barrier();
    // Another thread's part, so that the barriers matter.
    const u32 other = 63 - t;
    store_global16(p.y + (step - 1) * 1024 + other * 16, *(const Vec4*)(buffer + (step - 1) % 2 * 1024 + other * 16));
    barrier();
  }
}

// scale is an elementwise kernel.
KERNEL BOUNDS(128, 1) scale(ValueParams p) {
  const int i = (int)(block_x() * block_threads() + thread_x());
  if (i < p.n) {
    p.y[i] = p.factor * p.x[i];
  }
}

// ticket_sum adds up x; the block that comes last adds up the sums of all.
KERNEL BOUNDS(32, 1) ticket_sum(TicketParams p) {
  SHARED int last;
  const u32 t = thread_x();
  float sum = p.x[block_x() * 32 + t];
  for (int mask = 16; mask > 0; mask /= 2) {
    sum += shuffle_xor(sum, mask);
  }
  if (t == 0) {
    p.partial[block_x()] = sum;
    fence();
    last = atomic_add(p.ticket, 1) == (int)grid_x() - 1;
    fence();
  }
  barrier();
  if (!last) {
    return;
  }
  sum = 0;
  for (u32 i = t; i < grid_x(); i += 32) {
    sum += p.partial[i];
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    sum += shuffle_xor(sum, mask);
  }
  if (t == 0) {
    *p.y = sum;
    *p.ticket = 0;
  }
}

// conversions checks arithmetic against results that ../driver_test.cc computes.
KERNEL BOUNDS(32, 1) conversions(ValueParams p) {
  const int i = (int)thread_x();
  const float v = p.x[i];
  float* y = p.y + i * 4;
  y[0] = widen_bf16(round_bf16(v));
  y[1] = upper_half(pack_bf16(0, v));
  y[2] = as_float(to_tf32(v));
  y[3] = (float)mul_hi(as_bits(v), 0x10000u);
}

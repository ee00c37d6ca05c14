// Sums over the threads of a block, in an order that the number of threads alone fixes.
#pragma once

#include "device.h"

// lanes_sum is the sum over each LANES neighbouring lanes, a power of 2, in every one of them; whole warp.
template <int LANES>
DEV float lanes_sum(float v) {
#pragma unroll
  for (int mask = LANES / 2; mask > 0; mask /= 2) {
    v += shuffle_xor(v, mask);
  }
  return v;
}

// block_sum is the sum over a block of THREADS threads, in thread 0; all threads. shared is not used again before a
// barrier.
template <int THREADS>
DEV float block_sum(float v, float shared[THREADS / 32]) {
  const int thread = thread_x();
  v = lanes_sum<32>(v);
  if (thread % 32 == 0) {
    shared[thread / 32] = v;
  }
  barrier();
  if (thread == 0) {
    for (int warp = 1; warp < THREADS / 32; warp++) {
      v += shared[warp];
    }
  }
  return v;
}

// fold_rows folds N values of each thread over the rows of a block whose thread row*lanes + lane has row and lane:
// row 0 ends with what fold.add(mine, others) made of all, in a tree that rows alone fix. All threads of the block
// call it, also those beyond the last row; lanes*rows is at most THREADS. shared may be used again after a barrier.
template <int N, int THREADS, class Fold>
DEV void fold_rows(float (&v)[N], float (&shared)[N][THREADS], int row, int rows, int lanes, Fold fold) {
  const int thread = thread_x();
  int half = 1;
  while (2 * half < rows) {
    half *= 2;
  }
  for (; half > 0; half /= 2) {
    if (row >= half && row < 2 * half) {
#pragma unroll
      for (int i = 0; i < N; i++) {
        shared[i][thread] = v[i];
      }
    }
    barrier();
    if (row < half && row + half < rows) {
      float others[N];
#pragma unroll
      for (int i = 0; i < N; i++) {
        others[i] = shared[i][thread + half * lanes];
      }
      fold.add(v, others);
    }
  }
}

// Sums folds by adding.
template <int N>
struct Sums {
  DEV void add(float (&v)[N], const float (&others)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      v[i] += others[i];
    }
  }
};

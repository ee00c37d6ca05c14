// The main loop of a product of matrices, and what becomes of its sums.
//
// The tiles of a step (tile.h) are brought some steps before their use (operand.h), into a ring of stages in shared
// memory. A step is:
//
//   1. fetch the tiles of the step that is stages - 1 ahead, into the stage that the step before this one has left
//   2. multiply every block of k but the last, each while the fragments of the next one are loaded
//   3. wait until the next step's tiles are there; barrier: from here on all threads may read them, and none reads
//      this step's any more
//   4. load the next step's first fragments and multiply the last block
//
// so that there is one barrier a step, and tensor cores have work when it is reached.
//
// Every sum has one order, that of k. Where a product has few tiles but many steps, several blocks share the steps of
// a tile; each leaves its sums in memory, and conv_sum_shares adds them in the order of k (conv_shares.cu).
//
// All kernels of products are launched with S::threads threads and, as dynamic shared memory, the stages, which also
// hold a tile's sums in the end: stages * depth * 16 * (m + n) bytes, at least 4 * m * n.
#pragma once

#include "operand.h"

// Block is how a block of threads computes a tile: WARPS_M x WARPS_N warps, each with M x N fragments. A step is DEPTH
// chunks of k.
template <class P, int WARPS_M, int WARPS_N, int M, int N, int DEPTH, int STAGES>
struct Block {
  typedef P Precision;
  static constexpr int threads = 32 * WARPS_M * WARPS_N;
  static constexpr int warps_n = WARPS_N;
  static constexpr int fragments_m = M;
  static constexpr int fragments_n = N;
  static constexpr int m = WARPS_M * M * 16;
  static constexpr int n = WARPS_N * N * 8;
  static constexpr int k = DEPTH * P::chunk;
  static constexpr int blocks = DEPTH / 2;  // of k, in a step
  static constexpr int stages = STAGES;
  static_assert(STAGES * DEPTH * 16 * (m + n) >= 4 * m * n, "the sums fit where the stages were");
  typedef Tile<P, m, DEPTH, true> AlongM;
  typedef Tile<P, n, DEPTH, true> AlongN;
  typedef Tile<P, k, m / P::chunk, false> AcrossM;
  typedef Tile<P, k, n / P::chunk, false> AcrossN;
};

// The blocks there are, by the extents of their tiles; BlockAny is that of kernels that load through registers. The
// launcher knows their extents, steps, threads and shared memory too (../matmul.go).
template <class P>
using Block128x128 = Block<P, 2, 2, 4, 8, 4, 4>;
template <class P>
using Block128x64 = Block<P, 2, 2, 4, 4, 4, 4>;
template <class P>
using Block64x64 = Block<P, 2, 2, 2, 4, 8, 3>;
template <class P>
using Block128x8 = Block<P, 4, 1, 2, 1, 8, 3>;
template <class P>
using BlockAny = Block<P, 2, 4, 2, 2, 8, 2>;

// warp_m and warp_n are the row and column of the tile where a warp's part begins.
template <class S>
DEV u32 warp_m() {
  return thread_x() / 32 / S::warps_n * (S::fragments_m * 16);
}

template <class S>
DEV u32 warp_n() {
  return thread_x() / 32 % S::warps_n * (S::fragments_n * 8);
}

// accumulate computes a tile's sums over so many steps, 0 or more, by tiles A and B that loaders bring.
template <class S, class A, class B, class LoaderA, class LoaderB>
DEV void accumulate(Sums<S::fragments_m, S::fragments_n>& sums, LoaderA& a, LoaderB& b, int steps) {
  constexpr int stage = A::bytes + B::bytes;
  char* memory = dynamic_shared();
#pragma unroll
  for (int i = 0; i < S::fragments_m; i++) {
#pragma unroll
    for (int j = 0; j < S::fragments_n; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        sums.d[i][j][e] = 0;
      }
    }
  }
  if (steps <= 0) {
    return;
  }
#pragma unroll 1
  for (int i = 0; i < S::stages - 1; i++) {
    if (i < steps) {
      fetch(a, memory + i * stage);
      fetch(b, memory + i * stage + A::bytes);
      deposit(a, memory + i * stage);
      deposit(b, memory + i * stage + A::bytes);
    }
    copy_async_commit();
  }
  copy_async_wait<S::stages - 2>();
  barrier();
  const u32 m = warp_m<S>();
  const u32 n = warp_n<S>();
  Fragments<S::fragments_m, S::fragments_n> fragments[2];
  load_fragments<A, B>(fragments[0], memory, memory + A::bytes, m, n, 0);
  char* read = memory;
  char* write = memory + (S::stages - 1) * stage;
  for (int step = 0; step < steps; step++) {
    const bool more = step + S::stages - 1 < steps;
#pragma unroll
    for (int block = 0; block < S::blocks; block++) {
      if (block == 0 && more) {
        fetch(a, write);
        fetch(b, write + A::bytes);
      }
      if (block == S::blocks - 1) {
        if (more) {
          deposit(a, write);
          deposit(b, write + A::bytes);
        }
        copy_async_commit();
        copy_async_wait<S::stages - 2>();
        barrier();
        write = read;
        read = read == memory + (S::stages - 1) * stage ? memory : read + stage;
      }
      // After the last step these are of no use, and of whatever was in the next stage.
      load_fragments<A, B>(fragments[(block + 1) % 2], read, read + A::bytes, m, n, (block + 1) % S::blocks);
      multiply(typename S::Precision(), sums, fragments[block % 2]);
    }
  }
  barrier();
}

// ConvResult is the matrix [rows][columns] that a product goes to, and what is added to it.
struct ConvResult {
  void* y;
  const float* bias;        // [columns], or null
  const float* per_sample;  // [samples][columns], or null
  const void* residual;     // [rows][columns], may be y; or null
  i64 rows;
  int columns;
  int y_bf16;
  int residual_bf16;
  int in_pieces;          // whether every 8 columns of all of these begin at a multiple of 16 bytes
  FastDivisor by_sample;  // rows of a sample
};

// ConvShares is where blocks leave the sums of their shares of the steps, if there is more than one.
struct ConvShares {
  float* sums;  // [count][rows][columns]
  int count;
  int steps;  // of a share; the last may have fewer
};

// share_of is where a share's sums go instead: a result of its own to which nothing is added.
DEV ConvResult share_of(const ConvResult& whole, const ConvShares& shares, int share) {
  ConvResult part = whole;
  if (shares.count > 1) {
    part.y = shares.sums + share * whole.rows * whole.columns;
    part.y_bf16 = 0;
    part.bias = nullptr;
    part.per_sample = nullptr;
    part.residual = nullptr;
  }
  return part;
}

// share_steps is how many of a product's steps a share has.
DEV int share_steps(const ConvShares& shares, int share, int steps) {
  const int left = steps - share * shares.steps;
  return left < shares.steps ? left : shares.steps;
}

// add_piece adds 8 elements of an array, which begin at a multiple of 16 bytes.
DEV void add_piece(float (&v)[8], const void* data, i64 at, int bf16) {
  float more[8];
  load8(data, at, bf16, more);
#pragma unroll
  for (int e = 0; e < 8; e++) {
    v[e] += more[e];
  }
}

// add_addends adds what 8 columns of a row get beside the sums, the bias aside; pieces only.
DEV void add_addends(const ConvResult& result, i64 row, u32 column, float (&v)[8]) {
  if (result.per_sample) {
    add_piece(v, result.per_sample, (i64)divide((u32)row, result.by_sample) * result.columns + column, 0);
  }
  if (result.residual) {
    add_piece(v, result.residual, row * result.columns + column, result.residual_bf16);
  }
}

// store_element adds what one sum gets, and stores it.
DEV void store_element(const ConvResult& result, i64 row, u32 column, float sum) {
  const i64 at = row * result.columns + column;
  if (result.bias) {
    sum += result.bias[column];
  }
  if (result.per_sample) {
    sum += result.per_sample[(i64)divide((u32)row, result.by_sample) * result.columns + column];
  }
  if (result.residual) {
    sum += load_any(result.residual, at, result.residual_bf16);
  }
  store_any(result.y, at, sum, result.y_bf16);
}

// piece_offset is where 8 columns of a warp's sums lie in shared memory, of rows of so many such pieces: in an order
// that keeps the rows that are written together in different banks.
DEV u32 piece_offset(u32 row, u32 piece, u32 pieces) {
  const u32 pattern = pieces < 4 ? row / (4 / pieces) : row;
  return (row * pieces + (piece ^ (pattern % pieces))) * 8;
}

// store_sums stores a tile whose first element is (m, n) of the product. Each warp passes its sums through shared
// memory, so that a thread gets 8 columns of a row, and adds and stores these at once. result_row(rows, m) is the row
// of the result for row m of the product, or -1 if there is none.
template <class S, class Rows>
DEV void store_sums(const Sums<S::fragments_m, S::fragments_n>& sums, const ConvResult& result, const Rows& rows,
                    u32 m, u32 n) {
  constexpr u32 pieces = S::fragments_n;  // of a row
  constexpr u32 height = S::fragments_m * 16;
  constexpr u32 stride = 32 / pieces;  // rows that the warp stores at a time
  constexpr u32 times = height / stride;
  constexpr u32 together = times < 4 ? times : 4;  // of these, how many read what they add before the first stores
  static_assert(times % together == 0 && times * stride == height, "a warp stores all of its rows");
  const u32 lane = thread_x() % 32;
  float* passed = (float*)dynamic_shared() + thread_x() / 32 * (height * pieces * 8);
#pragma unroll
  for (int i = 0; i < S::fragments_m; i++) {
#pragma unroll
    for (int j = 0; j < S::fragments_n; j++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float* to = passed + piece_offset(16 * i + 8 * half + lane / 4, j, pieces) + lane % 4 * 2;
        *(Vec2*)to = Vec2{as_bits(sums.d[i][j][2 * half]), as_bits(sums.d[i][j][2 * half + 1])};
      }
    }
  }
  warp_barrier();
  const u32 piece = lane % pieces;
  const u32 column = n + warp_n<S>() + piece * 8;
  if (column >= (u32)result.columns) {
    return;
  }
  m += warp_m<S>();
  if (!result.in_pieces) {
#pragma unroll 1
    for (u32 row = lane / pieces; row < height; row += stride) {
      const float* from = passed + piece_offset(row, piece, pieces);
      const i64 to = result_row(rows, m + row);
#pragma unroll 1
      for (u32 e = 0; to >= 0 && e < 8 && column + e < (u32)result.columns; e++) {
        store_element(result, to, column + e, from[e]);
      }
    }
    return;
  }
  float bias[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  if (result.bias) {
    load8(result.bias, column, 0, bias);
  }
#pragma unroll 1
  for (u32 first = lane / pieces; first < height; first += together * stride) {
    i64 to[together];
    float v[together][8];
#pragma unroll
    for (u32 i = 0; i < together; i++) {
      to[i] = result_row(rows, m + first + i * stride);
#pragma unroll
      for (int e = 0; e < 8; e++) {
        v[i][e] = bias[e];
      }
      if (to[i] >= 0) {
        add_addends(result, to[i], column, v[i]);
      }
    }
#pragma unroll
    for (u32 i = 0; i < together; i++) {
      const Vec4* from = (const Vec4*)(passed + piece_offset(first + i * stride, piece, pieces));
      const Vec4 low = from[0];
      const Vec4 high = from[1];
      const u32 sum[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int e = 0; e < 8; e++) {
        v[i][e] += as_float(sum[e]);
      }
      if (to[i] >= 0) {
        store8(result.y, to[i] * result.columns + column, result.y_bf16, v[i]);
      }
    }
  }
}

// SameRows is a result with a row for each row of the product.
struct SameRows {
  i64 count;
};

DEV i64 result_row(const SameRows& rows, u32 m) { return m < rows.count ? (i64)m : -1; }

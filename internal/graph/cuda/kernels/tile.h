// Tiles of matrices in shared memory, and their products on tensor cores.
//
// A block computes one tile of D[m][n] = sum over k of A[m][k] B[k][n]. It walks along k in steps; in each, a tile of
// A and one of B lie in shared memory. A warp takes its part of them into registers as fragments, a block of k at a
// time, and multiplies.
//
// A tile is lines of chunks of 16 bytes. Its lines lie as in global memory, so that whole chunks are copied: along k
// where memory holds values of successive k side by side (a line for each m or n), otherwise across k (a line for
// each k). Tensor cores want pairs of bfloat16 that are neighbours in k. Along k that is how they lie; across k,
// ldmatrix transposes. It moves 16-bit elements, so fragments of float32 across k are read word by word.
//
// Where threads read one fragment together, they read the same chunk of 8 lines, or two chunks of 4 lines. So that
// these lie in different banks, a chunk's place in its line is its number XOR a pattern of the line (chunk_offset).
//
// There are three precisions of operands; sums are float32 in all.
//
//   Bf16   bfloat16.
//   Tf32   float32, rounded to TF32 as it is multiplied.
//   Fp32   float32 as the sum of two TF32 numbers, high and low, of which three products are formed; low*low is below
//          float32's rounding (Ootomo & Yokota, "Recovering single precision accuracy from Tensor Cores while
//          surpassing the FP32 theoretical peak performance", 2022). Tensor cores truncate their sums, so only the
//          products of one block of k are summed there, and added to the others by an ordinary addition.
#pragma once

#include "device.h"

// The precisions. chunk is how many elements 16 bytes hold; tensor cores multiply two chunks of k at a time.
struct Bf16 {
  static constexpr int chunk = 8;
};

struct Tf32 {
  static constexpr int chunk = 4;
};

struct Fp32 {
  static constexpr int chunk = 4;
};

// pack_chunk makes 16 bytes of a tile from float32 values.
DEV Vec4 pack_chunk(const float (&v)[8]) {
  return Vec4{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
}

DEV Vec4 pack_chunk(const float (&v)[4]) { return Vec4{as_bits(v[0]), as_bits(v[1]), as_bits(v[2]), as_bits(v[3])}; }

// Tile is one operand's part of a step. CHUNKS is a power of two.
template <class P, int LINES, int CHUNKS, bool ALONG_K>
struct Tile {
  typedef P Precision;
  static constexpr int lines = LINES;
  static constexpr int chunks = CHUNKS;
  static constexpr bool along_k = ALONG_K;
  static constexpr int bytes = LINES * CHUNKS * 16;
  static constexpr bool by_matrix = ALONG_K || P::chunk == 8;  // read by ldmatrix
};

// chunk_offset is where a chunk lies in a tile.
template <class T>
DEV u32 chunk_offset(u32 line, u32 chunk) {
  u32 pattern = 0;
  if constexpr (T::by_matrix && T::chunks < 8) {
    pattern = line / (8 / T::chunks) % T::chunks;
  } else if constexpr (T::by_matrix) {
    pattern = line % 8;
  } else if constexpr (T::chunks >= 8) {
    pattern = line % 4 * 2;
  } else if constexpr (T::chunks == 4) {
    pattern = line / 2 % 2 * 2;
  }
  return (line * T::chunks + (chunk ^ pattern)) * 16;
}

// word_across is an element of a float32 tile across k, the column'th of line k.
template <class T>
DEV u32 word_across(const char* tile, u32 k, u32 column) {
  return *(const u32*)(tile + chunk_offset<T>(k, column / 4) + column % 4 * 4);
}

// load_a loads the fragment of A's 16 rows from m on, in a block of k, as mma wants it; whole warp.
template <class T>
DEV void load_a(u32 r[4], const char* tile, u32 m, u32 block) {
  const u32 lane = thread_x() % 32;
  if constexpr (T::along_k) {
    load_matrix4(r, tile + chunk_offset<T>(m + lane % 16, 2 * block + lane / 16));
  } else if constexpr (T::by_matrix) {
    load_matrix4_transposed(r, tile + chunk_offset<T>(16 * block + lane / 16 * 8 + lane % 8, m / 8 + lane / 8 % 2));
  } else {
    const u32 k = 8 * block + lane % 4;
    const u32 column = m + lane / 4;
    r[0] = word_across<T>(tile, k, column);
    r[1] = word_across<T>(tile, k, column + 8);
    r[2] = word_across<T>(tile, k + 4, column);
    r[3] = word_across<T>(tile, k + 4, column + 8);
  }
}

// load_b loads the fragment of B's 8 columns from n on; whole warp.
template <class T>
DEV void load_b(u32 r[2], const char* tile, u32 n, u32 block) {
  const u32 lane = thread_x() % 32;
  if constexpr (T::along_k) {
    load_matrix2(r, tile + chunk_offset<T>(n + lane % 8, 2 * block + lane / 8 % 2));
  } else if constexpr (T::by_matrix) {
    load_matrix2_transposed(r, tile + chunk_offset<T>(16 * block + lane % 16, n / 8));
  } else {
    r[0] = word_across<T>(tile, 8 * block + lane % 4, n + lane / 4);
    r[1] = word_across<T>(tile, 8 * block + lane % 4 + 4, n + lane / 4);
  }
}

// load_b2 loads two of them, of 16 columns from n on.
template <class T>
DEV void load_b2(u32 r[4], const char* tile, u32 n, u32 block) {
  const u32 lane = thread_x() % 32;
  if constexpr (T::along_k) {
    load_matrix4(r, tile + chunk_offset<T>(n + lane / 16 * 8 + lane % 8, 2 * block + lane / 8 % 2));
  } else if constexpr (T::by_matrix) {
    load_matrix4_transposed(r, tile + chunk_offset<T>(16 * block + lane % 16, n / 8 + lane / 16));
  } else {
    load_b<T>(r, tile, n, block);
    load_b<T>(r + 2, tile, n + 8, block);
  }
}

// Fragments are a warp's operands for one block of k: M fragments of A and N of B.
template <int M, int N>
struct Fragments {
  u32 a[M * 4];
  u32 b[N * 2];
};

template <class A, class B, int M, int N>
DEV void load_fragments(Fragments<M, N>& f, const char* a, const char* b, u32 m, u32 n, u32 block) {
#pragma unroll
  for (int i = 0; i < M; i++) {
    load_a<A>(f.a + 4 * i, a, m + 16 * i, block);
  }
#pragma unroll
  for (int j = 0; j + 1 < N; j += 2) {
    load_b2<B>(f.b + 2 * j, b, n + 8 * j, block);
  }
  if constexpr (N % 2 == 1) {
    load_b<B>(f.b + 2 * (N - 1), b, n + 8 * (N - 1), block);
  }
}

// Sums are a warp's part of D: element (i, j) is 16 rows by 8 columns, spread over the lanes as mma has it.
template <int M, int N>
struct Sums {
  float d[M][N][4];
};

// multiply adds the products of one block of k.
template <int M, int N>
DEV void multiply(Bf16, Sums<M, N>& sums, const Fragments<M, N>& f) {
#pragma unroll
  for (int i = 0; i < M; i++) {
#pragma unroll
    for (int j = 0; j < N; j++) {
      mma_bf16(sums.d[i][j], f.a + 4 * i, f.b + 2 * j);
    }
  }
}

template <int WORDS>
DEV void round_words(u32 rounded[WORDS], const u32 words[WORDS]) {
#pragma unroll
  for (int i = 0; i < WORDS; i++) {
    rounded[i] = to_tf32(as_float(words[i]));
  }
}

template <int M, int N>
DEV void multiply(Tf32, Sums<M, N>& sums, const Fragments<M, N>& f) {
  u32 b[N * 2];
  round_words<N * 2>(b, f.b);
#pragma unroll
  for (int i = 0; i < M; i++) {
    u32 a[4];
    round_words<4>(a, f.a + 4 * i);
#pragma unroll
    for (int j = 0; j < N; j++) {
      mma_tf32(sums.d[i][j], a, b + 2 * j);
    }
  }
}

template <int WORDS>
DEV void split_words(u32 high[WORDS], u32 low[WORDS], const u32 words[WORDS]) {
#pragma unroll
  for (int i = 0; i < WORDS; i++) {
    const float value = as_float(words[i]);
    high[i] = to_tf32(value);
    low[i] = to_tf32(value - as_float(high[i]));
  }
}

template <int M, int N>
DEV void multiply(Fp32, Sums<M, N>& sums, const Fragments<M, N>& f) {
  u32 b_high[N * 2];
  u32 b_low[N * 2];
  split_words<N * 2>(b_high, b_low, f.b);
#pragma unroll
  for (int i = 0; i < M; i++) {
    u32 a_high[4];
    u32 a_low[4];
    split_words<4>(a_high, a_low, f.a + 4 * i);
#pragma unroll
    for (int j = 0; j < N; j++) {
      float part[4] = {0, 0, 0, 0};
      mma_tf32(part, a_low, b_high + 2 * j);
      mma_tf32(part, a_high, b_low + 2 * j);
      mma_tf32(part, a_high, b_high + 2 * j);
#pragma unroll
      for (int e = 0; e < 4; e++) {
        sums.d[i][j][e] += part[e];
      }
    }
  }
}

// How attention brings matrices of one head into shared memory as tiles (tile.h), multiplies them, and brings the
// result back. A block is 128 threads, so four warps.
//
// Matrices are brought in one of two ways:
//
//   CHUNKS     16 bytes at a time, in the background. Elements are what tensor cores take of the precision (bfloat16
//              or float32), and rows begin at multiples of 16 bytes and are whole chunks of 16 bytes.
//   ELEMENTS   one element at a time through registers, for everything else: bfloat16 and float32 in any mixture, any
//              number of channels.
#pragma once

#include "numeric.h"
#include "tile.h"

constexpr int attention_threads = 128;

enum AttentionAccess { CHUNKS, ELEMENTS };

// AttentionTensor is [N,L,C] in global memory.
struct AttentionTensor {
  void* data;
  int bf16;
};

// AttentionShape is where a head lies in such tensors: head h has channels h*width to (h+1)*width - 1 of an image.
struct AttentionShape {
  int length;    // L, pixels
  int channels;  // C
  int heads;
  int width;  // D = C/heads
};

// AttentionMatrix is a matrix of elements data[first + row*pitch + column]. bf16 counts for ELEMENTS alone: CHUNKS are
// of the precision.
struct AttentionMatrix {
  void* data;
  i64 first;
  i64 pitch;
  int rows;
  int columns;
  int bf16;
};

// head_matrix is [L,D] of one head of one image; sequences are numbered image*heads + head.
DEV AttentionMatrix head_matrix(const AttentionTensor& tensor, const AttentionShape& shape, u32 sequence) {
  const i64 image = sequence / shape.heads;
  const i64 channel = sequence % shape.heads * shape.width;
  AttentionMatrix m;
  m.data = tensor.data;
  m.first = image * shape.length * shape.channels + channel;
  m.pitch = shape.channels;
  m.rows = shape.length;
  m.columns = shape.width;
  m.bf16 = tensor.bf16;
  return m;
}

// TileSource is a matrix as a thread copies tiles T of it: the thread has one chunk of every at_once'th line.
template <class T>
struct TileSource {
  static constexpr int at_once = attention_threads / T::chunks;
  static_assert(T::lines % at_once == 0, "all threads copy as much");
  AttentionMatrix m;  // from the thread's first element of the first tile on
};

// tile_source is a matrix whose first tile is at (row, column).
template <class T>
DEV TileSource<T> tile_source(AttentionMatrix m, int row, int column) {
  row += thread_x() / T::chunks;
  column += thread_x() % T::chunks * T::Precision::chunk;
  m.first += row * m.pitch + column;
  m.rows -= row;
  m.columns -= column;
  return TileSource<T>{m};
}

// load_tile fills the tile that is so many rows down and columns right of the first, with zeros beyond the edges of
// the matrix. All threads of the block.
template <class T, AttentionAccess ACCESS>
DEV void load_tile(char* tile, const TileSource<T>& source, int down, int right) {
  constexpr int chunk = T::Precision::chunk;
  constexpr int at_once = TileSource<T>::at_once;
  const AttentionMatrix& m = source.m;
  const int columns = m.columns - right;
  const int rows = columns > 0 ? m.rows - down : 0;
  i64 at = m.first + down * m.pitch + right;
  const u32 line = thread_x() / T::chunks;
  const u32 place = thread_x() % T::chunks;
  if (ACCESS == CHUNKS) {
    const char* from = (const char*)m.data + at * (16 / chunk);
    const i64 step = m.pitch * (at_once * (16 / chunk));
#pragma unroll
    for (int i = 0; i < T::lines / at_once; i++) {
      copy_async16(tile + chunk_offset<T>(line + i * at_once, place), from, i * at_once < rows ? 16 : 0);
      from += step;
    }
    return;
  }
#pragma unroll 1
  for (int i = 0; i < T::lines / at_once; i++) {
    float v[chunk];
#pragma unroll
    for (int e = 0; e < chunk; e++) {
      v[e] = i * at_once < rows && e < columns ? load_any(m.data, at + e, m.bf16) : 0;
    }
    *(Vec4*)(tile + chunk_offset<T>(line + i * at_once, place)) = pack_chunk(v);
    at += at_once * m.pitch;
  }
}

DEV float element_of(Bf16, const char* chunk, int i) { return widen_bf16(((const u16*)chunk)[i]); }
DEV float element_of(Tf32, const char* chunk, int i) { return ((const float*)chunk)[i]; }
DEV float element_of(Fp32, const char* chunk, int i) { return ((const float*)chunk)[i]; }

// store_tile writes a tile to a matrix, from (first_row, first_column) on, as far as that goes. All threads of the
// block.
template <class T, AttentionAccess ACCESS>
DEV void store_tile(const AttentionMatrix& m, int first_row, int first_column, const char* tile) {
  constexpr int chunk = T::Precision::chunk;
  const int place = thread_x() % T::chunks;
  const int column = first_column + place * chunk;
  const int left = m.rows - first_row;
  const int rows = left < T::lines ? left : T::lines;
#pragma unroll 1
  for (int row = thread_x() / T::chunks; row < rows; row += attention_threads / T::chunks) {
    const char* from = tile + chunk_offset<T>(row, place);
    const i64 at = m.first + (first_row + row) * m.pitch + column;
    if (ACCESS == ELEMENTS) {
#pragma unroll
      for (int e = 0; e < chunk; e++) {
        if (column + e < m.columns) {
          store_any(m.data, at + e, element_of(typename T::Precision(), from, e), m.bf16);
        }
      }
    } else if (column < m.columns) {
      const Vec4 words = *(const Vec4*)from;  // named, or the stand-in's compiler reports no read
      store_global16((char*)m.data + at * (16 / chunk), words);
    }
  }
}

// put_pair stores two neighbours in a line, and rounds them to what it stored of them; get_pair reads them.
DEV void put_pair(Bf16, char* to, float (&pair)[2]) {
  const u32 word = pack_bf16(pair[0], pair[1]);
  *(u32*)to = word;
  pair[0] = lower_half(word);
  pair[1] = upper_half(word);
}

DEV void put_pair(Tf32, char* to, float (&pair)[2]) { *(Vec2*)to = Vec2{as_bits(pair[0]), as_bits(pair[1])}; }
DEV void put_pair(Fp32, char* to, float (&pair)[2]) { put_pair(Tf32(), to, pair); }

DEV void get_pair(Bf16, const char* from, float (&pair)[2]) {
  const u32 word = *(const u32*)from;
  pair[0] = lower_half(word);
  pair[1] = upper_half(word);
}

DEV void get_pair(Tf32, const char* from, float (&pair)[2]) {
  const Vec2 words = *(const Vec2*)from;
  pair[0] = as_float(words.x);
  pair[1] = as_float(words.y);
}

DEV void get_pair(Fp32, const char* from, float (&pair)[2]) { get_pair(Tf32(), from, pair); }

// clear sets a warp's part of a result to zero.
template <int M, int N>
DEV void clear(Sums<M, N>& sums) {
#pragma unroll
  for (int i = 0; i < 4 * M * N; i++) {
    sums.d[i / 4 / N][i / 4 % N][i % 4] = 0;
  }
}

// Three products of a block of k keep the tensor cores busy without another block beside them.
template <class P>
constexpr int blocks_at_once = 2;
template <>
constexpr int blocks_at_once<Fp32> = 1;

// multiply_tiles adds the product of two tiles to a warp's part of a result that begins at (row, column): of all
// blocks of b, and as many of a from block first on.
template <class A, class B, int M, int N>
DEV void multiply_tiles(Sums<M, N>& sums, const char* a, u32 row, u32 first, const char* b, u32 column) {
  typedef typename B::Precision P;
  constexpr int blocks = B::along_k ? B::chunks / 2 : B::lines / (2 * P::chunk);
#pragma unroll blocks_at_once<P>
  for (int block = 0; block < blocks; block++) {
    Fragments<M, N> f;
#pragma unroll
    for (int m = 0; m < M; m++) {
      load_a<A>(f.a + 4 * m, a, row + 16 * m, first + block);
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      load_b2<B>(f.b + 2 * n, b, column + 8 * n, block);
    }
    multiply(P(), sums, f);
  }
}

// pair_of is where a tile has the thread's first two elements of fragment n, of a warp's part that begins at (row,
// column). Its next two are 8 lines down, and those of the next fragment of rows 16: such lines have their chunks in
// the same places.
template <class T>
DEV char* pair_of(char* tile, u32 row, u32 column, int n) {
  constexpr int chunk = T::Precision::chunk;
  static_assert(T::along_k, "elements of a line are neighbours");
  const u32 at = column + 8 * n + thread_x() % 4 * 2;
  return tile + chunk_offset<T>(row + thread_x() % 32 / 4, at / chunk) + at % chunk * (16 / chunk);
}

// put_sums puts a warp's part of a result into a tile.
template <class T, int M, int N>
DEV void put_sums(char* tile, const Sums<M, N>& sums, u32 row, u32 column) {
#pragma unroll
  for (int i = 0; i < 2 * M * N; i++) {
    const int m = i / 2 / N, half = i / N % 2, n = i % N;
    float pair[2] = {sums.d[m][n][2 * half], sums.d[m][n][2 * half + 1]};
    char* at = pair_of<T>(tile, row, column, n) + (16 * m + 8 * half) * (T::chunks * 16);
    put_pair(typename T::Precision(), at, pair);
  }
}

// CopyRing is STAGES places in shared memory of BYTES bytes, filled in turn while the earlier ones are worked on.
template <int STAGES, int BYTES>
struct CopyRing {
  char* base;
  int filled;  // the place to fill next
  int used;    // the place to work on next
};

// start_copies fills all places but one. What is copied is the source's business: copy_step(source, place) starts the
// copies of its next step, or none if there is no more.
template <int STAGES, int BYTES, class Source>
DEV void start_copies(CopyRing<STAGES, BYTES>& ring, char* base, Source& source) {
  ring.base = base;
  ring.filled = STAGES - 1;
  ring.used = 0;
#pragma unroll 1
  for (int i = 0; i < STAGES - 1; i++) {
    copy_step(source, base + i * BYTES);
    copy_async_commit();
  }
}

// next_stage waits for the next place and starts to fill the one before it, which all threads have finished with: what
// threads wrote to shared memory before it is visible after it. All threads of the block.
template <int STAGES, int BYTES, class Source>
DEV char* next_stage(CopyRing<STAGES, BYTES>& ring, Source& source) {
  copy_async_wait<STAGES - 2>();
  barrier();
  copy_step(source, ring.base + ring.filled * BYTES);
  copy_async_commit();
  ring.filled = ring.filled + 1 == STAGES ? 0 : ring.filled + 1;
  char* stage = ring.base + ring.used * BYTES;
  ring.used = ring.used + 1 == STAGES ? 0 : ring.used + 1;
  return stage;
}

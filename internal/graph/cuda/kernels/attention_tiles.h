// How attention brings matrices of one head into shared memory as tiles (tile.h), multiplies them, and brings the
// result back. attention_forward.h, attention_queries.h and attention_keys.h are built on it.
//
// A block of threads owns some rows of scores, be they queries or keys, and takes COLUMNS columns of them at a time. It
// multiplies two heads along their channels, which gives scores, or weights in shared memory by pixels of a head. Each
// product goes step by step, and copies run ahead of it:
//
//   scores   64 bytes' worth of channels, of the block's rows and of the columns
//   values   as many pixels as 16 KB hold of WIDTH channels
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

// Warps is how the warps of a block lie over what it computes: DOWN times 64 rows, ACROSS equal parts of the columns.
template <int DOWN, int ACROSS>
struct Warps {
  static constexpr int threads = 32 * DOWN * ACROSS;
  static constexpr int rows = 64 * DOWN;
  static constexpr int across = ACROSS;
};

// warp_row and warp_column are where a warp's part begins, which is 64 rows by 8*N columns (Sums<4, N>).
template <class W>
DEV u32 warp_row() {
  return thread_x() / 32 / W::across * 64;
}

template <class W, int N>
DEV u32 warp_column() {
  return thread_x() / 32 % W::across * (8 * N);
}

constexpr int least(int a, int b) { return a < b ? a : b; }
constexpr int greatest(int a, int b) { return a < b ? b : a; }

// AttentionTiles are the tiles of a block.
template <class P, class W, int COLUMNS, int WIDTH>
struct AttentionTiles {
  typedef W Layout;
  static constexpr int columns = COLUMNS;
  static constexpr int score_channels = 4 * P::chunk;                           // of a step
  static constexpr int value_rows = least(1024 * P::chunk / WIDTH, COLUMNS / 2);  // of a step
  typedef Tile<P, W::rows, 4, true> Rows;
  typedef Tile<P, COLUMNS, 4, true> Columns;
  typedef Tile<P, value_rows, WIDTH / P::chunk, false> Values;
  typedef Tile<P, W::rows, COLUMNS / P::chunk, true> Weights;
  static constexpr int stage = greatest(Rows::bytes + Columns::bytes, 16384);
  static_assert(Values::bytes <= stage && COLUMNS % value_rows == 0, "a stage holds a step");
};

// first_element is where a head begins in a tensor; sequences are numbered image*heads + head.
DEV i64 first_element(const AttentionShape& shape, u32 sequence) {
  const i64 image = sequence / shape.heads;
  return image * shape.length * shape.channels + sequence % shape.heads * shape.width;
}

// TilePlace is where a thread copies tiles T of a head from: it has one chunk of every at_once'th line.
template <class T, int THREADS>
struct TilePlace {
  static constexpr int at_once = THREADS / T::chunks;
  static_assert(T::lines % at_once == 0, "all threads copy as much");
  i64 first;  // the thread's first element of the first tile
  int pitch;
  int rows;  // from there to the edges
  int columns;
};

// tile_place is the place of tiles whose first is at (row, column).
template <class T, int THREADS>
DEV TilePlace<T, THREADS> tile_place(const AttentionShape& shape, u32 sequence, int row, int column) {
  row += thread_x() / T::chunks;
  column += thread_x() % T::chunks * T::Precision::chunk;
  TilePlace<T, THREADS> place;
  place.first = first_element(shape, sequence) + (i64)row * shape.channels + column;
  place.pitch = shape.channels;
  place.rows = shape.length - row;
  place.columns = shape.width - column;
  return place;
}

// load_tile fills the tile that is so many rows down and columns right of the first, with zeros beyond the edges of
// the head. All threads of the block.
template <AttentionAccess ACCESS, class T, int THREADS>
DEV void load_tile(char* tile, const AttentionTensor& tensor, const TilePlace<T, THREADS>& place, int down, int right) {
  constexpr int chunk = T::Precision::chunk;
  constexpr int at_once = TilePlace<T, THREADS>::at_once;
  const int columns = place.columns - right;
  const int rows = columns > 0 ? place.rows - down : 0;
  i64 at = place.first + (i64)down * place.pitch + right;
  const u32 line = thread_x() / T::chunks;
  const u32 column = thread_x() % T::chunks;
  if (ACCESS == CHUNKS) {
    const char* from = (const char*)tensor.data + at * (16 / chunk);
    const i64 step = (i64)place.pitch * (at_once * (16 / chunk));
#pragma unroll
    for (int i = 0; i < T::lines / at_once; i++) {
      copy_async16(tile + chunk_offset<T>(line + i * at_once, column), from, i * at_once < rows ? 16 : 0);
      from += step;
    }
    return;
  }
#pragma unroll 1
  for (int i = 0; i < T::lines / at_once; i++) {
    float v[chunk];
#pragma unroll
    for (int e = 0; e < chunk; e++) {
      v[e] = i * at_once < rows && e < columns ? load_any(tensor.data, at + e, tensor.bf16) : 0;
    }
    *(Vec4*)(tile + chunk_offset<T>(line + i * at_once, column)) = pack_chunk(v);
    at += (i64)at_once * place.pitch;
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

// pair_of is where a tile has the thread's two elements in row 16*m + 8*half + lane/4 of fragment n of its warp.
template <class T, class W, int N>
DEV char* pair_of(char* tile, int m, int half, int n) {
  constexpr int chunk = T::Precision::chunk;
  static_assert(T::along_k, "elements of a line are neighbours");
  const u32 at = warp_column<W, N>() + 8 * n + thread_x() % 4 * 2;
  // Lines that are a multiple of 8 apart have their chunks in the same places.
  char* first = tile + chunk_offset<T>(warp_row<W>() + thread_x() % 32 / 4, at / chunk) + at % chunk * (16 / chunk);
  return first + (16 * m + 8 * half) * (T::chunks * 16);
}

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

// store_sums writes a warp's part of a result, which begins at (first_row, first_column) of a head, as far as the head
// goes. Whole warp.
template <AttentionAccess ACCESS, class P, int N>
DEV void store_sums(const AttentionTensor& tensor, const AttentionShape& shape, u32 sequence, int first_row,
                    int first_column, const Sums<4, N>& sums) {
  const int lane = thread_x() % 32;
  const int row = first_row + lane / 4;
  const int rows = shape.length - row;
  i64 at = first_element(shape, sequence) + (i64)row * shape.channels;
  // Two lanes of bfloat16 exchange halves of two fragments, so that each has four neighbours of one of them and lines
  // are written 32 bytes at a time.
  constexpr bool exchange = ACCESS == CHUNKS && P::chunk == 8;
  const int odd = lane % 2;
  const int column = first_column + (exchange ? 8 * odd + lane % 4 / 2 * 4 : lane % 4 * 2);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int m = i / 2, half = i % 2;
    const bool inside = 8 * i < rows;
#pragma unroll
    for (int n = 0; n < N; n += exchange ? 2 : 1) {
      const float* pair = sums.d[m][n] + 2 * half;
      const i64 to = at + column + 8 * n;
      const int columns = inside ? shape.width - column - 8 * n : 0;
      if constexpr (exchange) {
        const float* next = sums.d[m][n + 1] + 2 * half;
        const u32 here = pack_bf16(pair[0], pair[1]);
        const u32 there = pack_bf16(next[0], next[1]);
        const u32 got = shuffle_xor(odd ? here : there, 1);
        if (columns > 0) {
          store_global8((u16*)tensor.data + to, odd ? Vec2{got, there} : Vec2{here, got});
        }
      } else if constexpr (ACCESS == CHUNKS) {
        if (columns > 0) {
          store_global8((float*)tensor.data + to, Vec2{as_bits(pair[0]), as_bits(pair[1])});
        }
      } else {
#pragma unroll
        for (int e = 0; e < 2; e++) {
          if (e < columns) {
            store_any(tensor.data, to + e, pair[e], tensor.bf16);
          }
        }
      }
    }
    at += 8 * shape.channels;
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

// AttentionSource is how far the copies of a block have come. Which products it makes, of which tensors, in which
// order, is what its kernel adds.
template <class TILES, AttentionAccess ACCESS>
struct AttentionSource {
  typedef TILES Tiles;
  static constexpr int threads = Tiles::Layout::threads;
  TilePlace<typename Tiles::Rows, threads> rows;
  TilePlace<typename Tiles::Columns, threads> columns;
  TilePlace<typename Tiles::Values, threads> values;
  int length;
  int width;
  int column;   // the first of those in work
  int step;     // the next of the product: its first channel, or the first of its pixels
  int product;  // which
};

// begin_copies sets a source to the block's first row of scores, from column 0 on, and to a channel of the values.
template <class Tiles, AttentionAccess ACCESS>
DEV void begin_copies(AttentionSource<Tiles, ACCESS>& source, const AttentionShape& shape, u32 sequence, int row,
                      int channel) {
  constexpr int threads = Tiles::Layout::threads;
  source.rows = tile_place<typename Tiles::Rows, threads>(shape, sequence, row, 0);
  source.columns = tile_place<typename Tiles::Columns, threads>(shape, sequence, 0, 0);
  source.values = tile_place<typename Tiles::Values, threads>(shape, sequence, 0, channel);
  source.length = shape.length;
  source.width = shape.width;
  source.column = 0;
  source.step = 0;
  source.product = 0;
}

// copy_scores and copy_values copy the next step of such a product and say whether it was the last.
template <class Tiles, AttentionAccess ACCESS>
DEV bool copy_scores(AttentionSource<Tiles, ACCESS>& source, char* to, const AttentionTensor& rows,
                     const AttentionTensor& columns) {
  load_tile<ACCESS>(to, rows, source.rows, 0, source.step);
  load_tile<ACCESS>(to + Tiles::Rows::bytes, columns, source.columns, source.column, source.step);
  source.step += Tiles::score_channels;
  if (source.step < source.width) {
    return false;
  }
  source.step = 0;
  return true;
}

template <class Tiles, AttentionAccess ACCESS>
DEV bool copy_values(AttentionSource<Tiles, ACCESS>& source, char* to, const AttentionTensor& values) {
  load_tile<ACCESS>(to, values, source.values, source.column + source.step, 0);
  source.step += Tiles::value_rows;
  if (source.step < least(source.length - source.column, Tiles::columns)) {
    return false;
  }
  source.step = 0;
  return true;
}

// multiply_scores adds the product of the block's rows and columns, multiply_values that of the weights and of the
// pixels that belong to the columns. All threads of the block.
template <int N, int STAGES, int BYTES, class Source>
DEV void multiply_scores(Sums<4, N>& sums, CopyRing<STAGES, BYTES>& ring, Source& source) {
  typedef typename Source::Tiles Tiles;
  typedef typename Tiles::Layout W;
  for (int channel = 0; channel < source.width; channel += Tiles::score_channels) {
    const char* stage = next_stage(ring, source);
    multiply_tiles<typename Tiles::Rows, typename Tiles::Columns>(sums, stage, warp_row<W>(), 0,
                                                                  stage + Tiles::Rows::bytes, warp_column<W, N>());
  }
}

template <int N, int STAGES, int BYTES, class Source>
DEV void multiply_values(Sums<4, N>& sums, const char* weights, int columns, CopyRing<STAGES, BYTES>& ring,
                         Source& source) {
  typedef typename Source::Tiles Tiles;
  typedef typename Tiles::Layout W;
  constexpr int block = 2 * Tiles::Weights::Precision::chunk;
  for (int column = 0; column < columns; column += Tiles::value_rows) {
    const char* stage = next_stage(ring, source);
    multiply_tiles<typename Tiles::Weights, typename Tiles::Values>(sums, weights, warp_row<W>(), column / block, stage,
                                                                    warp_column<W, N>());
  }
}

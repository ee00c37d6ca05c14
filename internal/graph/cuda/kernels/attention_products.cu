// The second half of attention's gradient: for each image and head, of the weights P and slopes dS that
// attention_scores.cu left in memory,
//
//   dq = dS k          dk = dS^T q          dv = P^T dout
//
// A block of threads computes ROWS pixels by COLUMNS channels of one of the three.
//
// The launcher starts attn_products_<precision>_<ROWS>x<COLUMNS> with
//   grid    sequences * ceil(L/ROWS) * ceil(D/COLUMNS) blocks in x, of the sequences image*heads + head from
//           params.first on; 3 in y, for dq, dk and dv
//   block   128 threads
//   shared  256*(ROWS+COLUMNS) bytes, or ROWS*COLUMNS*b if that is more, where b is 2 for bf16, else 4
// Instances that end in _any accept every tensor (ELEMENTS of attention_tiles.h), the others those that allow CHUNKS.
#include "attention_tiles.h"

struct AttentionProductsParams {
  AttentionTensor q;
  AttentionTensor k;
  AttentionTensor dout;
  AttentionTensor dq;
  AttentionTensor dk;
  AttentionTensor dv;
  AttentionShape shape;
  const void* weights;  // P, as attn_scores stores it
  const void* slopes;   // dS
  int pitch;            // of both
  int first;
};

// ProductSource is what a block copies: so many pixels at a time of both operands.
template <class A, class B, AttentionAccess ACCESS>
struct ProductSource {
  TileSource<A> a;
  TileSource<B> b;
  int pixel;
  int pixels;
};

template <class A, class B, AttentionAccess ACCESS>
DEV void copy_step(ProductSource<A, B, ACCESS>& source, char* to) {
  if (source.pixel >= source.pixels) {
    return;
  }
  load_tile<A, CHUNKS>(to, source.a, A::along_k ? 0 : source.pixel, A::along_k ? source.pixel : 0);
  load_tile<B, ACCESS>(to + A::bytes, source.b, source.pixel, 0);
  source.pixel += B::lines;
}

// attention_product computes the part of a b that begins at (row, column) and stores it in out. The tiles A say
// whether a or its transpose lies in memory. Warps are 2 by 2, with M x N fragments each.
template <class A, int M, int N, AttentionAccess ACCESS>
DEV void attention_product(const AttentionMatrix& a, const AttentionMatrix& b, const AttentionMatrix& out, int row,
                           int column) {
  typedef typename A::Precision P;
  constexpr int rows = 32 * M;
  constexpr int columns = 16 * N;
  typedef Tile<P, 4 * P::chunk, columns / P::chunk, false> B;
  typedef Tile<P, rows, columns / P::chunk, true> Out;
  const u32 warp = thread_x() / 32;
  const u32 warp_row = warp / 2 * (16 * M);
  const u32 warp_column = warp % 2 * (8 * N);

  ProductSource<A, B, ACCESS> source;
  source.a = tile_source<A>(a, A::along_k ? row : 0, A::along_k ? 0 : row);
  source.b = tile_source<B>(b, 0, column);
  source.pixel = 0;
  source.pixels = b.rows;
  CopyRing<4, A::bytes + B::bytes> ring;
  start_copies(ring, dynamic_shared(), source);
  Sums<M, N> sums;
  clear(sums);
  for (int pixel = 0; pixel < b.rows; pixel += B::lines) {
    const char* stage = next_stage(ring, source);
    multiply_tiles<A, B>(sums, stage, warp_row, 0, stage + A::bytes, warp_column);
  }
  barrier();
  put_sums<Out>(dynamic_shared(), sums, warp_row, warp_column);
  barrier();
  store_tile<Out, ACCESS>(out, row, column, dynamic_shared());
}

template <class P, int M, int N, AttentionAccess ACCESS>
DEV void attention_products(const AttentionProductsParams& p) {
  constexpr int rows = 32 * M;
  constexpr int columns = 16 * N;
  const u32 across = (p.shape.width + columns - 1) / columns;
  const u32 down = (p.shape.length + rows - 1) / rows;
  const int column = block_x() % across * columns;
  const u32 outer = block_x() / across;
  const int row = outer % down * rows;
  const u32 local = outer / down;
  const u32 sequence = p.first + local;

  AttentionMatrix a = {(void*)p.slopes, (i64)local * p.shape.length * p.pitch, p.pitch, p.shape.length, p.pitch, 0};
  if (block_y() == 0) {
    attention_product<Tile<P, rows, 4, true>, M, N, ACCESS>(a, head_matrix(p.k, p.shape, sequence),
                                                            head_matrix(p.dq, p.shape, sequence), row, column);
    return;
  }
  const bool values = block_y() == 2;
  if (values) {
    a.data = (void*)p.weights;
  }
  const AttentionMatrix b = head_matrix(values ? p.dout : p.q, p.shape, sequence);
  const AttentionMatrix out = head_matrix(values ? p.dv : p.dk, p.shape, sequence);
  attention_product<Tile<P, 4 * P::chunk, rows / P::chunk, false>, M, N, ACCESS>(a, b, out, row, column);
}

KERNEL BOUNDS(128, 2) attn_products_bf16_128x128(AttentionProductsParams p) {
  attention_products<Bf16, 4, 8, CHUNKS>(p);
}
KERNEL BOUNDS(128, 2) attn_products_bf16_64x64(AttentionProductsParams p) {
  attention_products<Bf16, 2, 4, CHUNKS>(p);
}
KERNEL BOUNDS(128, 2) attn_products_bf16_64x64_any(AttentionProductsParams p) {
  attention_products<Bf16, 2, 4, ELEMENTS>(p);
}
KERNEL BOUNDS(128, 2) attn_products_tf32_128x128(AttentionProductsParams p) {
  attention_products<Tf32, 4, 8, CHUNKS>(p);
}
KERNEL BOUNDS(128, 2) attn_products_tf32_64x64(AttentionProductsParams p) {
  attention_products<Tf32, 2, 4, CHUNKS>(p);
}
KERNEL BOUNDS(128, 2) attn_products_fp32_64x64(AttentionProductsParams p) {
  attention_products<Fp32, 2, 4, CHUNKS>(p);
}
KERNEL BOUNDS(128, 2) attn_products_fp32_64x64_any(AttentionProductsParams p) {
  attention_products<Fp32, 2, 4, ELEMENTS>(p);
}

// Attention over the pixels of images: for each image and head, with L pixels and D channels,
//
//   out = softmax(q k^T / sqrt(D)) v
//
// by blocks of keys with a running softmax, without a matrix of scores in global memory (Dao et al., "FlashAttention:
// Fast and Memory-Efficient Exact Attention with IO-Awareness", 2022).
//
// A block of threads owns ROWS queries and WIDTH of the D output channels. KEYS keys at a time it computes the scores,
// turns them into weights, which lie in shared memory, and adds the weighted values to sums in registers.
//
// The launcher starts attn_forward_<precision>_<ROWS>x<KEYS>x<WIDTH> with
//   grid    images * heads * slices * ceil(L/ROWS) blocks in x; each of the slices = ceil(D/WIDTH) of the channels
//           computes the scores again
//   block   2*ROWS threads
//   shared  ROWS*KEYS*b + 3*max(64*(ROWS+KEYS), 16384) bytes, where b is 2 for bf16, else 4
//   scale   log2(e)/sqrt(D)
// Instances that end in _whole need L <= KEYS: their sums take the registers of the scores. Those that end in _any
// accept every tensor (ELEMENTS of attention_tiles.h), the others those that allow CHUNKS. Results do not depend on
// ROWS.
#pragma once

#include "attention_softmax.h"

struct AttentionParams {
  AttentionTensor q;
  AttentionTensor k;
  AttentionTensor v;
  AttentionTensor out;
  AttentionShape shape;
  int slices;
  float scale;
};

// ForwardSource is what a block copies: for each KEYS keys, q and k, then v.
template <class TILES, AttentionAccess ACCESS>
struct ForwardSource : AttentionSource<TILES, ACCESS> {
  AttentionTensor q;
  AttentionTensor k;
  AttentionTensor v;
};

template <class Tiles, AttentionAccess ACCESS>
DEV void copy_step(ForwardSource<Tiles, ACCESS>& source, char* to) {
  if (source.column >= source.length) {
    return;
  }
  if (source.product == 0) {
    source.product = copy_scores(source, to, source.q, source.k);
  } else if (copy_values(source, to, source.v)) {
    source.product = 0;
    source.column += Tiles::columns;
  }
}

template <class P, AttentionAccess ACCESS, int ROWS, int KEYS, int WIDTH, bool WHOLE>
DEV void attention_forward(const AttentionParams& p) {
  typedef Warps<ROWS / 64, 4> W;
  typedef AttentionTiles<P, W, KEYS, WIDTH> Tiles;
  typedef typename Tiles::Weights Weights;
  SHARED RowParts<W> parts;
  char* weights = dynamic_shared();

  const u32 query_blocks = (p.shape.length + ROWS - 1) / ROWS;
  const u32 outer = block_x() / query_blocks;
  const u32 sequence = outer / p.slices;
  const int query = block_x() % query_blocks * ROWS;
  const int channel = outer % p.slices * WIDTH;

  ForwardSource<Tiles, ACCESS> source;
  source.q = p.q;
  source.k = p.k;
  source.v = p.v;
  begin_copies(source, p.shape, sequence, query, channel);
  CopyRing<3, Tiles::stage> ring;
  start_copies(ring, weights + Weights::bytes, source);

  RowValues tops;
  RowValues total;
  fill(tops, -__builtin_inff());
  fill(total, 0);
  Sums<4, WIDTH / 32> sums;
  clear(sums);
  int left = p.shape.length;
  do {
    Sums<4, KEYS / 32> scores;
    clear(scores);
    multiply_scores(scores, ring, source);
    if (left < KEYS) {
      mask_scores<W>(scores, left);
    }
    const RowValues shrink = raise_tops(tops, scores, p.scale, parts);
    if (!WHOLE) {
      scale_rows(sums, shrink);
    }
    // No thread reads the weights of earlier keys any more: a step of the scores has come since.
    const RowValues sum = put_weights<Weights, W>(weights, scores, tops, p.scale);
    shrink_and_add(total, shrink, sum);
    multiply_values(sums, weights, least(left, KEYS), ring, source);
    left -= KEYS;
  } while (!WHOLE && left > 0);

  fold_warps<TOTAL>(total, parts);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    total.of[i / 2][i % 2] = div_exact(1.0f, total.of[i / 2][i % 2]);
  }
  scale_rows(sums, total);
  store_sums<ACCESS, P>(p.out, p.shape, sequence, query + warp_row<W>(), channel + warp_column<W, WIDTH / 32>(), sums);
}

// Attention over the pixels of images: for each image and head, with L pixels and D channels,
//
//   out = softmax(q k^T / sqrt(D)) v
//
// by blocks of keys with a running softmax, without a matrix of scores in global memory (Dao et al., "FlashAttention:
// Fast and Memory-Efficient Exact Attention with IO-Awareness", 2022).
//
// A block of threads owns 64 queries and WIDTH of the D output channels. KEYS keys at a time it computes the scores,
// turns them into weights, which lie in shared memory, and adds the weighted values to sums in registers. Copies run
// ahead through all of this, in steps: 64 bytes' worth of channels of q and k, or up to 16 KB of v.
//
// The launcher starts attn_forward_<precision>_<KEYS>x<WIDTH> with
//   grid    images * heads * slices * ceil(L/64) blocks in x; each of the slices = ceil(D/WIDTH) of the channels
//           computes the scores again
//   block   128 threads
//   shared  64*KEYS*b + 3*max(64*(64+KEYS), 16384) bytes, where b is 2 for bf16, else 4
//   scale   log2(e)/sqrt(D)
// Instances that end in _whole need L <= KEYS: their sums take the registers of the scores. Those that end in _any
// accept every tensor (ELEMENTS of attention_tiles.h), the others those that allow CHUNKS.
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

// ForwardTiles are the tiles of a block. A step takes score_channels channels of q and k, or value_keys rows of v.
template <class P, int KEYS, int WIDTH>
struct ForwardTiles {
  static constexpr int score_channels = 4 * P::chunk;
  static constexpr int most_keys = 1024 * P::chunk / WIDTH;
  static constexpr int value_keys = most_keys < KEYS / 2 ? most_keys : KEYS / 2;
  typedef Tile<P, attention_queries, 4, true> Queries;
  typedef Tile<P, KEYS, 4, true> Keys;
  typedef Tile<P, value_keys, WIDTH / P::chunk, false> Values;
  typedef Tile<P, attention_queries, KEYS / P::chunk, true> Weights;
  typedef Tile<P, attention_queries, WIDTH / P::chunk, true> Out;
  static constexpr int score_bytes = Queries::bytes + Keys::bytes;
  static constexpr int stage = score_bytes > 16384 ? score_bytes : 16384;
  static_assert(Values::bytes <= stage && KEYS % value_keys == 0, "a stage holds a step");
  static_assert(Out::bytes <= Weights::bytes + 3 * stage, "the result passes through shared memory");
};

// ForwardSource is what a block copies: for each KEYS keys, the channels of q and k step by step, then the rows of v.
template <class P, AttentionAccess ACCESS, int KEYS, int WIDTH>
struct ForwardSource {
  typedef ForwardTiles<P, KEYS, WIDTH> Tiles;
  TileSource<typename Tiles::Queries> q;
  TileSource<typename Tiles::Keys> k;
  TileSource<typename Tiles::Values> v;
  int length;
  int width;
  int key;
  int place;    // channel of q and k, or one of the KEYS keys
  bool values;  // whether the next step is of v
};

template <class P, AttentionAccess ACCESS, int KEYS, int WIDTH>
DEV void copy_step(ForwardSource<P, ACCESS, KEYS, WIDTH>& source, char* to) {
  typedef ForwardTiles<P, KEYS, WIDTH> Tiles;
  const int left = source.length - source.key;
  if (left <= 0) {
    return;
  }
  if (!source.values) {
    load_tile<typename Tiles::Queries, ACCESS>(to, source.q, 0, source.place);
    load_tile<typename Tiles::Keys, ACCESS>(to + Tiles::Queries::bytes, source.k, source.key, source.place);
    source.place += Tiles::score_channels;
    if (source.place >= source.width) {
      source.place = 0;
      source.values = true;
    }
    return;
  }
  load_tile<typename Tiles::Values, ACCESS>(to, source.v, source.key + source.place, 0);
  source.place += Tiles::value_keys;
  if (source.place >= (left < KEYS ? left : KEYS)) {
    source.place = 0;
    source.values = false;
    source.key += KEYS;
  }
}

template <class P, AttentionAccess ACCESS, int KEYS, int WIDTH, bool WHOLE>
DEV void attention_forward(const AttentionParams& p) {
  typedef ForwardTiles<P, KEYS, WIDTH> Tiles;
  SHARED float part[4][attention_queries];
  char* weights = dynamic_shared();

  const u32 query_blocks = (p.shape.length + attention_queries - 1) / attention_queries;
  const u32 outer = block_x() / query_blocks;
  const u32 sequence = outer / p.slices;
  const int query = block_x() % query_blocks * attention_queries;
  const int column = outer % p.slices * WIDTH;

  ForwardSource<P, ACCESS, KEYS, WIDTH> source;
  source.q = tile_source<typename Tiles::Queries>(head_matrix(p.q, p.shape, sequence), query, 0);
  source.k = tile_source<typename Tiles::Keys>(head_matrix(p.k, p.shape, sequence), 0, 0);
  source.v = tile_source<typename Tiles::Values>(head_matrix(p.v, p.shape, sequence), 0, column);
  source.length = p.shape.length;
  source.width = p.shape.width;
  source.key = 0;
  source.place = 0;
  source.values = false;
  CopyRing<3, Tiles::stage> ring;
  start_copies(ring, weights + Tiles::Weights::bytes, source);

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
    for (int channel = 0; channel < p.shape.width; channel += Tiles::score_channels) {
      const char* stage = next_stage(ring, source);
      multiply_tiles<typename Tiles::Queries, typename Tiles::Keys>(scores, stage, 0, 0, stage + Tiles::Queries::bytes,
                                                                    warp_column<KEYS / 32>());
    }
    if (left < KEYS) {
      mask_scores(scores, left);
    }
    const RowValues shrink = raise_tops(tops, scores, p.scale, part);
    if (!WHOLE) {
      scale_rows(sums, shrink);
    }
    // No thread reads the weights of earlier keys any more: a step of the scores has come since.
    const RowValues sum = put_weights<typename Tiles::Weights>(weights, scores, tops, p.scale);
    shrink_and_add(total, shrink, sum);
    const int keys = left < KEYS ? left : KEYS;
    for (int key = 0; key < keys; key += Tiles::value_keys) {
      const char* stage = next_stage(ring, source);
      multiply_tiles<typename Tiles::Weights, typename Tiles::Values>(sums, weights, 0, key / (2 * P::chunk), stage,
                                                                      warp_column<WIDTH / 32>());
    }
    left -= KEYS;
  } while (!WHOLE && left > 0);

  fold_warps<TOTAL>(total, part);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    total.of[i / 2][i % 2] = div_exact(1.0f, total.of[i / 2][i % 2]);
  }
  // fold_warps has a barrier, so no thread reads weights or values any more.
  scale_rows(sums, total);
  put_sums<typename Tiles::Out>(weights, sums, 0, warp_column<WIDTH / 32>());
  barrier();
  store_tile<typename Tiles::Out, ACCESS>(head_matrix(p.out, p.shape, sequence), query, column, weights);
}

KERNEL BOUNDS(128, 2) attn_forward_bf16_256x256_whole(AttentionParams p) {
  attention_forward<Bf16, CHUNKS, 256, 256, true>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_bf16_128x64(AttentionParams p) {
  attention_forward<Bf16, CHUNKS, 128, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_bf16_128x128(AttentionParams p) {
  attention_forward<Bf16, CHUNKS, 128, 128, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_bf16_64x256(AttentionParams p) {
  attention_forward<Bf16, CHUNKS, 64, 256, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_bf16_64x64_any(AttentionParams p) {
  attention_forward<Bf16, ELEMENTS, 64, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_tf32_128x64(AttentionParams p) {
  attention_forward<Tf32, CHUNKS, 128, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_tf32_64x256(AttentionParams p) {
  attention_forward<Tf32, CHUNKS, 64, 256, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_fp32_128x64(AttentionParams p) {
  attention_forward<Fp32, CHUNKS, 128, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_fp32_64x128(AttentionParams p) {
  attention_forward<Fp32, CHUNKS, 64, 128, false>(p);
}
KERNEL BOUNDS(128, 2) attn_forward_fp32_64x64_any(AttentionParams p) {
  attention_forward<Fp32, ELEMENTS, 64, 64, false>(p);
}

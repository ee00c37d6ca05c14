// The first half of attention's gradient: the weights P of the keys and d loss/d scores, for the products that make
// dq, dk and dv of them (attention_products.cu). For each image and head, with S = q k^T / sqrt(D), P = softmax(S):
//
//   dP = dout v^T          dS = P (dP - mean)/sqrt(D), where mean is the sum over the row of P dP
//
// A block of threads owns 64 queries and takes KEYS keys at a time. It goes through the keys twice: there to find the
// greatest score, the sum of the weights and the mean of each row, with a running softmax, and back to compute the
// keys' scores and dP again and store both results. What it has at the end of the way there is not computed again, so
// up to KEYS pixels take one visit.
//
// The launcher starts attn_scores_<precision>_<KEYS> with
//   grid    sequences * ceil(L/64) blocks in x, of the sequences image*heads + head from params.first on
//   block   128 threads
//   shared  64*KEYS*b + 3*64*(64+KEYS) bytes, where b is 2 for bf16, else 4
//   scale   1/sqrt(D); log2_scale is log2(e) times that
// Instances that end in _whole need L <= KEYS. Those that end in _any accept every tensor (ELEMENTS of
// attention_tiles.h), the others those that allow CHUNKS. weights and slopes are [sequences][L][pitch] of b-byte
// elements, where pitch is L rounded up to a multiple of 16/b; the columns beyond L become 0.
#include "attention_softmax.h"

struct AttentionScoresParams {
  AttentionTensor q;
  AttentionTensor k;
  AttentionTensor v;
  AttentionTensor dout;
  AttentionShape shape;
  void* weights;  // P
  void* slopes;   // dS
  int pitch;
  int first;
  float scale;
  float log2_scale;
};

template <class P, int KEYS>
struct ScoresTiles {
  static constexpr int channels = 4 * P::chunk;  // of a step
  typedef Tile<P, attention_queries, 4, true> Queries;
  typedef Tile<P, KEYS, 4, true> Keys;
  typedef Tile<P, attention_queries, KEYS / P::chunk, true> Weights;
  static constexpr int stage = Queries::bytes + Keys::bytes;
};

// ScoresSource is what a block copies: at each visit of KEYS keys, the channels of q and k step by step, then those of
// dout and v.
template <class P, AttentionAccess ACCESS, int KEYS>
struct ScoresSource {
  typedef ScoresTiles<P, KEYS> Tiles;
  TileSource<typename Tiles::Queries> q;
  TileSource<typename Tiles::Queries> dout;
  TileSource<typename Tiles::Keys> k;
  TileSource<typename Tiles::Keys> v;
  int width;
  int key_blocks;
  int visit;
  int channel;
  bool slopes;  // whether the next step is of dout and v
};

// Visits are key_blocks there and all but the last of them back.
DEV int visits_of(int key_blocks) { return 2 * key_blocks - 1; }
DEV int visited(int visit, int key_blocks) { return visit < key_blocks ? visit : visits_of(key_blocks) - 1 - visit; }

template <class P, AttentionAccess ACCESS, int KEYS>
DEV void copy_step(ScoresSource<P, ACCESS, KEYS>& source, char* to) {
  typedef ScoresTiles<P, KEYS> Tiles;
  if (source.visit >= visits_of(source.key_blocks)) {
    return;
  }
  const int key = visited(source.visit, source.key_blocks) * KEYS;
  if (source.slopes) {
    load_tile<typename Tiles::Queries, ACCESS>(to, source.dout, 0, source.channel);
    load_tile<typename Tiles::Keys, ACCESS>(to + Tiles::Queries::bytes, source.v, key, source.channel);
  } else {
    load_tile<typename Tiles::Queries, ACCESS>(to, source.q, 0, source.channel);
    load_tile<typename Tiles::Keys, ACCESS>(to + Tiles::Queries::bytes, source.k, key, source.channel);
  }
  source.channel += Tiles::channels;
  if (source.channel >= source.width) {
    source.channel = 0;
    source.visit += source.slopes;
    source.slopes = !source.slopes;
  }
}

// row_products is the sum, over what a warp has of each row, of weights times what belongs to them. Whole warp.
template <class T, int N>
DEV RowValues row_products(char* weights, const Sums<4, N>& factors) {
  RowValues sums;
  fill(sums, 0);
#pragma unroll
  for (int i = 0; i < 8 * N; i++) {
    const int m = i / 2 / N, half = i / N % 2, n = i % N;
    float pair[2];
    get_pair(typename T::Precision(), weight_pair<T, N>(weights, m, half, n), pair);
    sums.of[m][half] = fma(pair[0], factors.d[m][n][2 * half], sums.of[m][half]);
    sums.of[m][half] = fma(pair[1], factors.d[m][n][2 * half + 1], sums.of[m][half]);
  }
  fold_lanes<TOTAL>(sums);
  return sums;
}

// to_slopes divides the weights by the sums of their rows, in their tile, and turns dP into dS.
template <class T, int N>
DEV void to_slopes(char* weights, Sums<4, N>& dp, const RowValues& inverse, const RowValues& mean, float scale) {
#pragma unroll
  for (int i = 0; i < 8 * N; i++) {
    const int m = i / 2 / N, half = i / N % 2, n = i % N;
    char* at = weight_pair<T, N>(weights, m, half, n);
    float pair[2];
    get_pair(typename T::Precision(), at, pair);
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float& slope = dp.d[m][n][2 * half + e];
      pair[e] *= inverse.of[m][half];
      slope = pair[e] * (slope - mean.of[m][half]) * scale;
    }
    put_pair(typename T::Precision(), at, pair);
  }
}

template <class P, AttentionAccess ACCESS, int KEYS, bool WHOLE>
DEV void attention_scores(const AttentionScoresParams& p) {
  typedef ScoresTiles<P, KEYS> Tiles;
  typedef typename Tiles::Queries Queries;
  typedef typename Tiles::Keys Keys;
  typedef typename Tiles::Weights Weights;
  constexpr int N = KEYS / 32;
  SHARED float part[4][attention_queries];
  char* weights = dynamic_shared();

  const u32 query_blocks = (p.shape.length + attention_queries - 1) / attention_queries;
  const u32 local = block_x() / query_blocks;
  const u32 sequence = p.first + local;
  const int query = block_x() % query_blocks * attention_queries;
  const int key_blocks = WHOLE ? 1 : (p.shape.length + KEYS - 1) / KEYS;

  ScoresSource<P, ACCESS, KEYS> source;
  source.q = tile_source<Queries>(head_matrix(p.q, p.shape, sequence), query, 0);
  source.dout = tile_source<Queries>(head_matrix(p.dout, p.shape, sequence), query, 0);
  source.k = tile_source<Keys>(head_matrix(p.k, p.shape, sequence), 0, 0);
  source.v = tile_source<Keys>(head_matrix(p.v, p.shape, sequence), 0, 0);
  source.width = p.shape.width;
  source.key_blocks = key_blocks;
  source.visit = 0;
  source.channel = 0;
  source.slopes = false;
  CopyRing<3, Tiles::stage> ring;
  start_copies(ring, weights + Weights::bytes, source);

  RowValues tops;
  RowValues total;
  RowValues mean;
  fill(tops, -__builtin_inff());
  fill(total, 0);
  fill(mean, 0);
  for (int visit = 0; visit < (WHOLE ? 1 : visits_of(key_blocks)); visit++) {
    const int key = visited(visit, key_blocks) * KEYS;
    Sums<4, N> sums;
    clear(sums);
    for (int channel = 0; channel < p.shape.width; channel += Tiles::channels) {
      const char* stage = next_stage(ring, source);
      multiply_tiles<Queries, Keys>(sums, stage, 0, 0, stage + Queries::bytes, warp_column<N>());
    }
    if (p.shape.length - key < KEYS) {
      mask_scores(sums, p.shape.length - key);
    }
    const bool there = visit < key_blocks;
    RowValues shrink;
    if (there) {
      shrink = raise_tops(tops, sums, p.log2_scale, part);
    }
    // Each thread reads the weights that it puts here; others read them only where they are stored.
    const RowValues sum = put_weights<Weights>(weights, sums, tops, p.log2_scale);
    if (there) {
      shrink_and_add(total, shrink, sum);
    }

    clear(sums);
    for (int channel = 0; channel < p.shape.width; channel += Tiles::channels) {
      const char* stage = next_stage(ring, source);
      multiply_tiles<Queries, Keys>(sums, stage, 0, 0, stage + Queries::bytes, warp_column<N>());
    }
    if (there) {
      shrink_and_add(mean, shrink, row_products<Weights>(weights, sums));
    }
    if (visit < key_blocks - 1) {
      continue;
    }
    if (visit == key_blocks - 1) {
      fold_warps<TOTAL>(total, part);
      barrier();
      fold_warps<TOTAL>(mean, part);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        float& inverse = total.of[i / 2][i % 2];
        inverse = div_exact(1.0f, inverse);
        mean.of[i / 2][i % 2] *= inverse;
      }
    }
    to_slopes<Weights>(weights, sums, total, mean, p.scale);
    AttentionMatrix result = {p.weights, (i64)local * p.shape.length * p.pitch, p.pitch, p.shape.length, p.pitch, 0};
    barrier();
    store_tile<Weights, CHUNKS>(result, query, key, weights);
    barrier();
    put_sums<Weights>(weights, sums, 0, warp_column<N>());
    result.data = p.slopes;
    barrier();
    store_tile<Weights, CHUNKS>(result, query, key, weights);
  }
}

KERNEL BOUNDS(128, 2) attn_scores_bf16_256_whole(AttentionScoresParams p) {
  attention_scores<Bf16, CHUNKS, 256, true>(p);
}
KERNEL BOUNDS(128, 2) attn_scores_bf16_128(AttentionScoresParams p) { attention_scores<Bf16, CHUNKS, 128, false>(p); }
KERNEL BOUNDS(128, 2) attn_scores_bf16_64_any(AttentionScoresParams p) {
  attention_scores<Bf16, ELEMENTS, 64, false>(p);
}
KERNEL BOUNDS(128, 2) attn_scores_tf32_128(AttentionScoresParams p) { attention_scores<Tf32, CHUNKS, 128, false>(p); }
KERNEL BOUNDS(128, 2) attn_scores_fp32_128(AttentionScoresParams p) { attention_scores<Fp32, CHUNKS, 128, false>(p); }
KERNEL BOUNDS(128, 2) attn_scores_fp32_64_any(AttentionScoresParams p) {
  attention_scores<Fp32, ELEMENTS, 64, false>(p);
}

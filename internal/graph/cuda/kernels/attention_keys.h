// The second half of attention's gradient (attention_grad.h): dk and dv, of the statistics that attention_queries.h
// left.
//
// A block of threads owns ROWS keys and WIDTH of the D channels of dk and dv, and takes QUERIES queries at a time. It
// computes transposed scores and turns them into weights P^T, which lie in shared memory, adds P^T dout to dv, computes
// dP^T, puts the slopes dS^T in the place of the weights, and adds dS^T q to dk.
//
// The launcher starts attn_keys_<precision>_<ROWS>x<QUERIES>x<WIDTH> as attn_queries, with ROWS of the keys and QUERIES
// for KEYS.
#pragma once

#include "attention_grad.h"

// KeysSource is what a block copies: for each QUERIES queries k and q, dout, v and dout, q.
template <class TILES, AttentionAccess ACCESS>
struct KeysSource : AttentionSource<TILES, ACCESS> {
  AttentionTensor q;
  AttentionTensor k;
  AttentionTensor v;
  AttentionTensor dout;
};

template <class Tiles, AttentionAccess ACCESS>
DEV void copy_step(KeysSource<Tiles, ACCESS>& source, char* to) {
  if (source.column >= source.length) {
    return;
  }
  switch (source.product) {
    case 0:
      source.product += copy_scores(source, to, source.k, source.q);
      break;
    case 1:
      source.product += copy_values(source, to, source.dout);
      break;
    case 2:
      source.product += copy_scores(source, to, source.v, source.dout);
      break;
    default:
      if (copy_values(source, to, source.q)) {
        source.product = 0;
        source.column += Tiles::columns;
      }
  }
}

// ColumnStatistics are those of the queries in work, in shared memory. Beyond the last query they are zero, which makes
// weights and slopes zero.
template <int QUERIES>
struct alignas(8) ColumnStatistics {
  float top[QUERIES];
  float inverse[QUERIES];
  float mean[QUERIES];
};

template <int QUERIES>
DEV void load_statistics(ColumnStatistics<QUERIES>& to, const float* statistics, int length, int query) {
  for (int i = thread_x(); i < QUERIES; i += block_threads()) {
    const bool inside = query + i < length;
    const float* from = statistics + query + i;
    to.top[i] = inside ? from[0] : 0;
    to.inverse[i] = inside ? from[length] : 0;
    to.mean[i] = inside ? from[2 * length] : 0;
  }
}

// put_column_weights makes weights of transposed scores and puts them into a tile.
template <class T, class W, int N, int QUERIES>
DEV void put_column_weights(char* tile, const Sums<4, N>& scores, const ColumnStatistics<QUERIES>& queries,
                            float scale) {
#pragma unroll
  for (int n = 0; n < N; n++) {
    const u32 column = warp_column<W, N>() + 8 * n + thread_x() % 4 * 2;
    const float top[2] = {queries.top[column], queries.top[column + 1]};
    const float inverse[2] = {queries.inverse[column], queries.inverse[column + 1]};
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float* score = scores.d[i / 2][n] + i % 2 * 2;
      float pair[2];
#pragma unroll
      for (int e = 0; e < 2; e++) {
        pair[e] = exp2_approx(fma(score[e], scale, -top[e])) * inverse[e];
      }
      put_pair(typename T::Precision(), pair_of<T, W, N>(tile, i / 2, i % 2, n), pair);
    }
  }
}

// put_column_slopes puts dS^T in the place of the weights.
template <class T, class W, int N, int QUERIES>
DEV void put_column_slopes(char* weights, const Sums<4, N>& dp, const ColumnStatistics<QUERIES>& queries, float scale) {
#pragma unroll
  for (int n = 0; n < N; n++) {
    const u32 column = warp_column<W, N>() + 8 * n + thread_x() % 4 * 2;
    const float mean[2] = {queries.mean[column], queries.mean[column + 1]};
#pragma unroll
    for (int i = 0; i < 8; i++) {
      char* at = pair_of<T, W, N>(weights, i / 2, i % 2, n);
      float pair[2];
      get_pair(typename T::Precision(), at, pair);
#pragma unroll
      for (int e = 0; e < 2; e++) {
        pair[e] = pair[e] * (dp.d[i / 2][n][i % 2 * 2 + e] - mean[e]) * scale;
      }
      put_pair(typename T::Precision(), at, pair);
    }
  }
}

template <class P, AttentionAccess ACCESS, class W, int QUERIES, int WIDTH, bool WHOLE>
DEV void attention_keys(const AttentionGradParams& p) {
  typedef AttentionTiles<P, W, QUERIES, WIDTH> Tiles;
  typedef typename Tiles::Weights Weights;
  constexpr int score_columns = QUERIES / 8 / W::across;
  constexpr int channel_columns = WIDTH / 8 / W::across;
  SHARED ColumnStatistics<QUERIES> queries;
  char* weights = dynamic_shared();

  const u32 key_blocks = (p.shape.length + W::rows - 1) / W::rows;
  const u32 outer = block_x() / key_blocks;
  const u32 sequence = outer / p.slices;
  const int key = block_x() % key_blocks * W::rows;
  const int channel = outer % p.slices * WIDTH;
  const float* statistics = p.statistics + (i64)sequence * attention_statistics * p.shape.length;

  KeysSource<Tiles, ACCESS> source;
  source.q = p.q;
  source.k = p.k;
  source.v = p.v;
  source.dout = p.dout;
  begin_copies(source, p.shape, sequence, key, channel);
  CopyRing<3, Tiles::stage> ring;
  start_copies(ring, weights + Weights::bytes, source);

  Sums<4, channel_columns> dk;
  Sums<4, channel_columns> dv;
  clear(dk);
  clear(dv);
  const int row = key + warp_row<W>();
  const int column = channel + warp_column<W, channel_columns>();
  int left = p.shape.length;
  do {
    const int columns = least(left, QUERIES);
    // No thread reads the statistics or slopes of earlier queries any more: steps of dk have come since the former, and
    // one of the scores comes before the latter.
    load_statistics(queries, statistics, p.shape.length, p.shape.length - left);
    {
      Sums<4, score_columns> scores;
      clear(scores);
      multiply_scores(scores, ring, source);
      put_column_weights<Weights, W>(weights, scores, queries, p.log2_scale);
    }
    multiply_values(dv, weights, columns, ring, source);
    left -= QUERIES;
    const bool last = WHOLE || left <= 0;
    if (last) {
      // Here, so that where all queries are visited at once dp takes the registers of dv.
      store_sums<ACCESS, P>(p.dv, p.shape, sequence, row, column, dv);
    }

    Sums<4, score_columns> dp;
    clear(dp);
    multiply_scores(dp, ring, source);
    put_column_slopes<Weights, W>(weights, dp, queries, p.scale);
    multiply_values(dk, weights, columns, ring, source);
  } while (!WHOLE && left > 0);
  store_sums<ACCESS, P>(p.dk, p.shape, sequence, row, column, dk);
}

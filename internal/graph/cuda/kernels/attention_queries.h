// The first half of attention's gradient (attention_grad.h): the statistics of the queries, and dq.
//
// A block of threads owns ROWS queries and WIDTH of the D channels of dq, and takes KEYS keys at a time. It goes
// through the keys twice: there to find the greatest score, the sum of the weights and the mean of each row, with a
// running softmax, and back to compute the keys' scores and dP again, now with the slopes dS of them, which lie in
// shared memory, and multiply those with k. What it has at the end of the way there is not computed again, so up to
// KEYS pixels take one visit.
//
// The launcher starts attn_queries_<precision>_<ROWS>x<KEYS>x<WIDTH> with
//   grid    images * heads * slices * ceil(L/ROWS) blocks in x; each of the slices = ceil(D/WIDTH) of the channels
//           computes the scores again
//   block   2*ROWS threads, but 256 for 64x128x256
//   shared  ROWS*KEYS*b + 3*max(64*(ROWS+KEYS), 16384) bytes, where b is 2 for bf16, else 4
//   scale   1/sqrt(D); log2_scale is log2(e) times that
// Instances that end in _whole need L <= KEYS. Those that end in _any accept every tensor (ELEMENTS of
// attention_tiles.h), the others those that allow CHUNKS. Results do not depend on ROWS.
#pragma once

#include "attention_grad.h"
#include "attention_softmax.h"

// Visits are key_blocks there and all but the last of them back.
DEV int visits_of(int key_blocks) { return 2 * key_blocks - 1; }
DEV int visited(int visit, int key_blocks) { return visit < key_blocks ? visit : visits_of(key_blocks) - 1 - visit; }

// QueriesSource is what a block copies: at each visit of KEYS keys q and k, then dout and v, and on the way back k.
template <class TILES, AttentionAccess ACCESS>
struct QueriesSource : AttentionSource<TILES, ACCESS> {
  AttentionTensor q;
  AttentionTensor k;
  AttentionTensor v;
  AttentionTensor dout;
  int key_blocks;
  int visit;
};

template <class Tiles, AttentionAccess ACCESS>
DEV void copy_step(QueriesSource<Tiles, ACCESS>& source, char* to) {
  if (source.visit >= visits_of(source.key_blocks)) {
    return;
  }
  bool visited_all = false;
  switch (source.product) {
    case 0:
      source.product += copy_scores(source, to, source.q, source.k);
      break;
    case 1:
      if (copy_scores(source, to, source.dout, source.v)) {
        source.product = 2;
        visited_all = source.visit < source.key_blocks - 1;
      }
      break;
    default:
      visited_all = copy_values(source, to, source.k);
  }
  if (visited_all) {
    source.product = 0;
    source.visit++;
    source.column = visited(source.visit, source.key_blocks) * Tiles::columns;
  }
}

// row_products is the sum, over what a warp has of each row, of weights times what belongs to them. Whole warp.
template <class T, class W, int N>
DEV RowValues row_products(char* weights, const Sums<4, N>& factors) {
  RowValues sums;
  fill(sums, 0);
#pragma unroll
  for (int i = 0; i < 8 * N; i++) {
    const int m = i / 2 / N, half = i / N % 2, n = i % N;
    float pair[2];
    get_pair(typename T::Precision(), pair_of<T, W, N>(weights, m, half, n), pair);
    sums.of[m][half] = fma(pair[0], factors.d[m][n][2 * half], sums.of[m][half]);
    sums.of[m][half] = fma(pair[1], factors.d[m][n][2 * half + 1], sums.of[m][half]);
  }
  fold_lanes<TOTAL>(sums);
  return sums;
}

// put_slopes puts dS in the place of the weights, which inverse divides by the sums of their rows.
template <class T, class W, int N>
DEV void put_slopes(char* weights, const Sums<4, N>& dp, const RowValues& inverse, const RowValues& mean, float scale) {
#pragma unroll
  for (int i = 0; i < 8 * N; i++) {
    const int m = i / 2 / N, half = i / N % 2, n = i % N;
    char* at = pair_of<T, W, N>(weights, m, half, n);
    float pair[2];
    get_pair(typename T::Precision(), at, pair);
#pragma unroll
    for (int e = 0; e < 2; e++) {
      pair[e] = pair[e] * inverse.of[m][half] * (dp.d[m][n][2 * half + e] - mean.of[m][half]) * scale;
    }
    put_pair(typename T::Precision(), at, pair);
  }
}

// store_statistics writes those of the warp's rows, as far as there are queries from the first row on.
template <class W>
DEV void store_statistics(float* statistics, int first_row, int length, const RowValues& tops, const RowValues& inverse,
                          const RowValues& mean) {
  if (thread_x() / 32 % W::across != 0 || thread_x() % 4 != 0) {
    return;
  }
  const int row = first_row + warp_row<W>() + thread_x() % 32 / 4;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (row + 8 * i < length) {
      statistics[row + 8 * i] = tops.of[i / 2][i % 2];
      statistics[length + row + 8 * i] = inverse.of[i / 2][i % 2];
      statistics[2 * length + row + 8 * i] = mean.of[i / 2][i % 2];
    }
  }
}

template <class P, AttentionAccess ACCESS, class W, int KEYS, int WIDTH, bool WHOLE>
DEV void attention_queries(const AttentionGradParams& p) {
  typedef AttentionTiles<P, W, KEYS, WIDTH> Tiles;
  typedef typename Tiles::Weights Weights;
  constexpr int score_columns = KEYS / 8 / W::across;
  constexpr int channel_columns = WIDTH / 8 / W::across;
  SHARED RowParts<W> parts;
  char* weights = dynamic_shared();

  const u32 query_blocks = (p.shape.length + W::rows - 1) / W::rows;
  const u32 outer = block_x() / query_blocks;
  const u32 sequence = outer / p.slices;
  const int query = block_x() % query_blocks * W::rows;
  const int channel = outer % p.slices * WIDTH;
  const int key_blocks = WHOLE ? 1 : (p.shape.length + KEYS - 1) / KEYS;

  QueriesSource<Tiles, ACCESS> source;
  source.q = p.q;
  source.k = p.k;
  source.v = p.v;
  source.dout = p.dout;
  source.key_blocks = key_blocks;
  source.visit = 0;
  begin_copies(source, p.shape, sequence, query, channel);
  CopyRing<3, Tiles::stage> ring;
  start_copies(ring, weights + Weights::bytes, source);

  RowValues tops;
  RowValues total;
  RowValues mean;
  fill(tops, -__builtin_inff());
  fill(total, 0);
  fill(mean, 0);
  Sums<4, channel_columns> dq;
  clear(dq);
  for (int visit = 0; visit < (WHOLE ? 1 : visits_of(key_blocks)); visit++) {
    const int keys = least(p.shape.length - visited(visit, key_blocks) * KEYS, KEYS);
    const bool there = visit < key_blocks;
    RowValues shrink;
    {
      Sums<4, score_columns> scores;
      clear(scores);
      multiply_scores(scores, ring, source);
      if (keys < KEYS) {
        mask_scores<W>(scores, keys);
      }
      if (there) {
        shrink = raise_tops(tops, scores, p.log2_scale, parts);
      }
      // No thread reads the slopes of earlier keys any more: a step of the scores has come since.
      const RowValues sum = put_weights<Weights, W>(weights, scores, tops, p.log2_scale);
      if (there) {
        shrink_and_add(total, shrink, sum);
      }
    }

    Sums<4, score_columns> dp;
    clear(dp);
    multiply_scores(dp, ring, source);
    // Each thread reads the weights that it has put, and puts slopes in their place.
    if (there) {
      shrink_and_add(mean, shrink, row_products<Weights, W>(weights, dp));
    }
    if (visit < key_blocks - 1) {
      continue;
    }
    if (visit == key_blocks - 1) {
      fold_warps<TOTAL>(total, parts);
      barrier();
      fold_warps<TOTAL>(mean, parts);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        float& inverse = total.of[i / 2][i % 2];
        inverse = div_exact(1.0f, inverse);
        mean.of[i / 2][i % 2] *= inverse;
      }
      if (channel == 0) {
        store_statistics<W>(p.statistics + (i64)sequence * attention_statistics * p.shape.length, query, p.shape.length,
                            tops, total, mean);
      }
    }
    put_slopes<Weights, W>(weights, dp, total, mean, p.scale);
    multiply_values(dq, weights, keys, ring, source);
  }
  store_sums<ACCESS, P>(p.dq, p.shape, sequence, query + warp_row<W>(), channel + warp_column<W, channel_columns>(),
                        dq);
}

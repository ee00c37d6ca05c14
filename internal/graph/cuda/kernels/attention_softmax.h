// Rows of scores and their softmax, for attention and its gradient.
//
// A block owns 64 queries of one head of one image and takes the keys KEYS at a time. Its four warps share the columns
// of what it computes: each has 64 rows and a quarter of the columns (Sums<4, N> of tile.h).
//
// Scores s = q.k are kept without their factor; a weight is exp2(scale*(s - top)), where scale is log2(e)/sqrt(D) and
// top the greatest score of the row so far, so that it is at most 1. When a greater score comes, what was summed until
// then shrinks by exp2(scale*(old top - new top)) (Milakov & Gimelshein, "Online normalizer calculation for softmax",
// 2018).
//
// In bfloat16, weights are rounded before they are summed, so that divided by their sum they do sum to 1.
#pragma once

#include "attention_tiles.h"

constexpr int attention_queries = 64;

// RowValues is a number for each of a thread's rows: [m][half] is row 16*m + 8*half + lane/4.
struct RowValues {
  float of[4][2];
};

DEV void fill(RowValues& values, float v) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    values.of[i / 2][i % 2] = v;
  }
}

DEV void shrink_and_add(RowValues& values, const RowValues& shrink, const RowValues& more) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float& v = values.of[i / 2][i % 2];
    v = fma(v, shrink.of[i / 2][i % 2], more.of[i / 2][i % 2]);
  }
}

// warp_column is the first column of a warp's part of 32*N.
template <int N>
DEV u32 warp_column() {
  return thread_x() / 32 * (8 * N);
}

// weight_pair is where a tile has the thread's two elements in row [m][half] of fragment n.
template <class T, int N>
DEV char* weight_pair(char* tile, int m, int half, int n) {
  return pair_of<T>(tile, 0, warp_column<N>(), n) + (16 * m + 8 * half) * (T::chunks * 16);
}

// scale_rows multiplies each row by its factor.
template <int N>
DEV void scale_rows(Sums<4, N>& sums, const RowValues& factor) {
#pragma unroll
  for (int i = 0; i < 16 * N; i++) {
    sums.d[i / 4 / N][i / 4 % N][i % 4] *= factor.of[i / 4 / N][i % 4 / 2];
  }
}

enum RowFold { TOTAL, GREATEST };

template <RowFold FOLD>
DEV float fold(float a, float b) {
  return FOLD == TOTAL ? a + b : __builtin_fmaxf(a, b);
}

// fold_lanes folds what the four lanes of a row have, and gives it to all of them; whole warp.
template <RowFold FOLD>
DEV void fold_lanes(RowValues& values) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float& v = values.of[i / 2][i % 2];
    v = fold<FOLD>(v, shuffle_xor(v, 1));
    v = fold<FOLD>(v, shuffle_xor(v, 2));
  }
}

// fold_warps folds what the four warps have of a row, each in all of its lanes, and gives it to all of them. part is
// not used again before a barrier. All threads of the block.
template <RowFold FOLD>
DEV void fold_warps(RowValues& values, float (&part)[4][attention_queries]) {
  float* row = &part[0][thread_x() % 32 / 4];
  if (thread_x() % 4 == 0) {
    float* mine = row + thread_x() / 32 * attention_queries;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      mine[8 * i] = values.of[i / 2][i % 2];
    }
  }
  barrier();
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const float left = fold<FOLD>(row[8 * i], row[8 * i + attention_queries]);
    const float right = fold<FOLD>(row[8 * i + 2 * attention_queries], row[8 * i + 3 * attention_queries]);
    values.of[i / 2][i % 2] = fold<FOLD>(left, right);
  }
}

// mask_scores takes the columns from a number of keys on out of the softmax.
template <int N>
DEV void mask_scores(Sums<4, N>& scores, int keys) {
  const int left = keys - (int)warp_column<N>() - (int)(thread_x() % 4 * 2);
#pragma unroll
  for (int i = 0; i < 16 * N; i++) {
    const int n = i / 4 % N;
    if (8 * n + i % 2 >= left) {
      scores.d[i / 4 / N][n][i % 4] = -__builtin_inff();
    }
  }
}

// raise_tops takes new scores into the tops, which are kept times scale, and says by what earlier sums of each row
// shrink. All threads of the block.
template <int N>
DEV RowValues raise_tops(RowValues& tops, const Sums<4, N>& scores, float scale, float (&part)[4][attention_queries]) {
  RowValues greatest;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float v = scores.d[i / 2][0][i % 2 * 2];
#pragma unroll
    for (int j = 1; j < 2 * N; j++) {
      v = fold<GREATEST>(v, scores.d[i / 2][j / 2][i % 2 * 2 + j % 2]);
    }
    greatest.of[i / 2][i % 2] = v;
  }
  fold_lanes<GREATEST>(greatest);
  fold_warps<GREATEST>(greatest, part);
  RowValues shrink;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float& top = tops.of[i / 2][i % 2];
    const float raised = fold<GREATEST>(top, scale * greatest.of[i / 2][i % 2]);
    shrink.of[i / 2][i % 2] = exp2_approx(top - raised);
    top = raised;
  }
  return shrink;
}

// put_weights makes weights of scores, puts them into a tile and gives the sum of what a warp has of each row. Whole
// warp.
template <class T, int N>
DEV RowValues put_weights(char* tile, const Sums<4, N>& scores, const RowValues& tops, float scale) {
  RowValues sums;
  fill(sums, 0);
#pragma unroll
  for (int i = 0; i < 8 * N; i++) {
    const int m = i / 2 / N, half = i / N % 2, n = i % N;
    const float* score = scores.d[m][n] + 2 * half;
    const float top = tops.of[m][half];
    float pair[2] = {exp2_approx(fma(score[0], scale, -top)), exp2_approx(fma(score[1], scale, -top))};
    put_pair(typename T::Precision(), weight_pair<T, N>(tile, m, half, n), pair);
    sums.of[m][half] += pair[0] + pair[1];
  }
  fold_lanes<TOTAL>(sums);
  return sums;
}

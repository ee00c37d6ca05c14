// Rows of scores and their softmax, for attention and the gradient of its queries.
//
// A block owns some queries of one head of one image and takes the keys KEYS at a time. Each of its warps has 64 rows
// and a part of the columns (Warps of attention_tiles.h, Sums<4, N> of tile.h).
//
// Scores s = q.k are kept without their factor; a weight is exp2(scale*(s - top)), where scale is log2(e)/sqrt(D) and
// top the greatest score of the row so far, so that it is at most 1. When a greater score comes, what was summed until
// then shrinks by exp2(scale*(old top - new top)) (Milakov & Gimelshein, "Online normalizer calculation for softmax",
// 2018).
//
// In bfloat16, weights are rounded before they are summed, so that divided by their sum they do sum to 1.
#pragma once

#include "attention_tiles.h"

// RowValues is a number for each of a thread's rows: [m][half] is row 16*m + 8*half + lane/4 of its warp's.
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

// RowParts is what each warp has of each row of the block, in shared memory.
template <class W>
struct RowParts {
  float of[W::across][W::rows];
};

// fold_warps folds what the warps have of a row, each in all of its lanes, and gives it to all of them. parts is not
// used again before a barrier. All threads of the block.
template <RowFold FOLD, class W>
DEV void fold_warps(RowValues& values, RowParts<W>& parts) {
  const u32 row = warp_row<W>() + thread_x() % 32 / 4;
  if (thread_x() % 4 == 0) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      parts.of[thread_x() / 32 % W::across][row + 8 * i] = values.of[i / 2][i % 2];
    }
  }
  barrier();
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float all[W::across];
#pragma unroll
    for (int j = 0; j < W::across; j++) {
      all[j] = parts.of[j][row + 8 * i];
    }
#pragma unroll
    for (int width = 1; width < W::across; width *= 2) {
#pragma unroll
      for (int j = 0; j < W::across; j += 2 * width) {
        all[j] = fold<FOLD>(all[j], all[j + width]);
      }
    }
    values.of[i / 2][i % 2] = all[0];
  }
}

// mask_scores takes the columns from a number of keys on out of the softmax.
template <class W, int N>
DEV void mask_scores(Sums<4, N>& scores, int keys) {
  const int left = keys - (int)warp_column<W, N>() - (int)(thread_x() % 4 * 2);
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
template <class W, int N>
DEV RowValues raise_tops(RowValues& tops, const Sums<4, N>& scores, float scale, RowParts<W>& parts) {
  RowValues high;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float v = scores.d[i / 2][0][i % 2 * 2];
#pragma unroll
    for (int j = 1; j < 2 * N; j++) {
      v = fold<GREATEST>(v, scores.d[i / 2][j / 2][i % 2 * 2 + j % 2]);
    }
    high.of[i / 2][i % 2] = v;
  }
  fold_lanes<GREATEST>(high);
  fold_warps<GREATEST>(high, parts);
  RowValues shrink;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float& top = tops.of[i / 2][i % 2];
    const float raised = fold<GREATEST>(top, scale * high.of[i / 2][i % 2]);
    shrink.of[i / 2][i % 2] = exp2_approx(top - raised);
    top = raised;
  }
  return shrink;
}

// put_weights makes weights of scores, puts them into a tile and gives the sum of what a warp has of each row. Whole
// warp.
template <class T, class W, int N>
DEV RowValues put_weights(char* tile, const Sums<4, N>& scores, const RowValues& tops, float scale) {
  RowValues sums;
  fill(sums, 0);
#pragma unroll
  for (int i = 0; i < 8 * N; i++) {
    const int m = i / 2 / N, half = i / N % 2, n = i % N;
    const float* score = scores.d[m][n] + 2 * half;
    const float top = tops.of[m][half];
    float pair[2] = {exp2_approx(fma(score[0], scale, -top)), exp2_approx(fma(score[1], scale, -top))};
    put_pair(typename T::Precision(), pair_of<T, W, N>(tile, m, half, n), pair);
    sums.of[m][half] += pair[0] + pair[1];
  }
  fold_lanes<TOTAL>(sums);
  return sums;
}

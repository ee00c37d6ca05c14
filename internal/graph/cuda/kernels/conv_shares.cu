// The sums of shares: what a product is where several blocks each did a share of its steps (product.h).
//
//   y[row][column] = shares[0][row][column] + shares[1][row][column] + ..., plus what the product's result gets
//
// A launch has a thread for every 8 columns of every row: ceil(rows * ceil(columns / 8) / 256) blocks.
#include "product.h"

struct ConvSharesParams {
  ConvShares shares;
  ConvResult result;
};

// add_shares adds 8 columns' sums in the order of the shares.
DEV void add_shares(const ConvSharesParams& p, i64 at, float (&v)[8]) {
  const i64 pitch = p.result.rows * p.result.columns;
#pragma unroll 4
  for (int share = 0; share < p.shares.count; share++) {
    add_piece(v, p.shares.sums + share * pitch, at, 0);
  }
}

KERNEL BOUNDS(256, 2) conv_sum_shares(ConvSharesParams p) {
  const u32 pieces = (p.result.columns + 7) / 8;
  const u32 piece = block_x() * 256 + thread_x();
  const i64 row = piece / pieces;
  const u32 column = piece % pieces * 8;
  if (row >= p.result.rows) {
    return;
  }
  const i64 at = row * p.result.columns + column;
  if (p.result.in_pieces) {
    float sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    add_shares(p, at, sums);
    if (p.result.bias) {
      add_piece(sums, p.result.bias, column, 0);
    }
    add_addends(p.result, row, column, sums);
    store8(p.result.y, at, p.result.y_bf16, sums);
    return;
  }
  for (u32 e = 0; e < 8 && column + e < (u32)p.result.columns; e++) {
    float sum = 0;
    for (int share = 0; share < p.shares.count; share++) {
      sum += p.shares.sums[share * p.result.rows * p.result.columns + at + e];
    }
    store_element(p.result, row, column + e, sum);
  }
}

// Convolutions and linear layers: y [N,OH,OW,K] of x [N,H,W,C], which may be two images side by side or one to be
// doubled, and w [R,S,C,K]; plus bias, a value per sample and a residual.
//
//   y[n,i,j,k] = sum over (r, s, c) of x[n, i*stride+r-top, j*stride+s-left, c] w[r,s,c,k]
//
// The product is of the gathered x and the weights as they are. A launch has
//
//   grid x    tiles: ceil(N*OH*OW / M) * ceil(K / N), for a kernel named MxN; any is 64x64
//   grid y    shares of the steps
#pragma once

#include "product.h"

struct ConvForwardParams {
  ConvImage x;
  ConvWindow window;
  ConvMatrix w;
  ConvShares shares;
  ConvResult result;
};

template <class S, bool ASYNC_X, bool ASYNC_W>
DEV void forward(const ConvForwardParams& p) {
  typedef typename S::AlongM A;
  typedef typename S::AcrossN B;
  const u32 across = (p.w.columns + S::n - 1) / S::n;
  const u32 m = block_x() / across * S::m;
  const u32 n = block_x() % across * S::n;
  const int share = block_y();
  const int first = share * p.shares.steps;
  const int steps = share_steps(p.shares, share, (p.w.rows + S::k - 1) / S::k);
  auto a = load_seen<A, S::threads, ASYNC_X>(p.x, p.window, m, first * S::k);
  auto b = load_plain<B, S::threads, ASYNC_W>(p.w, first * S::k, n);
  Sums<S::fragments_m, S::fragments_n> sums;
  accumulate<S, A, B>(sums, a, b, steps);
  store_sums<S>(sums, share_of(p.result, p.shares, share), SameRows{p.result.rows}, m, n);
}

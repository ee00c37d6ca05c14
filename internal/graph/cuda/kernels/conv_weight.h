// The gradient of convolutions and linear layers with respect to their weights: dw [R,S,C,K] from x [N,H,W,C] and
// dy [N,OH,OW,K].
//
//   dw[r,s,c,k] = sum over output pixels (n, i, j) of x[n, i*stride+r-top, j*stride+s-left, c] dy[n,i,j,k]
//
// The product is of the gathered x, transposed, and dy; its k are the output pixels. A launch has
//
//   grid x    tiles: ceil(R*S*C / M) * ceil(K / N), for a kernel named MxN; any is 64x64
//   grid y    shares of the steps
#pragma once

#include "product.h"

struct ConvWeightParams {
  ConvImage x;
  ConvWindow window;
  ConvMatrix dy;
  ConvShares shares;
  ConvResult result;
};

template <class S, bool ASYNC_X, bool ASYNC_DY>
DEV void gradient(const ConvWeightParams& p) {
  typedef typename S::AcrossM A;
  typedef typename S::AcrossN B;
  const u32 across = (p.dy.columns + S::n - 1) / S::n;
  const u32 m = block_x() / across * S::m;
  const u32 n = block_x() % across * S::n;
  const int share = block_y();
  const int first = share * p.shares.steps * S::k;
  const int steps = share_steps(p.shares, share, (p.dy.rows + S::k - 1) / S::k);
  auto a = load_seen<A, S::threads, ASYNC_X>(p.x, p.window, first, m);
  auto b = load_plain<B, S::threads, ASYNC_DY>(p.dy, first, n);
  Sums<S::fragments_m, S::fragments_n> sums;
  accumulate<S, A, B>(sums, a, b, steps);
  store_sums<S>(sums, share_of(p.result, p.shares, share), SameRows{p.result.rows}, m, n);
}

// The gradient of convolutions and linear layers with respect to their input: dx [N,H,W,C] from dy [N,OH,OW,K] and
// w [R,S,C,K], plus a residual.
//
//   dx[n,y,x,c] = sum over (r, s, k) of dy[n, (y+top-r)/stride, (x+left-s)/stride, k] w[r,s,c,k]
//
// over the taps for which both divide. Pixels are treated in stride*stride phases: those of a phase agree in
// y mod stride and x mod stride, so they see the same taps, every stride'th one, and taps that follow each other see
// pixels of dy that do, backwards. Within a phase, this is a convolution of stride 1.
//
// The product is of the gathered dy and the turned weights. A launch has
//
//   grid x    tiles of a phase: ceil(pixels / M) * ceil(C / N), for a kernel named MxN; any is 64x64
//   grid y    shares of the steps
//   grid z    phases: stride*stride
#pragma once

#include "product.h"

struct ConvDataParams {
  ConvImage dy;
  ConvWeights w;
  ConvShares shares;
  ConvResult result;
  int stride;
  int top;
  int left;
  int height;  // of dx
  int width;
  u32 pixels;            // of a phase, of all samples: N * ceil(H / stride) * ceil(W / stride)
  FastDivisor by_plane;  // and of one sample
  FastDivisor by_width;  // and of one row
};

// PhaseRows are the pixels of dx in a phase: row stride*i + y and column stride*j + x for pixel (i, j).
struct PhaseRows {
  const ConvDataParams& p;
  int y;
  int x;
};

DEV i64 result_row(const PhaseRows& rows, u32 m) {
  const ConvDataParams& p = rows.p;
  const u32 sample = divide(m, p.by_plane);
  const u32 rest = m - sample * p.by_plane.divisor;
  const u32 i = divide(rest, p.by_width);
  const u32 j = rest - i * p.by_width.divisor;
  const int y = i * p.stride + rows.y;
  const int x = j * p.stride + rows.x;
  const bool inside = m < p.pixels && y < p.height && x < p.width;
  return inside ? ((i64)sample * p.height + y) * p.width + x : -1;
}

template <class S, bool ASYNC>
DEV void gradient(const ConvDataParams& p) {
  typedef typename S::AlongM A;
  typedef typename S::AlongN B;
  const PhaseRows rows{p, (int)block_z() / p.stride, (int)block_z() % p.stride};
  const int r = (rows.y + p.top) % p.stride;
  const int s = (rows.x + p.left) % p.stride;
  const int tap_rows = (p.w.r - r + p.stride - 1) / p.stride;
  const int tap_columns = (p.w.s - s + p.stride - 1) / p.stride;
  const bool none = p.w.r <= r || p.w.s <= s;
  const ConvTaps taps{r, s, p.stride, none ? 0 : tap_rows, none ? 1 : tap_columns};
  const ConvWindow window{taps.rows,
                          taps.columns,
                          1,
                          -1,
                          -((rows.y + p.top) / p.stride),
                          -((rows.x + p.left) / p.stride),
                          p.pixels,
                          p.by_plane,
                          p.by_width};
  const u32 across = (p.w.c + S::n - 1) / S::n;
  const u32 m = block_x() / across * S::m;
  const u32 n = block_x() % across * S::n;
  const int share = block_y();
  const int first = share * p.shares.steps * S::k;
  const int steps = share_steps(p.shares, share, (taps.rows * taps.columns * p.w.k + S::k - 1) / S::k);
  auto a = load_seen<A, S::threads, ASYNC>(p.dy, window, m, first);
  auto b = load_turned<B, S::threads, ASYNC>(p.w, taps, n, first);
  Sums<S::fragments_m, S::fragments_n> sums;
  accumulate<S, A, B>(sums, a, b, steps);
  store_sums<S>(sums, share_of(p.result, p.shares, share), rows, m, n);
}

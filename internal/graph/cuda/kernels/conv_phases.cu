// The weight gradient of a 3x3 convolution, with padding 1, of an image that was doubled. Such a convolution is four
// of 2x2 taps, one for each phase of the result: pixel (2i+p, 2j+q) sees through row r of the kernel row
// i + floor((p+r-1)/2) of the image, which rows r of the same e(p, r) = floor((r+1-p)/2) share, and columns likewise. So
//
//   dw[r,s] = sum over p, q of the gradient of phase (p, q) with respect to its tap [e(p,r), e(q,s)]
//
// Each is given in shares, which are added first, in their order, then the phases in theirs. A launch has a thread for
// every 4 elements of a tap: elements / 512 blocks of 128 threads. elements is a multiple of 512, and arrays begin at
// multiples of 16 bytes.
#include "device.h"
#include "numeric.h"

struct ConvPhasesParams {
  const float* sums;  // [shares][2][2][2][2][elements]: phase, then tap
  float* y;           // [3][3][elements]
  i64 elements;       // of a tap
  int shares;
};

// add_phase adds 4 elements of the taps of phase (P, Q) to those of the kernel.
template <int P, int Q>
DEV void add_phase(const ConvPhasesParams& p, i64 at, float (&taps)[3][3][4]) {
  float sums[2][2][4] = {};
#pragma unroll 4
  for (int share = 0; share < p.shares; share++) {
#pragma unroll
    for (int tap = 0; tap < 4; tap++) {
      float v[4];
      load4(p.sums, ((i64)share * 16 + (2 * P + Q) * 4 + tap) * p.elements + at, 0, v);
#pragma unroll
      for (int e = 0; e < 4; e++) {
        sums[tap / 2][tap % 2][e] += v[e];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 3; r++) {
#pragma unroll
    for (int s = 0; s < 3; s++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        taps[r][s][e] += sums[(r + 1 - P) / 2][(s + 1 - Q) / 2][e];
      }
    }
  }
}

KERNEL BOUNDS(128, 4) conv_sum_phases(ConvPhasesParams p) {
  const i64 at = ((i64)block_x() * 128 + thread_x()) * 4;
  float taps[3][3][4] = {};
  add_phase<0, 0>(p, at, taps);
  add_phase<0, 1>(p, at, taps);
  add_phase<1, 0>(p, at, taps);
  add_phase<1, 1>(p, at, taps);
#pragma unroll
  for (int tap = 0; tap < 9; tap++) {
    store4(p.y, tap * p.elements + at, 0, taps[tap / 3][tap % 3]);
  }
}

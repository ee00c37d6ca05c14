// Weights of a convolution behind nearest up-sampling, for the image as it is before: sums of taps.
//
// A 3x3 convolution with a margin of 1 of an image doubled in height and width sees each pixel twice or more. The
// result's pixels of even and odd rows and columns, four phases, are each a 2x2 convolution of the small image: in one
// dimension, tap a of phase p sees pixel i + a + p - 1 for result 2i + p, where the taps 2a+p-1 and 2a+p of the three
// meet, if they are among them.
//
//   sums[p][q][a][b][c][k] = sum over (r, s) that meet there of w[r,s,c,k], as bf16
//
// Launcher: grid {c*k/8/256 rounded up, 16 taps of phases}, 256 threads; c*k is a multiple of 8, tensors begin at
// multiples of 16 bytes.
#include "device.h"
#include "numeric.h"
#include "values.h"

struct ConvTapsParams {
  const void* w;  // [3][3][c][k]
  void* sums;     // [2][2][2][2][c][k], bf16
  i64 size;       // c*k
  int w_bf16;
  int unused;
};

// TapRange is the taps of the kernel that meet in tap a of phase p, in one dimension.
struct TapRange {
  int first;
  int last;
};

DEV TapRange taps_meeting(int p, int a) { return TapRange{max_int(0, 2 * a + p - 1), min_int(2, 2 * a + p)}; }

KERNEL BOUNDS(256, 4) conv_sum_taps(ConvTapsParams p) {
  const i64 at = ((i64)block_x() * 256 + thread_x()) * 8;
  if (at >= p.size) {
    return;
  }
  const int tap = block_y();
  const TapRange rows = taps_meeting(tap / 8, tap / 2 % 2);
  const TapRange columns = taps_meeting(tap / 4 % 2, tap % 2);
  float sums[8] = {};
  for (int r = rows.first; r <= rows.last; r++) {
    for (int s = columns.first; s <= columns.last; s++) {
      float w[8];
      load8(p.w, (r * 3 + s) * p.size + at, p.w_bf16, w);
#pragma unroll
      for (int e = 0; e < 8; e++) {
        sums[e] += w[e];
      }
    }
  }
  store8(p.sums, tap * p.size + at, 1, sums);
}

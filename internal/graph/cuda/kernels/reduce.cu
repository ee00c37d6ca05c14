// Sums of columns: x [S,R,C] over R to [S,C], float32. The sum over the pixels of each image, of the rows of a
// matrix (the gradient of a bias), of the partial sums of other kernels.
//
// A block of 256 threads sums a chunk of the rows of one sample: lanes threads beside each other have a pack of
// columns each, rows of them different rows. Where there are several chunks, out is [S,chunks,C], and a second launch
// sums that. Launcher: chunk and chunks depend on R and C alone; grid {S * chunks, slabs of lanes packs}; lanes*rows
// is at most 256. A packed instance needs whole packs of columns.
#include "device.h"
#include "numeric.h"
#include "reduce.h"
#include "values.h"

constexpr int sum_threads = 256;

struct SumColumnsParams {
  Values x;
  float* out;
  i64 length;   // R
  i64 chunk;    // rows of a block; the last chunk of a sample may have fewer
  int columns;  // C
  int chunks;   // of a sample
  int lanes;
  int rows;
};

template <class Access>
DEV void sum_columns(Access access, const SumColumnsParams& p) {
  constexpr int W = Access::width;
  constexpr int ahead = 8;
  SHARED float shared[W][sum_threads];
  const int row = thread_x() / p.lanes;
  const int column = (block_y() * p.lanes + thread_x() % p.lanes) * W;
  const bool active = row < p.rows && column < p.columns;
  float sum[W];
#pragma unroll
  for (int i = 0; i < W; i++) {
    sum[i] = 0;
  }
  if (active) {
    const i64 begin = (block_x() % p.chunks) * p.chunk;
    const i64 end = min_i64(begin + p.chunk, p.length);
    const i64 x = (block_x() / p.chunks) * p.length * p.columns + column;
    for (i64 at = begin + row; at < end; at += ahead * p.rows) {
      typename Access::Raw raw[ahead];
#pragma unroll
      for (int k = 0; k < ahead; k++) {
        if (at + k * p.rows < end) {
          raw[k] = fetch(access, p.x, x + (at + k * p.rows) * p.columns);
        }
      }
#pragma unroll
      for (int k = 0; k < ahead; k++) {
        if (at + k * p.rows < end) {
          float v[W];
          unpack(access, raw[k], v);
#pragma unroll
          for (int i = 0; i < W; i++) {
            sum[i] += v[i];
          }
        }
      }
    }
  }
  fold_rows(sum, shared, row, p.rows, p.lanes, Sums<W>{});
  if (active && row == 0) {
    float* out = p.out + (i64)block_x() * p.columns + column;
#pragma unroll
    for (int i = 0; i < W; i++) {
      out[i] = sum[i];
    }
  }
}

KERNEL BOUNDS(256, 3) sum_columns_bf16(SumColumnsParams p) { sum_columns(PackedBf16{}, p); }
KERNEL BOUNDS(256, 3) sum_columns_f32(SumColumnsParams p) { sum_columns(PackedF32{}, p); }
KERNEL BOUNDS(256, 3) sum_columns_any(SumColumnsParams p) { sum_columns(Single{}, p); }

// The loss: the squared error of each sample, means, and their gradients.
#include "device.h"
#include "numeric.h"
#include "quads.h"
#include "reduce.h"
#include "values.h"

// SquaredErrorParams: out [N,chunks] receives the sum of (pred - target)^2 over each chunk of the values of each
// sample, divided by divisor. Launcher: 256 threads, grid {N * chunks}, chunk a multiple of 4; extents.blocks is
// unused.
struct SquaredErrorParams {
  Values pred;
  Values target;
  float* out;
  QuadExtents extents;
  i64 chunk;
  int chunks;
  float divisor;
};

KERNEL BOUNDS(256, 4) squared_error(SquaredErrorParams p) {
  SHARED float shared[quad_threads / 32];
  const i64 sample = block_x() / p.chunks;
  const i64 begin = block_x() % p.chunks * p.chunk;
  const i64 end = min_i64(begin + p.chunk, p.extents.size);
  float sum = 0;
  for (i64 first = begin + 4 * (i64)thread_x(); first < end; first += 4 * quad_threads) {
    const Quad q = {sample, first, sample * p.extents.size + first, (int)min_i64(4, end - first)};
    float pred[4], target[4];
    load_quad(p.extents, q, p.pred, pred);
    load_quad(p.extents, q, p.target, target);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float difference = pred[i] - target[i];
      sum = fma(difference, difference, sum);
    }
  }
  sum = block_sum<quad_threads>(sum, shared);
  if (thread_x() == 0) {
    p.out[block_x()] = div_exact(sum, p.divisor);
  }
}

// RowSumsParams: out[m] is the sum of row m of x [M,length], divided by divisor. Launcher: 256 threads, grid {M}.
struct RowSumsParams {
  const float* x;
  float* out;
  i64 length;
  float divisor;
};

KERNEL BOUNDS(256, 4) row_sums(RowSumsParams p) {
  SHARED float shared[quad_threads / 32];
  const float* x = p.x + block_x() * p.length;
  float sum = 0;
  for (i64 i = thread_x(); i < p.length; i += quad_threads) {
    sum += x[i];
  }
  sum = block_sum<quad_threads>(sum, shared);
  if (thread_x() == 0) {
    p.out[block_x()] = div_exact(sum, p.divisor);
  }
}

// SquaredErrorGradParams: dpred = derror scale (pred - target), derror [N], scale = 2/size.
struct SquaredErrorGradParams {
  Values pred;
  Values target;
  const float* derror;
  Values dpred;
  QuadExtents extents;
  float scale;
};

KERNEL BOUNDS(256, 4) squared_error_grad(SquaredErrorGradParams p) {
  const Quad q = quad_place(p.extents);
  if (q.count == 0) {
    return;
  }
  float pred[4], target[4];
  load_quad(p.extents, q, p.pred, pred);
  load_quad(p.extents, q, p.target, target);
  const float scale = p.derror[q.sample] * p.scale;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    pred[i] = scale * (pred[i] - target[i]);
  }
  store_quad(p.extents, q, p.dpred, 0, pred);
}

// MeanGradParams: out[i] = x[0]/n for n elements.
struct MeanGradParams {
  const float* x;
  float* out;
  int n;
};

KERNEL BOUNDS(256, 4) mean_grad(MeanGradParams p) {
  const int i = block_x() * 256 + thread_x();
  if (i < p.n) {
    p.out[i] = div_exact(p.x[0], p.n);
  }
}

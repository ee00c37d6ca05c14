// The loss: the squared error of each sample, the pseudo-Huber loss of it, weights, means, and their gradients.
#include "device.h"
#include "numeric.h"
#include "quads.h"
#include "reduce.h"
#include "values.h"

// SquaredErrorParams: out [N,chunks] receives the sum of (pred - target)^2 over each chunk of the values of each
// sample, divided by divisor. Launcher: 256 threads, grid {N * chunks}, chunk a multiple of 4; extents.blocks is
// unused. squared_error_wide reads the first channels of each pixel of pred, which has more; squared_error does not
// read channels.
struct SquaredErrorParams {
  Values pred;
  Values target;
  float* out;
  QuadExtents extents;
  i64 chunk;
  int chunks;
  float divisor;
  WideChannels channels;
};

template <bool WIDE>
DEV void sum_squared_error(const SquaredErrorParams& p) {
  SHARED float shared[quad_threads / 32];
  const i64 sample = block_x() / p.chunks;
  const i64 begin = block_x() % p.chunks * p.chunk;
  const i64 end = min_i64(begin + p.chunk, p.extents.size);
  float sum = 0;
  for (i64 first = begin + 4 * (i64)thread_x(); first < end; first += 4 * quad_threads) {
    const Quad q = {sample, first, sample * p.extents.size + first, (int)min_i64(4, end - first)};
    float pred[4], target[4];
    if (WIDE) {
      load_wide_quad(p.extents, p.channels, q, p.pred, 0, pred);
    } else {
      load_quad(p.extents, q, p.pred, pred);
    }
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

KERNEL BOUNDS(256, 4) squared_error(SquaredErrorParams p) { sum_squared_error<false>(p); }
KERNEL BOUNDS(256, 4) squared_error_wide(SquaredErrorParams p) { sum_squared_error<true>(p); }

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

// SquaredErrorGradParams: dpred = derror scale (pred - target), derror [N], scale = 2/size. extents are those of pred.
// In squared_error_grad_wide each pixel of pred has wide channels, and of target narrow, the first of these; dpred is 0
// in the others. squared_error_grad does not read wide and narrow.
struct SquaredErrorGradParams {
  Values pred;
  Values target;
  const float* derror;
  Values dpred;
  QuadExtents extents;
  FastDivisor wide;
  int narrow;
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

KERNEL BOUNDS(256, 4) squared_error_grad_wide(SquaredErrorGradParams p) {
  const Quad q = quad_place(p.extents);
  if (q.count == 0) {
    return;
  }
  float pred[4];
  load_quad(p.extents, q, p.pred, pred);
  const float scale = p.derror[q.sample] * p.scale;
  const i64 pixels = p.extents.size / p.wide.divisor;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const u32 pixel = divide((u32)q.first + i, p.wide);
    const int channel = (int)((u32)q.first + i - pixel * p.wide.divisor);
    const bool read = i < q.count && channel < p.narrow;
    const i64 at = (q.sample * pixels + pixel) * p.narrow + channel;
    pred[i] = read ? scale * (pred[i] - load_any(p.target.data, at, p.target.bf16)) : 0;
  }
  store_quad(p.extents, q, p.dpred, 0, pred);
}

// ---- a number for each sample ----

// PerSampleParams: out[i] = f(x[i], y[i]) for n numbers; y is unused by functions of one. out may be x. Launcher: 256
// threads, a thread a number.
struct PerSampleParams {
  const float* x;
  const float* y;
  float* out;
  int n;
  float c;
};

KERNEL BOUNDS(256, 4) weigh(PerSampleParams p) {
  const int i = block_x() * 256 + thread_x();
  if (i < p.n) {
    p.out[i] = p.x[i] * p.y[i];
  }
}

// pseudo_huber is sqrt(x + c^2) - c, as a quotient that does not cancel.
KERNEL BOUNDS(256, 4) pseudo_huber(PerSampleParams p) {
  const int i = block_x() * 256 + thread_x();
  if (i < p.n) {
    p.out[i] = div_exact(p.x[i], sqrt_exact(fma(p.c, p.c, p.x[i])) + p.c);
  }
}

KERNEL BOUNDS(256, 4) pseudo_huber_grad(PerSampleParams p) {
  const int i = block_x() * 256 + thread_x();
  if (i < p.n) {
    p.out[i] = div_exact(p.y[i], 2.0f * sqrt_exact(fma(p.c, p.c, p.x[i])));
  }
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

// The optimiser: the norm of the gradient, sums of parts of a batch, and one step of Adam (Kingma & Ba, 2015) with an
// exponential moving average of the weights.
//
// Arrays are float32 arenas of n elements that begin at multiples of 16 bytes; n need not be a multiple of 4. What
// changes from step to step lies in device memory, so that a captured launch need not change.
#include "device.h"
#include "numeric.h"
#include "values.h"

constexpr int optimizer_threads = 256;

// ---- norm ----

constexpr int square_chunk = 16384;  // elements of a block

// double_sum is the sum over a block of 256 threads, in thread 0.
DEV double double_sum(double v, double shared[optimizer_threads]) {
  const int thread = thread_x();
  shared[thread] = v;
  for (int half = optimizer_threads / 2; half > 0; half /= 2) {
    barrier();
    if (thread < half) {
      shared[thread] += shared[thread + half];
    }
  }
  return shared[0];
}

// SquaresParams: parts[b] is the sum of the squares of the b-th 16384 elements of x, in float64, in which no square
// of a float32 overflows or vanishes. Launcher: 256 threads, one block a part.
struct SquaresParams {
  const float* x;
  double* parts;
  i64 n;
};

KERNEL BOUNDS(256, 4) sum_squares(SquaresParams p) {
  SHARED double shared[optimizer_threads];
  constexpr int ahead = 4;
  const Values x = {(void*)p.x, 0};
  const i64 begin = (i64)block_x() * square_chunk;
  const i64 end = min_i64(begin + square_chunk, p.n);
  double sum = 0;
  for (i64 at = begin + 4 * (i64)thread_x(); at < end; at += 4 * ahead * optimizer_threads) {
    float v[ahead][4];
#pragma unroll
    for (int k = 0; k < ahead; k++) {
      const i64 pack = at + k * (4 * optimizer_threads);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        v[k][i] = 0;
      }
      if (pack + 4 <= end) {
        load(PackedF32{}, x, pack, v[k]);
      } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          if (pack + i < end) {
            v[k][i] = p.x[pack + i];
          }
        }
      }
    }
#pragma unroll
    for (int k = 0; k < ahead; k++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        sum += (double)v[k][i] * v[k][i];
      }
    }
  }
  sum = double_sum(sum, shared);
  if (thread_x() == 0) {
    p.parts[block_x()] = sum;
  }
}

// square_root rounds the root to float32; scaling by a power of 4 keeps it in float32's range on the way.
DEV float square_root(double v) {
  const double large = 1.2676506002282294e30;  // 2^100
  if (v > large) {
    return sqrt_exact((float)(v / large / large)) * (float)large;
  }
  if (v < 1 / large) {
    return div_exact(sqrt_exact((float)(v * large * large)), (float)large);
  }
  return sqrt_exact((float)v);
}

// GradNormParams: norm[0] is the root of the sum of count parts, not finite where an element is not. Launcher: one block
// of 256 threads.
struct GradNormParams {
  const double* parts;
  float* norm;
  int count;
};

KERNEL BOUNDS(256, 1) grad_norm(GradNormParams p) {
  SHARED double shared[optimizer_threads];
  double sum = 0;
  for (int i = thread_x(); i < p.count; i += optimizer_threads) {
    sum += p.parts[i];
  }
  sum = double_sum(sum, shared);
  if (thread_x() == 0) {
    p.norm[0] = square_root(sum);
  }
}

// ---- sums of gradients ----

// AccumulateScalarsParams is what a launch of accumulate reads from device memory.
struct AccumulateScalarsParams {
  int first;  // not 0: the sum begins anew
  float scale;
};

// AccumulateParams: sum = scale*x, plus what sum was unless first. Launcher: 256 threads, blocks of 1024 elements.
struct AccumulateParams {
  float* sum;
  const float* x;
  const AccumulateScalarsParams* scalars;
  i64 n;
};

KERNEL BOUNDS(256, 4) accumulate(AccumulateParams p) {
  const AccumulateScalarsParams s = *p.scalars;
  const Values sums = {p.sum, 0};
  const Values xs = {(void*)p.x, 0};
  const i64 at = ((i64)block_x() * optimizer_threads + thread_x()) * 4;
  if (at + 4 <= p.n) {
    float x[4], sum[4] = {0, 0, 0, 0};
    load(PackedF32{}, xs, at, x);
    if (!s.first) {
      load(PackedF32{}, sums, at, sum);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      sum[i] = fma(s.scale, x[i], sum[i]);
    }
    store(PackedF32{}, sums, at, sum);
    return;
  }
  for (i64 i = at; i < p.n; i++) {
    p.sum[i] = fma(s.scale, p.x[i], s.first ? 0 : p.sum[i]);
  }
}

// ---- Adam ----

// AdamScalarsParams is what a launch of adam_step reads from device memory. The decays are given by what they leave:
// then an average of a constant is that constant, whatever the rounding.
struct AdamScalarsParams {
  float rate;          // learning rate/(1 - beta1^step)
  float beta1_rest;    // 1 - beta1
  float beta2_rest;    // 1 - beta2
  float inverse_root;  // 1/sqrt(1 - beta2^step)
  float epsilon;
  float clip;          // greatest norm of the gradient; 0 does not clip
  float ema_rest;      // 1 - decay of the averaged weights
};

// AdamParams: one step on weights, moments m and v, and averaged weights ema; rounded receives the weights in
// bfloat16 unless it is null. If norm[0] is not finite, nothing changes. Launcher: 256 threads, blocks of 1024
// elements.
struct AdamParams {
  float* weights;
  const float* grads;
  float* m;
  float* v;
  float* ema;
  void* rounded;
  const float* norm;
  const AdamScalarsParams* scalars;
  i64 n;
};

DEV void adam(const AdamScalarsParams& s, float clip, float g, float* weight, float* m, float* v, float* ema) {
  g *= clip;
  *m = fma(s.beta1_rest, g - *m, *m);
  *v = fma(s.beta2_rest, fma(g, g, -*v), *v);
  const float root = fma(sqrt_exact(*v), s.inverse_root, s.epsilon);
  *weight = fma(-s.rate, div_exact(*m, root), *weight);
  *ema = fma(s.ema_rest, *weight - *ema, *ema);
}

KERNEL BOUNDS(256, 4) adam_step(AdamParams p) {
  const float norm = p.norm[0];
  if (!(norm < as_float(0x7f800000u))) {
    return;
  }
  const AdamScalarsParams s = *p.scalars;
  float clip = 1;
  if (s.clip > 0) {
    clip = div_exact(s.clip, norm + 1e-6f);
    clip = clip < 1 ? clip : 1;
  }
  const i64 at = ((i64)block_x() * optimizer_threads + thread_x()) * 4;
  if (at + 4 <= p.n) {
    const Values grads = {(void*)p.grads, 0};
    const Values weights = {p.weights, 0};
    const Values ms = {p.m, 0};
    const Values vs = {p.v, 0};
    const Values emas = {p.ema, 0};
    float g[4], weight[4], m[4], v[4], ema[4];
    load(PackedF32{}, grads, at, g);
    load(PackedF32{}, weights, at, weight);
    load(PackedF32{}, ms, at, m);
    load(PackedF32{}, vs, at, v);
    load(PackedF32{}, emas, at, ema);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      adam(s, clip, g[i], &weight[i], &m[i], &v[i], &ema[i]);
    }
    store(PackedF32{}, weights, at, weight);
    store(PackedF32{}, ms, at, m);
    store(PackedF32{}, vs, at, v);
    store(PackedF32{}, emas, at, ema);
    if (p.rounded != nullptr) {
      store4(p.rounded, at, 1, weight);
    }
    return;
  }
  for (i64 i = at; i < p.n; i++) {
    adam(s, clip, p.grads[i], &p.weights[i], &p.m[i], &p.v[i], &p.ema[i]);
    if (p.rounded != nullptr) {
      store_any(p.rounded, i, p.weights[i], 1);
    }
  }
}

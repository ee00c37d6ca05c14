// Diffusion: the forward process on bytes, a step of the reverse process, dropout, the embedding of t.
//
// Random numbers are those of package rng, drawn where they are used.
#include "device.h"
#include "numeric.h"
#include "philox.h"
#include "quads.h"
#include "values.h"

// ---- forward process ----

// QSampleParams: for images [N,H,W,C] of bytes and a value of each coefficient for each image,
//
//   x0 = byte/127.5 - 1, mirrored left to right where flip is not 0;   eps ~ N(0, I) from keys [N,4]
//   out[0] = signal x0 + noise eps   out[1] = target_signal x0 + target_noise eps
//
// out is [2,N,H,W,C].
struct QSampleParams {
  const u8* images;
  const float* flip;
  const u32* keys;
  const float* signal;
  const float* noise;
  const float* target_signal;
  const float* target_noise;
  Values out;
  i64 total;  // values of all images
  QuadExtents extents;
  FastDivisor channels;
  FastDivisor width;
  u32 stream;
};

KERNEL BOUNDS(256, 4) q_sample(QSampleParams p) {
  const Quad q = quad_place(p.extents);
  if (q.count == 0) {
    return;
  }
  const u8* image = p.images + q.sample * p.extents.size;
  const bool mirrored = p.flip[q.sample] != 0;
  const float signal = p.signal[q.sample], noise = p.noise[q.sample];
  const float target_signal = p.target_signal[q.sample], target_noise = p.target_noise[q.sample];
  float eps[4], xt[4], target[4];
  random_normals(random_key(p.keys, q.sample, p.stream), (u32)(q.first / 4), eps);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    u32 from = (u32)q.first + (i < q.count ? i : 0);
    if (mirrored) {
      const u32 column = remainder(divide(from, p.channels), p.width);
      from += (p.width.divisor - 1 - 2 * column) * p.channels.divisor;
    }
    // byte/127.5 - 1 with one rounding.
    const float x0 = div_exact((float)(2 * (int)image[from] - 255), 255.0f);
    xt[i] = fma(noise, eps[i], signal * x0);
    target[i] = fma(target_noise, eps[i], target_signal * x0);
  }
  store_quad(p.extents, q, p.out, 0, xt);
  store_quad(p.extents, q, p.out, p.total, target);
}

// ---- reverse process ----

// predicted_x0 is c[0] x + c[1] out, NaN if not finite: clipping must not hide an infinity. Limits and what they clip
// are computed alike.
DEV float predicted_x0(const float* c, float x, float out) {
  const float x0 = fma(c[0], x, c[1] * out);
  return x0 + (x0 - x0);
}

// clipped is v in [-limit, limit], written so that NaN stays NaN.
DEV float clipped(float v, float limit) {
  v = v < -limit ? -limit : v;
  return v > limit ? limit : v;
}

// PSampleParams: from x and the network's out, both [N,...], and eight coefficients,
//
//   x0  = c[0] x + c[1] out, NaN if not finite, clipped to [-1, 1] where clip is not 0
//   eps = c[2] x + c[3] out
//   result[0] = c[4] x + c[5] x0 + c[6] eps + c[7] z   result[1] = x0
//
// z ~ N(0, I) from keys [N,4], drawn only if c[7] is not 0. result is [2,N,...].
struct PSampleParams {
  Values x;
  Values out;
  const u32* keys;
  const float* coefs;
  Values result;
  i64 total;  // values of x
  QuadExtents extents;
  u32 stream;
  int clip;
};

KERNEL BOUNDS(256, 4) p_sample(PSampleParams p) {
  const Quad q = quad_place(p.extents);
  if (q.count == 0) {
    return;
  }
  float c[8], x[4], out[4], z[4] = {0, 0, 0, 0}, prev[4], x0[4];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    c[i] = p.coefs[i];
  }
  load_quad(p.extents, q, p.x, x);
  load_quad(p.extents, q, p.out, out);
  if (c[7] != 0) {
    random_normals(random_key(p.keys, q.sample, p.stream), (u32)(q.first / 4), z);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    x0[i] = predicted_x0(c, x[i], out[i]);
    if (p.clip) {
      x0[i] = clipped(x0[i], 1.0f);
    }
    const float eps = fma(c[2], x[i], c[3] * out[i]);
    prev[i] = fma(c[4], x[i], fma(c[5], x0[i], fma(c[6], eps, c[7] * z[i])));
  }
  store_quad(p.extents, q, p.result, 0, prev);
  store_quad(p.extents, q, p.result, p.total, x0);
}

constexpr int p_sample_coefs = 10;  // without those of kept values
constexpr int most_kept = 3;

// PSampleGeneralParams: p_sample with all that a sampler may ask for beyond the plain step. The channels of out are
// the first of each pixel's wide ones; where learned is not 0, as many more, v, give the deviation of the noise,
//
//   log s^2 = (1+v)/2 c[9] + (1-v)/2 c[8],   c[7] s z in place of c[7] z.
//
// Where there are limits [N], x0 is clipped to its image's l and divided by it. To result[0] are added the kept values,
// old[j] times c[10+j]; result[2+i] is the new kept value i: the sum of x, x0, eps and the old kept values with
// coefficients of its own, from c[10 + kept + i (3+kept)] on. result is [2+kept,N,...].
struct PSampleGeneralParams {
  Values x;
  Values out;
  const u32* keys;
  const float* coefs;
  const float* limits;  // or 0
  Values old[most_kept];
  Values result;
  i64 total;  // values of x
  QuadExtents extents;
  WideChannels channels;
  u32 stream;
  int clip;
  int learned;
  int kept;
};

// add_kept adds the old kept values times c to v.
DEV void add_kept(const float* c, int kept, const float old[most_kept][4], float v[4]) {
#pragma unroll
  for (int j = 0; j < most_kept; j++) {
    if (j < kept) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        v[i] = fma(c[j], old[j][i], v[i]);
      }
    }
  }
}

KERNEL BOUNDS(256, 4) p_sample_general(PSampleGeneralParams p) {
  const Quad q = quad_place(p.extents);
  if (q.count == 0) {
    return;
  }
  float c[p_sample_coefs], x[4], out[4], z[4] = {0, 0, 0, 0}, old[most_kept][4];
#pragma unroll
  for (int i = 0; i < p_sample_coefs; i++) {
    c[i] = p.coefs[i];
  }
  load_quad(p.extents, q, p.x, x);
  load_wide_quad(p.extents, p.channels, q, p.out, 0, out);
#pragma unroll
  for (int j = 0; j < most_kept; j++) {
    if (j < p.kept) {
      load_quad(p.extents, q, p.old[j], old[j]);
    }
  }
  if (c[7] != 0) {
    random_normals(random_key(p.keys, q.sample, p.stream), (u32)(q.first / 4), z);
    if (p.learned) {
      float v[4];
      load_wide_quad(p.extents, p.channels, q, p.out, p.channels.count.divisor, v);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        z[i] *= exp_(0.5f * fma(0.5f * (v[i] - 1.0f), c[9] - c[8], c[9]));
      }
    }
  }
  const float limit = p.limits ? p.limits[q.sample] : 1.0f;
  float x0[4], eps[4], prev[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    x0[i] = predicted_x0(c, x[i], out[i]);
    if (p.clip) {
      x0[i] = div_exact(clipped(x0[i], limit), limit);
    }
    eps[i] = fma(c[2], x[i], c[3] * out[i]);
    prev[i] = fma(c[4], x[i], fma(c[5], x0[i], fma(c[6], eps[i], c[7] * z[i])));
  }
  const float* row = p.coefs + p_sample_coefs;
  add_kept(row, p.kept, old, prev);
  store_quad(p.extents, q, p.result, 0, prev);
  store_quad(p.extents, q, p.result, p.total, x0);
  row += p.kept;
#pragma unroll
  for (int k = 0; k < most_kept; k++) {
    if (k < p.kept) {
      float value[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        value[i] = fma(row[0], x[i], fma(row[1], x0[i], row[2] * eps[i]));
      }
      add_kept(row + 3, p.kept, old, value);
      store_quad(p.extents, q, p.result, (2 + k) * p.total, value);
      row += 3 + p.kept;
    }
  }
}

// ---- limits of dynamic thresholding ----

constexpr int limit_threads = 512;
constexpr int limit_bins = 2048;

// X0LimitParams: limits[n] is of the size values |x0| of image n, as p_sample computes them, the one at place rank,
// from 0, of the sorted ones, NaN before all others; 1 if that is below. Launcher: 512 threads, a block an image.
//
// Numbers that are not negative are ordered as their bits, of which there are 31. A block counts the values by the
// first eleven, finds the count that the place falls into, goes on with the next ten of the values that begin so, and
// then with the last ten. The counts are integers, so the order in which they grow does not matter.
struct X0LimitParams {
  Values x;
  Values out;
  const float* coefs;
  float* limits;
  i64 size;
  WideChannels channels;
  int rank;
};

// magnitude_key orders |x0| for x0 finite or NaN, which comes first. It is below 2^31.
DEV u32 magnitude_key(float x0) {
  const u32 bits = as_bits(x0) & 0x7fffffffu;
  return bits < 0x7f800000u ? bits + 1 : 0;
}

KERNEL BOUNDS(512, 1) x0_limit(X0LimitParams p) {
  SHARED int counts[limit_bins];
  SHARED int sums[limit_threads / 32];
  SHARED u32 found[2];  // the digit, and the place among the values that have it
  constexpr int own = limit_bins / limit_threads;
  const int thread = thread_x(), lane = thread % 32, warp = thread / 32;
  const i64 sample = block_x();
  const float c[2] = {p.coefs[0], p.coefs[1]};
  u32 prefix = 0;
  int rank = p.rank;
#pragma unroll 1
  for (int shift = 20; shift >= 0; shift -= 10) {
    const int width = shift == 20 ? 11 : 10;
    for (int i = 0; i < own; i++) {
      counts[own * thread + i] = 0;
    }
    barrier();
    for (i64 i = thread; i < p.size; i += limit_threads) {
      const float x = load_any(p.x.data, sample * p.size + i, p.x.bf16);
      const float out = load_any(p.out.data, wide_place(p.channels, sample * p.size, (u32)i), p.out.bf16);
      const u32 key = magnitude_key(predicted_x0(c, x, out));
      if (key >> (shift + width) == prefix) {
        atomic_add(&counts[key >> shift & ((1u << width) - 1)], 1);
      }
    }
    barrier();
    // Values in bins before this thread's: of the warp by lanes, of the warps before from shared memory.
    int sum = 0;
    for (int i = 0; i < own; i++) {
      sum += counts[own * thread + i];
    }
    int before = sum;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = (int)shuffle_from((u32)before, lane >= step ? lane - step : lane);
      before += lane >= step ? other : 0;
    }
    if (lane == 31) {
      sums[warp] = before;
    }
    before -= sum;
    barrier();
    for (int w = 0; w < warp; w++) {
      before += sums[w];
    }
    for (int i = 0; i < own; i++) {
      const int count = counts[own * thread + i];
      if (before <= rank && rank < before + count) {
        found[0] = own * thread + i;
        found[1] = rank - before;
      }
      before += count;
    }
    barrier();
    prefix = prefix << width | found[0];
    rank = (int)found[1];
  }
  if (thread == 0) {
    const float limit = as_float(prefix == 0 ? 0x7fffffffu : prefix - 1);
    p.limits[sample] = limit < 1.0f ? 1.0f : limit;
  }
}

// ---- dropout ----

// DropoutParams: y[i] = scale x[i] if word i of the sample's sequence, as a number in [0, 1), is at least p, else 0.
// limit is ceil(p 2^24), with which the top 24 bits are compared. y may be x.
struct DropoutParams {
  Values x;
  Values y;
  const u32* keys;
  QuadExtents extents;
  u32 stream;
  u32 limit;
  float scale;
};

DEV void drop(const DropoutParams& p, const RandomKey& key, i64 first, float v[4]) {
  u32 words[4];
  random_block(key, (u32)(first / 4), words);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[i] = (words[i] >> 8) >= p.limit ? v[i] * p.scale : 0;
  }
}

// dropout_bf16 and dropout_f32 take one pack a thread. Launcher: 256 threads, grid {samples * extents.blocks}, here
// blocks of 256 packs; a sample is whole packs.
template <class Access>
DEV void dropout(Access access, const DropoutParams& p) {
  constexpr int W = Access::width;
  const i64 sample = block_x() / p.extents.blocks;
  const i64 first = ((i64)(block_x() % p.extents.blocks) * quad_threads + thread_x()) * W;
  if (first >= p.extents.size) {
    return;
  }
  const RandomKey key = random_key(p.keys, sample, p.stream);
  float v[W];
  load(access, p.x, sample * p.extents.size + first, v);
#pragma unroll
  for (int i = 0; i < W; i += 4) {
    drop(p, key, first + i, v + i);
  }
  store(access, p.y, sample * p.extents.size + first, v);
}

KERNEL BOUNDS(256, 4) dropout_bf16(DropoutParams p) { dropout(PackedBf16{}, p); }
KERNEL BOUNDS(256, 4) dropout_f32(DropoutParams p) { dropout(PackedF32{}, p); }

// dropout_any takes four values a thread, as quads.h says.
KERNEL BOUNDS(256, 4) dropout_any(DropoutParams p) {
  const Quad q = quad_place(p.extents);
  if (q.count == 0) {
    return;
  }
  float v[4];
  load_quad(p.extents, q, p.x, v);
  drop(p, random_key(p.keys, q.sample, p.stream), q.first, v);
  store_quad(p.extents, q, p.y, 0, v);
}

// ---- embedding of t ----

constexpr int embedding_frequencies = 256;

// EmbeddingParams: for t [N], columns sine+i and cosine+i of out [N,dim] receive the sine and the cosine of
// t frequency[i], 0 <= i < count, the product rounded to float32. Launcher: one thread for each t and i, 256 a block;
// frequencies beyond the table take further launches.
struct EmbeddingParams {
  const float* t;
  float* out;
  int n;
  int dim;
  int sine;
  int cosine;
  FastDivisor count;
  float frequency[embedding_frequencies];
};

KERNEL BOUNDS(256, 4) timestep_embedding(EmbeddingParams p) {
  const u32 thread = block_x() * 256 + thread_x();
  const u32 n = divide(thread, p.count);
  if (n >= (u32)p.n) {
    return;
  }
  const u32 i = thread - n * p.count.divisor;
  const float angle = p.t[n] * p.frequency[i];
  // The angle in turns, which reach hundreds: 1/(2 pi) in two parts, and the product's rounding error.
  const float inverse = 0.159154937f;
  const float inverse_rest = 6.41206418e-09f;
  const float turns = angle * inverse;
  const float rest = fma(angle, inverse_rest, fma(angle, inverse, -turns));
  const float whole = (float)(int)turns;
  float sine, cosine;
  sincos_2pi((turns - whole) + rest, &sine, &cosine);
  float* row = p.out + (i64)n * p.dim;
  row[p.sine + i] = sine;
  row[p.cosine + i] = cosine;
}

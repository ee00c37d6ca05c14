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
    x0[i] = fma(c[0], x[i], c[1] * out[i]);
    // Clipping must not hide an infinity; this makes it NaN.
    x0[i] += x0[i] - x0[i];
    if (p.clip) {
      // Written so that NaN stays NaN.
      x0[i] = x0[i] < -1.0f ? -1.0f : x0[i];
      x0[i] = x0[i] > 1.0f ? 1.0f : x0[i];
    }
    const float eps = fma(c[2], x[i], c[3] * out[i]);
    prev[i] = fma(c[4], x[i], fma(c[5], x0[i], fma(c[6], eps, c[7] * z[i])));
  }
  store_quad(p.extents, q, p.result, 0, prev);
  store_quad(p.extents, q, p.result, p.total, x0);
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

// Terms of the variational bound in bits per dimension (Ho et al., "Denoising Diffusion Probabilistic Models", 2020,
// eq. 5 and 13), with variances that the network may predict (Nichol & Dhariwal, "Improved Denoising Diffusion
// Probabilistic Models", 2021, eq. 15), and their gradients.
#include "device.h"
#include "numeric.h"
#include "quads.h"
#include "reduce.h"
#include "values.h"

constexpr int vlb_threads = 256;

// VlbParams: out, x and target of images of size values, and seven coefficients c of each image. Where out has twice
// the channels the second half is v, and log s^2 = (1+v)/2 c[5] + (1-v)/2 c[4], else c[5]. With d = c[2] c[1] (out -
// target) the term of a value is
//
//   KL(N(0, e^c[3]) || N(d, s^2)),   or if c[6] is not 0
//   -log of the mass of N(x0 + d, s^2) within 1/255 of x0 = c[0] x + c[1] target, all of it below -1 and above 1
//
// vlb: terms [N,chunks] receives the sum over each chunk of the values of each image, times scale. Launcher: 256
// threads, grid {N * chunks}.
//
// vlb_grad: dout is scale derror [N] times the derivatives in out, 0 if stop_mean is not 0, and in v. Launcher: 256
// threads, one value each, chunks of 256, grid {N * chunks}.
struct VlbParams {
  Values out;
  Values x;
  Values target;
  const float* coefs;
  float* terms;
  const float* derror;
  Values dout;
  i64 size;
  i64 chunk;
  WideChannels channels;
  int chunks;
  int stop_mean;
  float scale;
};

// VlbTerm is the term of a value and its derivatives.
struct VlbTerm {
  float term, out, v;
};

// mass_term is -log of the mass of the step of x0, in N(x0 + d, s^2), and its derivatives in d and log s^2.
DEV VlbTerm mass_term(float x0, float d, float log_variance) {
  const float half_step = 0.00392156863f;
  const float edge = 0.999f;
  const float smallest = 1e-12f;
  const float inverse = exp_(-0.5f * log_variance);
  const float middle = -d * inverse, half = half_step * inverse;
  NormalPart part;
  if (x0 > edge || x0 < -edge) {
    // The step below -1 is the one above 1 seen from the other side.
    const float side = x0 < 0 ? -1.0f : 1.0f;
    part = normal_above(side * middle - half);
    part.mean *= side;
  } else {
    part = normal_within(middle, half);
  }
  if (part.mass < smallest) {
    return VlbTerm{27.6310211f, 0, 0};
  }
  return VlbTerm{-log_(part.mass), -part.mean * inverse, -0.5f * part.square};
}

// vlb_term is that of value i of a sample that begins at value begin.
DEV VlbTerm vlb_term(const VlbParams& p, const float c[7], i64 begin, u32 i) {
  const i64 at = wide_place(p.channels, begin, i);
  const float target = load_any(p.target.data, begin + i, p.target.bf16);
  const float on_out = c[2] * c[1];
  const float d = on_out * (load_any(p.out.data, at, p.out.bf16) - target);
  // How far log s^2 is below its largest, so that differences of coefficients stay exact.
  const float range = c[5] - c[4];
  float below = 0;
  if (p.channels.times > 1) {
    const float v = load_any(p.out.data, at + p.channels.count.divisor, p.out.bf16);
    below = 0.5f * (1.0f - v) * range;
  }
  const float log_variance = c[5] - below;
  VlbTerm t;
  if (c[6] == 0) {
    const float precision = exp_(-log_variance);
    const Growth ratio = growth(c[3] - c[5] + below);
    const float distance = d * d * precision;
    t = VlbTerm{0.5f * (ratio.second + distance), d * precision, -0.5f * (ratio.first + distance)};
  } else {
    const float x = load_any(p.x.data, begin + i, p.x.bf16);
    t = mass_term(fma(c[0], x, c[1] * target), d, log_variance);
  }
  t.out *= on_out;
  t.v *= 0.5f * range;
  return t;
}

DEV void load_vlb_coefs(const VlbParams& p, i64 sample, float c[7]) {
#pragma unroll
  for (int i = 0; i < 7; i++) {
    c[i] = p.coefs[7 * sample + i];
  }
}

KERNEL BOUNDS(256, 4) vlb(VlbParams p) {
  SHARED float shared[vlb_threads / 32];
  const i64 sample = block_x() / p.chunks;
  const i64 begin = block_x() % p.chunks * p.chunk;
  const i64 end = min_i64(begin + p.chunk, p.size);
  float c[7];
  load_vlb_coefs(p, sample, c);
  float sum = 0;
  for (i64 i = begin + thread_x(); i < end; i += vlb_threads) {
    sum += vlb_term(p, c, sample * p.size, (u32)i).term;
  }
  sum = block_sum<vlb_threads>(sum, shared);
  if (thread_x() == 0) {
    p.terms[block_x()] = sum * p.scale;
  }
}

KERNEL BOUNDS(256, 4) vlb_grad(VlbParams p) {
  const i64 sample = block_x() / p.chunks;
  const i64 i = block_x() % p.chunks * p.chunk + thread_x();
  if (i >= p.size) {
    return;
  }
  float c[7];
  load_vlb_coefs(p, sample, c);
  const VlbTerm t = vlb_term(p, c, sample * p.size, (u32)i);
  const float scale = p.derror[sample] * p.scale;
  const i64 at = wide_place(p.channels, sample * p.size, (u32)i);
  store_any(p.dout.data, at, p.stop_mean ? 0 : scale * t.out, p.dout.bf16);
  if (p.channels.times > 1) {
    store_any(p.dout.data, at + p.channels.count.divisor, scale * t.v, p.dout.bf16);
  }
}

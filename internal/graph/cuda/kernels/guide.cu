// Classifier-free guidance (Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022), and its rescaling (Lin et al.,
// "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024, eq. 15 and 16).
#include "device.h"
#include "numeric.h"
#include "quads.h"
#include "reduce.h"
#include "values.h"

constexpr int scale_threads = 512;

// GuidanceParams: both [2N,...] are the network's outputs with a class, then without, of images of extents.size values.
// In the first guided channels of each pixel
//
//   g = without + w (with - without)
//
// guidance: out is g there, times scales[n] unless scales is 0, and with in the other channels. Launcher: as quads.h
// says.
//
// guidance_scale: scales[n] = r std(with)/std(g) + 1 - r over the guided values of image n, count of them; 1 where
// std(g) is not above 0. Launcher: 512 threads, a block an image.
struct GuidanceParams {
  Values both;
  const float* w;
  float* scales;
  Values out;
  i64 total;  // values of out
  QuadExtents extents;
  FastDivisor channels;  // of a pixel
  int guided;
  float r;
  float count;
};

DEV float guided(float w, float with, float without) { return fma(w, with - without, without); }

KERNEL BOUNDS(256, 4) guidance(GuidanceParams p) {
  const Quad q = quad_place(p.extents);
  if (q.count == 0) {
    return;
  }
  Quad second = q;
  second.at += p.total;
  float with[4], without[4];
  load_quad(p.extents, q, p.both, with);
  load_quad(p.extents, second, p.both, without);
  const float w = p.w[0];
  const float scale = p.scales ? p.scales[q.sample] : 1.0f;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if ((int)remainder((u32)q.first + i, p.channels) < p.guided) {
      with[i] = scale * guided(w, with[i], without[i]);
    }
  }
  store_quad(p.extents, q, p.out, 0, with);
}

// PairSums is what the two sums of a block are, in every thread.
struct PairSums {
  float first, second;
};

DEV PairSums pair_sums(float first, float second, float shared[2][scale_threads / 32]) {
  const int thread = thread_x();
  first = lanes_sum<32>(first);
  second = lanes_sum<32>(second);
  barrier();  // shared is read no longer
  if (thread % 32 == 0) {
    shared[0][thread / 32] = first;
    shared[1][thread / 32] = second;
  }
  barrier();
  PairSums sums = {0, 0};
  for (int warp = 0; warp < scale_threads / 32; warp++) {
    sums.first += shared[0][warp];
    sums.second += shared[1][warp];
  }
  return sums;
}

KERNEL BOUNDS(512, 2) guidance_scale(GuidanceParams p) {
  SHARED float shared[2][scale_threads / 32];
  const i64 begin = block_x() * p.extents.size;
  const float w = p.w[0];
  float mean_with = 0, mean_guided = 0;
  PairSums sums = {0, 0};
  // The means, then the squares of what differs from them.
#pragma unroll 1
  for (int pass = 0; pass < 2; pass++) {
    float first = 0, second = 0;
    for (i64 i = thread_x(); i < p.extents.size; i += scale_threads) {
      if ((int)remainder((u32)i, p.channels) >= p.guided) {
        continue;
      }
      const float with = load_any(p.both.data, begin + i, p.both.bf16);
      const float g = guided(w, with, load_any(p.both.data, p.total + begin + i, p.both.bf16));
      if (pass == 0) {
        first += with;
        second += g;
      } else {
        first = fma(with - mean_with, with - mean_with, first);
        second = fma(g - mean_guided, g - mean_guided, second);
      }
    }
    sums = pair_sums(first, second, shared);
    mean_with = div_exact(sums.first, p.count);
    mean_guided = div_exact(sums.second, p.count);
  }
  if (thread_x() == 0) {
    const float deviation = sqrt_exact(mean_guided);  // now the means of the squares
    const float ratio = div_exact(sqrt_exact(mean_with), deviation);
    p.scales[block_x()] = deviation > 0 ? fma(p.r, ratio, 1.0f - p.r) : 1.0f;
  }
}

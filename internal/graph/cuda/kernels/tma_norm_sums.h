// Sums for the gradient of a group normalisation, left by the data gradient of the convolution behind it, whose result
// is dy [N,H,W,C]: for each image, slot and channel, with x, xhat and z as in groupnorm.cu,
//
//   dz = dy silu'(z), or dy     sums [N][slots][2][C]: sum(dz xhat), then sum(dz)
//
// over the pixels of a slot, which are those of an image in a tile. Sums over the parts of the warps are in their
// order.
#pragma once
#include "tma_result.h"
#include "values.h"

// TmaNorm is the normalisation. x may be two feature maps side by side on channels, of bf16.
struct TmaNorm {
  const void* a;
  const void* b;
  const float* stats;  // [N,G,2]: mean and rstd
  const float* gamma;  // [C]
  const float* beta;   // [C]
  float* sums;
  FastDivisor group_width;  // channels of a group
  int split;                // channels of a, a multiple of 8
  int groups;
  int silu;
};

// TmaNormChannel is what a thread needs of a channel, for one of its images: z = scale (x-mean) + beta.
struct TmaNormChannel {
  float mean;
  float scale;
  float beta;
};

DEV TmaNormChannel tma_norm_channel(const TmaNorm& norm, int image, int channel) {
  const float* group = norm.stats + ((i64)image * norm.groups + divide(channel, norm.group_width)) * 2;
  return TmaNormChannel{group[0], norm.gamma[channel] * group[1], norm.beta[channel]};
}

// tma_norm_input is where 8 channels of a pixel of x are.
DEV const u16* tma_norm_input(const TmaNorm& norm, const TmaConvParams& p, const TmaPixel& pixel, int channel) {
  const i64 at = ((i64)pixel.image * p.height + pixel.row) * p.width + pixel.column;
  if (channel < norm.split) {
    return (const u16*)norm.a + at * norm.split + channel;
  }
  return (const u16*)norm.b + at * (p.channels - norm.split) + channel - norm.split;
}

// TmaNormSum is a sum of dz (x-mean), and of dz.
struct TmaNormSum {
  float tilted;
  float plain;
};

DEV void tma_norm_add(TmaNormSum& sum, const TmaNormChannel& c, float x, float dy, int silu) {
  const float difference = x - c.mean;
  const float slope = silu_slope_for(PackedBf16{}, fma(difference, c.scale, c.beta));
  const float dz = silu ? dy * slope : dy;
  sum.tilted = fma(dz, difference, sum.tilted);
  sum.plain += dz;
}

// tma_norm_part leaves a warp's sums of a quarter, from a channel on, in shared memory: [8 warps][images][32 channels]
// of both. x and dy are what the thread has of them: of each block and half, 4 pairs of channels.
template <class T>
DEV void tma_norm_part(const u32 (&x)[T::blocks][2][4], const u32 (&dy)[T::blocks][2][4], const TmaNorm& norm,
                       const TmaConvParams& p, const TmaConvPlace& at, int channel, u32 exchange) {
  constexpr int halves = 2 / T::thread_images;  // of an image
  const TmaConvThread t = tma_conv_thread();
#pragma unroll
  for (int which = 0; which < T::thread_images; which++) {
    const int image = tma_image(at, t, which) < p.images ? tma_image(at, t, which) : 0;
    const int part = (t.warpgroup * 4 + t.warp) * T::images + t.g + 8 * which;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int pair = 8 * j + 2 * t.q;
      const TmaNormChannel low = tma_norm_channel(norm, image, channel + pair);
      const TmaNormChannel high = tma_norm_channel(norm, image, channel + pair + 1);
      TmaNormSum low_sum = {0, 0};
      TmaNormSum high_sum = {0, 0};
#pragma unroll
      for (int i = 0; i < T::blocks * halves; i++) {
        const u32 of_x = x[i / halves][which + i % halves][j];
        const u32 of_dy = dy[i / halves][which + i % halves][j];
        tma_norm_add(low_sum, low, lower_half(of_x), lower_half(of_dy), norm.silu);
        tma_norm_add(high_sum, high, upper_half(of_x), upper_half(of_dy), norm.silu);
      }
      store_shared16(exchange + (part * 32 + pair) * 8, Vec4{as_bits(low_sum.tilted), as_bits(low_sum.plain),
                                                             as_bits(high_sum.tilted), as_bits(high_sum.plain)});
    }
  }
}

// tma_norm_store adds the warps' parts of a quarter, between two barriers of those that multiply.
template <class T>
DEV void tma_norm_store(const TmaNorm& norm, const TmaConvParams& p, const TmaConvPlace& at, u32 exchange, int quarter) {
  const int slot = tma_conv_slot<T>(p, at);
  for (int i = thread_x() - 128; i < T::images * 32; i += 256) {
    float tilted = 0, plain = 0;
#pragma unroll
    for (int warp = 0; warp < tma_conv_readers; warp++) {
      const Vec2 part = load_shared8(exchange + (warp * T::images * 32 + i) * 8);
      tilted += as_float(part.x);
      plain += as_float(part.y);
    }
    const int image = at.image + i / 32;
    if (image < p.images) {
      const int channel = at.channel + 32 * quarter + i % 32;
      const float rstd = norm.stats[((i64)image * norm.groups + divide(channel, norm.group_width)) * 2 + 1];
      float* to = norm.sums + ((i64)image * p.slots + slot) * 2 * p.channels + channel;
      to[0] = rstd * tilted;
      to[p.channels] = plain;
    }
  }
}

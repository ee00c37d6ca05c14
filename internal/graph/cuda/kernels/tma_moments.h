// Moments of a convolution's result, left for a group normalisation that reads it: for each image, slot and quad of 4
// neighbouring channels, the mean of the stored values and the sum of their squared differences from it.
//
//   moments [images][slots][2][channels/4]
//
// A slot is the pixels of an image in a tile. All of them are inside of the image: the launcher asks for moments only
// where tiles have no pixels outside. Parts of a slot, all of as many values, are joined two by two (Chan, Golub &
// LeVeque, 1983), always in the same order.
#pragma once
#include "tma_result.h"

struct TmaMoment {
  float mean;
  float squares;
};

// tma_join joins the moments of two sets of so many values each.
DEV TmaMoment tma_join(TmaMoment a, TmaMoment b, float values) {
  const float difference = b.mean - a.mean;
  return TmaMoment{fma(difference, 0.5f, a.mean), fma(difference * difference, 0.5f * values, a.squares + b.squares)};
}

// tma_moments_part leaves the moments of a warp's part of a quarter in shared memory. rounded is what the thread
// stored: of each block and half, 4 pairs of channels. Whole warp.
template <class T>
DEV void tma_moments_part(const u32 (&rounded)[T::blocks][2][4], u32 exchange, int quarter) {
  constexpr int halves = 2 / T::thread_images;  // of an image
  constexpr float inverse = 1.0f / (T::blocks * halves * 2);
  const TmaConvThread t = tma_conv_thread();
#pragma unroll
  for (int which = 0; which < T::thread_images; which++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      TmaMoment mine = {0, 0};
#pragma unroll
      for (int i = 0; i < T::blocks * halves; i++) {
        const u32 pair = rounded[i / halves][which + i % halves][j];
        mine.mean += lower_half(pair) + upper_half(pair);
      }
      mine.mean *= inverse;
#pragma unroll
      for (int i = 0; i < T::blocks * halves; i++) {
        const u32 pair = rounded[i / halves][which + i % halves][j];
        const float low = lower_half(pair) - mine.mean;
        const float high = upper_half(pair) - mine.mean;
        mine.squares = fma(low, low, fma(high, high, mine.squares));
      }
      // Lanes 2i and 2i+1 have the two halves of a quad.
      const TmaMoment other = {shuffle_xor(mine.mean, 1), shuffle_xor(mine.squares, 1)};
      const TmaMoment whole = t.q % 2 == 0 ? tma_join(mine, other, T::blocks * halves * 2) : mine;
      if (t.q % 2 == 0) {
        const int part = (t.warpgroup * 4 + t.warp) * T::images + t.g + 8 * which;
        const int quad = 8 * quarter + 2 * j + t.q / 2;
        store_shared8(exchange + (part * 32 + quad) * 8, Vec2{as_bits(whole.mean), as_bits(whole.squares)});
      }
    }
  }
}

// tma_moments_store joins the parts of the warps, between two barriers of those that multiply.
template <class T>
DEV void tma_moments_store(const TmaConvParams& p, const TmaConvPlace& at, u32 exchange) {
  const int quads = p.channels / 4;
  const int slot = tma_conv_slot<T>(p, at);
  for (int i = thread_x() - 128; i < T::images * 32; i += 256) {
    TmaMoment parts[tma_conv_readers];
#pragma unroll
    for (int warp = 0; warp < tma_conv_readers; warp++) {
      const Vec2 part = load_shared8(exchange + (warp * T::images * 32 + i) * 8);
      parts[warp] = TmaMoment{as_float(part.x), as_float(part.y)};
    }
#pragma unroll
    for (int joined = 1; joined < tma_conv_readers; joined *= 2) {
#pragma unroll
      for (int warp = 0; warp < tma_conv_readers; warp += 2 * joined) {
        parts[warp] = tma_join(parts[warp], parts[warp + joined], (float)(T::slot * 4 / tma_conv_readers * joined));
      }
    }
    const int image = at.image + i / 32;
    const int quad = at.channel / 4 + i % 32;
    if (image < p.images && quad < quads) {
      float* to = p.moments + ((i64)image * p.slots + slot) * 2 * quads + quad;
      to[0] = parts[0].mean;
      to[quads] = parts[0].squares;
    }
  }
}

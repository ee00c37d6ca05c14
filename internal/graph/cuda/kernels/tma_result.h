// What becomes of the sums of a tile of a convolution.
//
// A thread's sums are of the rows and channels that wgmma gives it (hopper_gpu.h). With g = lane/4, q = lane%4 and
// w its warp in the warpgroup, row 16w + g + 8*half of a product is an image and a pixel, so that all values of a
// thread are of image g, or of images g and g + 8 of 16. A quarter is 32 channels of the tile; of these the thread has
// 8j + 2q and the next, for j = 0 to 3.
//
// Memory is accessed by 16 bytes. For that four lanes exchange what they have of 32 channels of a pixel, so that each
// has 8 neighbouring ones.
#pragma once
#include "tma_conv.h"

// TmaConvThread is the part of a tile that a thread has.
struct TmaConvThread {
  int warpgroup;  // of those that multiply
  int warp;       // in it
  int g;
  int q;
};

DEV TmaConvThread tma_conv_thread() {
  const int thread = thread_x();
  return TmaConvThread{thread / 128 - 1, thread / 32 % 4, thread % 32 / 4, thread % 4};
}

// tma_image is the image of a thread's values, for which 0 or 1 of its images.
DEV int tma_image(const TmaConvPlace& at, const TmaConvThread& t, int which) { return at.image + t.g + 8 * which; }

// TmaPixel is a pixel of a tile's image in the result.
struct TmaPixel {
  int image;
  int row;
  int column;
  bool inside;
};

template <class T>
DEV TmaPixel tma_pixel(const TmaConvParams& p, const TmaConvPlace& at, const TmaConvThread& t, int block, int half) {
  TmaPixel pixel;
  pixel.image = tma_image(at, t, T::thread_images == 2 ? half : 0);
  pixel.row = at.row + t.warpgroup * T::blocks + block;
  pixel.column = at.column + (T::thread_images == 2 ? t.warp : 2 * t.warp + half);
  pixel.inside = pixel.image < p.images && pixel.row < p.height && pixel.column < p.width;
  return pixel;
}

// tma_element is its first channel in the result.
DEV i64 tma_element(const TmaConvParams& p, const TmaPixel& pixel) {
  return pixel.image * p.image_stride + pixel.row * p.row_stride + pixel.column * p.column_stride;
}

// exchange transposes 4 x 4 words of four neighbouring lanes: lane q gets word q of each; whole warp.
DEV void exchange(u32 (&v)[4], int q) {
  const bool odd = (q & 1) != 0;
  u32 got = shuffle_xor(odd ? v[0] : v[1], 1);
  v[0] = odd ? got : v[0];
  v[1] = odd ? v[1] : got;
  got = shuffle_xor(odd ? v[2] : v[3], 1);
  v[2] = odd ? got : v[2];
  v[3] = odd ? v[3] : got;
  const bool upper = (q & 2) != 0;
  got = shuffle_xor(upper ? v[0] : v[2], 2);
  v[0] = upper ? got : v[0];
  v[2] = upper ? v[2] : got;
  got = shuffle_xor(upper ? v[1] : v[3], 2);
  v[1] = upper ? got : v[1];
  v[3] = upper ? v[3] : got;
}

// load_quarter reads bf16 of 32 channels of a pixel: the thread's own are the halves of 4 words. piece is the address
// of the 8 channels that this lane reads. Whole warp; all are 0 where condition does not hold.
DEV void load_quarter(const void* piece, bool condition, int q, u32 (&v)[4]) {
  const Vec4 read = condition ? load_global16(piece) : Vec4{0, 0, 0, 0};
  v[0] = read.x;
  v[1] = read.y;
  v[2] = read.z;
  v[3] = read.w;
  exchange(v, q);
}

// store_quarter writes them.
DEV void store_quarter(void* piece, bool condition, int q, const u32 (&v)[4]) {
  u32 mine[4] = {v[0], v[1], v[2], v[3]};
  exchange(mine, q);
  if (condition) {
    store_global16(piece, Vec4{mine[0], mine[1], mine[2], mine[3]});
  }
}

// store_share leaves the sums of a tile as they are, for conv_sum_shares.
template <class T>
DEV void store_share(const float (&sums)[T::blocks][64], const TmaConvParams& p, const TmaConvPlace& at, i64 offset) {
  const TmaConvThread t = tma_conv_thread();
#pragma unroll
  for (int quarter = 0; quarter < 4; quarter++) {
    const int channel = at.channel + 32 * quarter;
    if (channel >= p.channels) {
      break;
    }
#pragma unroll
    for (int block = 0; block < T::blocks; block++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const TmaPixel pixel = tma_pixel<T>(p, at, t, block, half);
        float* to = (float*)p.y + offset + tma_element(p, pixel) + channel + 8 * t.q;
        u32 even[4], odd[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int i = 4 * (4 * quarter + j) + 2 * half;
          even[j] = as_bits(sums[block][i]);
          odd[j] = as_bits(sums[block][i + 1]);
        }
        exchange(even, t.q);
        exchange(odd, t.q);
        if (pixel.inside) {
          store_global16(to, Vec4{even[0], odd[0], even[1], odd[1]});
          store_global16(to + 4, Vec4{even[2], odd[2], even[3], odd[3]});
        }
      }
    }
  }
}

// TmaAddends is what every pixel of an image gets, for a thread's channels of a quarter.
struct TmaAddends {
  float v[4][2];
};

DEV TmaAddends tma_addends(const TmaConvParams& p, int image, int channel) {
  TmaAddends addends;
  const float* sample = p.per_sample && image < p.images ? p.per_sample + (i64)image * p.channels : nullptr;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const Vec2 bias = p.bias ? load_global8(p.bias + channel + 8 * j) : Vec2{0, 0};
    const Vec2 more = sample ? load_global8(sample + channel + 8 * j) : Vec2{0, 0};
    addends.v[j][0] = as_float(bias.x) + as_float(more.x);
    addends.v[j][1] = as_float(bias.y) + as_float(more.y);
  }
  return addends;
}

// finish_quarter adds what a pixel's channels of a quarter get, rounds and stores them. rounded keeps them.
template <class T>
DEV void finish_quarter(const float (&sums)[64], int quarter, int half, const TmaConvParams& p, const TmaPixel& pixel,
                        i64 element, const TmaAddends& addends, int q, u32 (&rounded)[4]) {
  u32 residual[4] = {0, 0, 0, 0};
  if (p.residual) {
    load_quarter((const u16*)p.residual + element + 8 * q, pixel.inside, q, residual);
  }
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const int i = 4 * (4 * quarter + j) + 2 * half;
    rounded[j] = pack_bf16(sums[i] + addends.v[j][0] + lower_half(residual[j]),
                           sums[i + 1] + addends.v[j][1] + upper_half(residual[j]));
  }
  store_quarter((u16*)p.y + element + 8 * q, pixel.inside, q, rounded);
}

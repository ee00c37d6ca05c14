// Group normalisation (Wu & He, 2018), optionally followed by SiLU, forwards and backwards.
//
// With m the number of values of a group of an image, and sums over them:
//
//   mean = sum(x)/m   rstd = 1/sqrt(sum((x - mean)^2)/m + epsilon)
//   xhat = (x - mean) rstd   z = gamma xhat + beta   y = z or silu(z)
//
//   dz = dy or dy silu'(z)
//   dx = rstd (gamma dz - sum(gamma dz)/m - xhat sum(gamma dz xhat)/m)
//
// where the last two sums come from those of dz xhat and dz over the pixels of each channel. x is a feature map
// [N,H,W,C] or two side by side on channels, and a group may hold channels of both.
//
// All passes are laid out alike. A block of 256 threads takes a chunk of the pixels of an image: a thread has the
// channels of one pack, lanes threads beside each other cover the channels, and rows of them different pixels.
// Launcher: chunk and chunks depend on the extents of an image alone, so that its sums have one order in a batch of
// any size; grid {images * chunks, slabs of lanes packs}; lanes*rows is at most 256. Packed instances need whole packs
// of channels in both parts of x.
#include "device.h"
#include "numeric.h"
#include "reduce.h"
#include "values.h"

constexpr int norm_threads = 256;

// NormExtents is the shape of x and how blocks share it.
struct NormExtents {
  int pixels;  // of an image
  int channels;
  int split;  // channels of the first part, all if there is one
  int groups;
  FastDivisor group_width;  // channels of a group
  int chunk;                // pixels of a block; the last chunk of an image may have fewer
  int chunks;               // of an image
  int lanes;
  int rows;
};

// NormPlace is what one thread works on.
struct NormPlace {
  int image;
  int begin, end;  // pixels of the chunk
  int row;
  int channel;  // the first of the pack
  bool active;  // the thread has channels and pixels of its own
};

template <class Access>
DEV NormPlace norm_place(Access, const NormExtents& e) {
  NormPlace at;
  at.image = block_x() / e.chunks;
  at.begin = block_x() % e.chunks * e.chunk;
  at.end = min_int(at.begin + e.chunk, e.pixels);
  at.row = thread_x() / e.lanes;
  at.channel = (block_y() * e.lanes + thread_x() % e.lanes) * Access::width;
  at.active = at.row < e.rows && at.channel < e.channels;
  return at;
}

// NormInput is the part of x that holds a thread's channels.
struct NormInput {
  Values part;
  i64 first;   // element of the image's first pixel
  int stride;  // elements from pixel to pixel
};

DEV NormInput norm_input(const Values& a, const Values& b, const NormExtents& e, const NormPlace& at) {
  const bool of_a = at.channel < e.split;
  const Values part = {of_a ? a.data : b.data, of_a ? a.bf16 : b.bf16};
  const int stride = of_a ? e.split : e.channels - e.split;
  const int channel = of_a ? at.channel : at.channel - e.split;
  return NormInput{part, (i64)at.image * e.pixels * stride + channel, stride};
}

// ---- statistics ----

// NormStatsParams: stats [N,G,2] receives mean and rstd. With several chunks or slabs, moments [N,chunks,2,C] receives
// the mean and the sum of squared differences of each channel in each chunk, and norm_stats_merge makes stats of it;
// otherwise it is null.
struct NormStatsParams {
  Values a, b;
  float* stats;
  float* moments;
  NormExtents extents;
  float epsilon;
};

// Moments folds means and sums of squared differences from them, [0,W) and [W,2W), of as many values each as the last
// says (Chan, Golub & LeVeque, 1983).
template <int W>
struct Moments {
  DEV void add(float (&v)[2 * W + 1], const float (&others)[2 * W + 1]) {
    const float mine = v[2 * W];
    const float all = mine + others[2 * W];
    const float share = all > 0 ? div_exact(others[2 * W], all) : 0;
#pragma unroll
    for (int i = 0; i < W; i++) {
      const float difference = others[i] - v[i];
      v[i] = fma(difference, share, v[i]);
      v[W + i] += fma(difference * difference, mine * share, others[W + i]);
    }
    v[2 * W] = all;
  }
};

// GroupMoments is what the statistics of a group follow from: for each of its channels, in each of some chunks of
// pixels, the mean and the sum of squared differences from it.
struct GroupMoments {
  const float* means;    // of the group's first channel
  const float* squares;  // likewise
  i64 stride;            // elements from chunk to chunk
  int chunks;
  int chunk;  // pixels of each, fewer in the last
};

// norm_write_stats writes mean and rstd of a group, which LANES neighbouring lanes work on; whole warp, and lanes
// whose group is not valid write nothing.
template <int LANES>
DEV void norm_write_stats(const NormExtents& e, const GroupMoments& g, float epsilon, bool valid, float* stats) {
  const int lane = thread_x() % LANES;
  const int width = e.group_width.divisor;
  const int parts = valid ? g.chunks * width : 0;
  const float shift = valid ? g.means[0] : 0;
  const float values = (float)e.pixels * width;
  float sum = 0;
  for (int i = lane; i < parts; i += LANES) {
    const int chunk = divide(i, e.group_width);
    const float pixels = min_int(g.chunk, e.pixels - chunk * g.chunk);
    sum = fma(pixels, g.means[chunk * g.stride + i - chunk * width] - shift, sum);
  }
  const float mean = shift + div_exact(lanes_sum<LANES>(sum), values);
  float squares = 0;
  for (int i = lane; i < parts; i += LANES) {
    const int chunk = divide(i, e.group_width);
    const float pixels = min_int(g.chunk, e.pixels - chunk * g.chunk);
    const i64 part = chunk * g.stride + i - chunk * width;
    const float difference = g.means[part] - mean;
    squares += fma(pixels * difference, difference, g.squares[part]);
  }
  const float variance = div_exact(lanes_sum<LANES>(squares), values);
  if (valid && lane == 0) {
    stats[0] = mean;
    stats[1] = div_exact(1, sqrt_exact(variance + epsilon));
  }
}

template <class Access>
DEV void norm_stats(Access access, const NormStatsParams& p) {
  constexpr int W = Access::width;
  constexpr int ahead = 4;
  SHARED float shared[2 * W + 1][norm_threads];
  const NormExtents& e = p.extents;
  const NormPlace at = norm_place(access, e);

  // Differences from the thread's own first value: however far the mean is from zero, what is summed is of the size of
  // the differences between its pixels.
  float first[W], sum[W], square[W];
#pragma unroll
  for (int i = 0; i < W; i++) {
    sum[i] = square[i] = first[i] = 0;
  }
  int count = 0;
  if (at.active && at.begin + at.row < at.end) {
    const NormInput x = norm_input(p.a, p.b, e, at);
    load(access, x.part, x.first + (i64)(at.begin + at.row) * x.stride, first);
    for (int pixel = at.begin + at.row; pixel < at.end; pixel += ahead * e.rows) {
      typename Access::Raw raw[ahead];
#pragma unroll
      for (int k = 0; k < ahead; k++) {
        if (pixel + k * e.rows < at.end) {
          raw[k] = fetch(access, x.part, x.first + (i64)(pixel + k * e.rows) * x.stride);
        }
      }
#pragma unroll
      for (int k = 0; k < ahead; k++) {
        if (pixel + k * e.rows < at.end) {
          float v[W];
          unpack(access, raw[k], v);
#pragma unroll
          for (int i = 0; i < W; i++) {
            const float difference = v[i] - first[i];
            sum[i] += difference;
            square[i] = fma(difference, difference, square[i]);
          }
          count++;
        }
      }
    }
  }
  float v[2 * W + 1];
  const float inverse = count > 0 ? div_exact(1, count) : 0;
#pragma unroll
  for (int i = 0; i < W; i++) {
    v[i] = fma(sum[i], inverse, first[i]);
    v[W + i] = square[i] - sum[i] * sum[i] * inverse;
  }
  v[2 * W] = count;
  fold_rows(v, shared, at.row, e.rows, e.lanes, Moments<W>{});

  if (p.moments != nullptr) {
    if (at.row == 0 && at.active) {
      float* means = p.moments + (i64)block_x() * 2 * e.channels + at.channel;
#pragma unroll
      for (int i = 0; i < W; i++) {
        means[i] = v[i];
        means[e.channels + i] = v[W + i];
      }
    }
    return;
  }
  barrier();
  float* means = &shared[0][0];
  float* squares = &shared[W][0];
  if (at.row == 0 && at.active) {
#pragma unroll
    for (int i = 0; i < W; i++) {
      means[at.channel + i] = v[i];
      squares[at.channel + i] = v[W + i];
    }
  }
  barrier();
  constexpr int lanes = 8;
  for (int base = 0; base < e.groups; base += norm_threads / lanes) {
    const int group = base + thread_x() / lanes;
    const int channel = group * e.group_width.divisor;
    norm_write_stats<lanes>(e, GroupMoments{means + channel, squares + channel, 0, 1, e.pixels}, p.epsilon,
                            group < e.groups, p.stats + ((i64)at.image * e.groups + group) * 2);
  }
}

KERNEL BOUNDS(256, 3) norm_stats_bf16(NormStatsParams p) { norm_stats(PackedBf16{}, p); }
KERNEL BOUNDS(256, 3) norm_stats_f32(NormStatsParams p) { norm_stats(PackedF32{}, p); }
KERNEL BOUNDS(256, 3) norm_stats_any(NormStatsParams p) { norm_stats(Single{}, p); }

// norm_stats_merge makes stats of moments, one warp a group. Launcher: grid {images, groups/8 rounded up}, 256 threads.
KERNEL BOUNDS(256, 3) norm_stats_merge(NormStatsParams p) {
  const NormExtents& e = p.extents;
  const int group = block_y() * (norm_threads / 32) + thread_x() / 32;
  const i64 image = block_x();
  const float* means = p.moments + image * e.chunks * 2 * e.channels + group * e.group_width.divisor;
  norm_write_stats<32>(e, GroupMoments{means, means + e.channels, 2 * e.channels, e.chunks, e.chunk}, p.epsilon,
                       group < e.groups, p.stats + (image * e.groups + group) * 2);
}

// NormMoments is what the producer of a part of x left: for each image and slot, a fixed piece of its pixels, and each
// quad, 4 neighbouring channels, the means and then the sums of squared differences from them: [N,slots,2,quads].
struct NormMoments {
  const float* moments;
  int slots;
  int quads;
};

// NormFoundParams: stats [N,G,2] receives mean and rstd. b is of no quads if x has one part.
struct NormFoundParams {
  NormMoments a, b;
  float* stats;
  int pixels;  // of an image
  int groups;
  int width;  // of a group, in quads
  float epsilon;
};

// FoundGroup is the moments of a group in one part of x.
struct FoundGroup {
  const float* means;    // of its first quad
  const float* squares;  // likewise
  int stride;            // elements from slot to slot
  int slots;
  int quads;
  float values;  // in each
};

DEV FoundGroup found_group(const NormMoments& part, int image, int first, int quads, int pixels) {
  const float* means = part.moments + (i64)image * part.slots * 2 * part.quads + first;
  const float values = quads > 0 ? (float)(pixels / part.slots * 4) : 0;
  return FoundGroup{means, means + part.quads, 2 * part.quads, part.slots, quads, values};
}

// found_sum is a lane's share of the sum of all values' differences from shift.
DEV float found_sum(const FoundGroup& g, float shift) {
  float sum = 0;
  for (int i = thread_x() % 32; i < g.slots * g.quads; i += 32) {
    sum = fma(g.values, g.means[i / g.quads * g.stride + i % g.quads] - shift, sum);
  }
  return sum;
}

// found_squares is a lane's share of the sum of their squared differences from mean.
DEV float found_squares(const FoundGroup& g, float mean) {
  float sum = 0;
  for (int i = thread_x() % 32; i < g.slots * g.quads; i += 32) {
    const int at = i / g.quads * g.stride + i % g.quads;
    const float difference = g.means[at] - mean;
    sum += fma(g.values * difference, difference, g.squares[at]);
  }
  return sum;
}

// norm_stats_found makes stats of moments that were left, one warp a group. Launcher: grid {images, groups/8 rounded
// up}, 256 threads; slots divide pixels.
KERNEL BOUNDS(256, 3) norm_stats_found(NormFoundParams p) {
  const int group = block_y() * (norm_threads / 32) + thread_x() / 32;
  if (group >= p.groups) {
    return;
  }
  const int first = group * p.width;
  const int of_a = max_int(0, min_int(p.width, p.a.quads - first));
  const FoundGroup a = found_group(p.a, block_x(), first, of_a, p.pixels);
  const FoundGroup b = found_group(p.b, block_x(), max_int(0, first - p.a.quads), p.width - of_a, p.pixels);
  const float shift = of_a > 0 ? a.means[0] : b.means[0];
  const float values = (float)p.pixels * 4 * p.width;
  const float mean = shift + div_exact(lanes_sum<32>(found_sum(a, shift) + found_sum(b, shift)), values);
  const float variance = div_exact(lanes_sum<32>(found_squares(a, mean) + found_squares(b, mean)), values);
  if (thread_x() % 32 == 0) {
    float* stats = p.stats + ((i64)block_x() * p.groups + group) * 2;
    stats[0] = mean;
    stats[1] = div_exact(1, sqrt_exact(variance + p.epsilon));
  }
}

// ---- forward ----

// NormParams: stats [N,G,2], gamma and beta [C], y [N,H,W,C].
struct NormParams {
  Values a, b;
  const float* stats;
  const float* gamma;
  const float* beta;
  Values y;
  NormExtents extents;
  int silu;
};

template <class Access>
DEV void norm_forward(Access access, const NormParams& p) {
  constexpr int W = Access::width;
  constexpr int ahead = 4;
  const NormExtents& e = p.extents;
  const NormPlace at = norm_place(access, e);
  if (!at.active) {
    return;
  }
  const NormInput x = norm_input(p.a, p.b, e, at);
  const i64 y = (i64)at.image * e.pixels * e.channels + at.channel;
  float slope[W], offset[W];  // z = slope x + offset
#pragma unroll
  for (int i = 0; i < W; i++) {
    const float* group = p.stats + ((i64)at.image * e.groups + divide(at.channel + i, e.group_width)) * 2;
    slope[i] = p.gamma[at.channel + i] * group[1];
    offset[i] = fma(-group[0], slope[i], p.beta[at.channel + i]);
  }
  for (int pixel = at.begin + at.row; pixel < at.end; pixel += ahead * e.rows) {
    typename Access::Raw raw[ahead];
#pragma unroll
    for (int k = 0; k < ahead; k++) {
      if (pixel + k * e.rows < at.end) {
        raw[k] = fetch(access, x.part, x.first + (i64)(pixel + k * e.rows) * x.stride);
      }
    }
#pragma unroll
    for (int k = 0; k < ahead; k++) {
      if (pixel + k * e.rows < at.end) {
        float v[W];
        unpack(access, raw[k], v);
#pragma unroll
        for (int i = 0; i < W; i++) {
          const float z = fma(v[i], slope[i], offset[i]);
          v[i] = p.silu ? silu_for(access, z) : z;
        }
        store(access, p.y, y + (i64)(pixel + k * e.rows) * e.channels, v);
      }
    }
  }
}

KERNEL BOUNDS(256, 4) norm_forward_bf16(NormParams p) { norm_forward(PackedBf16{}, p); }
KERNEL BOUNDS(256, 4) norm_forward_f32(NormParams p) { norm_forward(PackedF32{}, p); }
KERNEL BOUNDS(256, 4) norm_forward_any(NormParams p) { norm_forward(Single{}, p); }

// ---- backward ----

// NormGradSumsParams: sums [N,chunks,2,C] receives, for each chunk of pixels and channel, the sum of dz xhat and
// that of dz. Where there are several chunks, the launcher has them added up afterwards.
struct NormGradSumsParams {
  Values a, b;
  const float* stats;
  const float* gamma;
  const float* beta;
  Values dy;
  float* sums;
  NormExtents extents;
  int silu;
};

template <class Access>
DEV void norm_grad_sums(Access access, const NormGradSumsParams& p) {
  constexpr int W = Access::width;
  constexpr int ahead = 2;
  SHARED float shared[2 * W][norm_threads];
  const NormExtents& e = p.extents;
  const NormPlace at = norm_place(access, e);
  const float* stats = p.stats + (i64)at.image * e.groups * 2;
  float sums[2 * W];  // of dz (x - mean), then of dz
#pragma unroll
  for (int i = 0; i < 2 * W; i++) {
    sums[i] = 0;
  }
  if (at.active) {
    const NormInput x = norm_input(p.a, p.b, e, at);
    const i64 dy = (i64)at.image * e.pixels * e.channels + at.channel;
    float mean[W], scale[W], beta[W];
#pragma unroll
    for (int i = 0; i < W; i++) {
      const float* group = stats + 2 * divide(at.channel + i, e.group_width);
      mean[i] = group[0];
      scale[i] = p.gamma[at.channel + i] * group[1];
      beta[i] = p.beta[at.channel + i];
    }
    for (int pixel = at.begin + at.row; pixel < at.end; pixel += ahead * e.rows) {
      typename Access::Raw raw_x[ahead], raw_dy[ahead];
#pragma unroll
      for (int k = 0; k < ahead; k++) {
        if (pixel + k * e.rows < at.end) {
          raw_x[k] = fetch(access, x.part, x.first + (i64)(pixel + k * e.rows) * x.stride);
          raw_dy[k] = fetch(access, p.dy, dy + (i64)(pixel + k * e.rows) * e.channels);
        }
      }
#pragma unroll
      for (int k = 0; k < ahead; k++) {
        if (pixel + k * e.rows < at.end) {
          float v[W], dz[W];
          unpack(access, raw_x[k], v);
          unpack(access, raw_dy[k], dz);
#pragma unroll
          for (int i = 0; i < W; i++) {
            const float difference = v[i] - mean[i];
            if (p.silu) {
              dz[i] *= silu_slope_for(access, fma(difference, scale[i], beta[i]));
            }
            sums[i] = fma(dz[i], difference, sums[i]);
            sums[W + i] += dz[i];
          }
        }
      }
    }
  }
  fold_rows(sums, shared, at.row, e.rows, e.lanes, Sums<2 * W>{});
  // The sums of row 0, by neighbouring threads.
  if (at.row == 0) {
#pragma unroll
    for (int i = 0; i < 2 * W; i++) {
      shared[i][thread_x()] = sums[i];
    }
  }
  barrier();
  const int slab = block_y() * e.lanes * W;
  const int channels = min_int(e.lanes * W, e.channels - slab);
  float* out = p.sums + (i64)block_x() * 2 * e.channels + slab;
  for (int channel = thread_x(); channel < channels; channel += norm_threads) {
    const float rstd = stats[2 * divide(slab + channel, e.group_width) + 1];
    out[channel] = rstd * shared[channel % W][channel / W];
    out[e.channels + channel] = shared[W + channel % W][channel / W];
  }
}

KERNEL BOUNDS(256, 2) norm_grad_sums_bf16(NormGradSumsParams p) { norm_grad_sums(PackedBf16{}, p); }
KERNEL BOUNDS(256, 3) norm_grad_sums_f32(NormGradSumsParams p) { norm_grad_sums(PackedF32{}, p); }
KERNEL BOUNDS(256, 3) norm_grad_sums_any(NormGradSumsParams p) { norm_grad_sums(Single{}, p); }

// NormGradDataParams: sums [N,2,C] are those over all pixels. dx [N,H,W,C] receives the gradient, plus residual unless
// its data is null; residual may be dx. left [N,chunks,C], unless it is null, receives the sums of what dx receives.
struct NormGradDataParams {
  Values a, b;
  const float* stats;
  const float* gamma;
  const float* beta;
  Values dy;
  const float* sums;
  Values residual;
  Values dx;
  float* left;
  NormExtents extents;
  int silu;
};

template <class Access>
DEV void norm_grad_data(Access access, const NormGradDataParams& p) {
  constexpr int W = Access::width;
  constexpr int ahead = 2;
  constexpr int most_groups = W * norm_threads;  // that the channels of a slab can belong to
  SHARED float tilt[most_groups];
  SHARED float level[most_groups];
  SHARED float shared[W][norm_threads];
  const NormExtents& e = p.extents;
  const NormPlace at = norm_place(access, e);
  const float* stats = p.stats + (i64)at.image * e.groups * 2;

  // What is subtracted, rstd (sum(gamma dz)/m + xhat sum(gamma dz xhat)/m), as tilt*x + level of each group.
  const int width = e.group_width.divisor;
  const int slab = block_y() * e.lanes * W;
  const int first_group = divide(slab, e.group_width);
  const int end_group = divide(min_int(slab + e.lanes * W, e.channels) - 1, e.group_width) + 1;
  const float inverse = div_exact(1, (float)e.pixels * width);
  constexpr int lanes = 8;  // that add up the channels of a group
  for (int base = first_group; base < end_group; base += norm_threads / lanes) {
    const int group = base + thread_x() / lanes;
    float dot = 0, sum = 0;
    if (group < end_group) {
      for (int channel = group * width + thread_x() % lanes; channel < (group + 1) * width; channel += lanes) {
        const float* sums = p.sums + (i64)at.image * 2 * e.channels + channel;
        dot = fma(p.gamma[channel], sums[0], dot);
        sum = fma(p.gamma[channel], sums[e.channels], sum);
      }
    }
    dot = lanes_sum<lanes>(dot);
    sum = lanes_sum<lanes>(sum);
    if (group < end_group && thread_x() % lanes == 0) {
      const float mean = stats[2 * group];
      const float rstd = stats[2 * group + 1];
      const float slope = rstd * rstd * dot * inverse;
      tilt[group - first_group] = slope;
      level[group - first_group] = fma(rstd * sum, inverse, -mean * slope);
    }
  }
  barrier();
  float total[W];
#pragma unroll
  for (int i = 0; i < W; i++) {
    total[i] = 0;
  }
  if (at.active) {
    const NormInput x = norm_input(p.a, p.b, e, at);
    const i64 y = (i64)at.image * e.pixels * e.channels + at.channel;
    float scale[W], shift[W], slope[W], offset[W];
#pragma unroll
    for (int i = 0; i < W; i++) {
      const int group = divide(at.channel + i, e.group_width);
      scale[i] = p.gamma[at.channel + i] * stats[2 * group + 1];
      shift[i] = fma(-stats[2 * group], scale[i], p.beta[at.channel + i]);
      slope[i] = tilt[group - first_group];
      offset[i] = level[group - first_group];
    }
    const bool adds = p.residual.data != nullptr;
    for (int pixel = at.begin + at.row; pixel < at.end; pixel += ahead * e.rows) {
      typename Access::Raw raw_x[ahead], raw_dy[ahead], raw_residual[ahead];
#pragma unroll
      for (int k = 0; k < ahead; k++) {
        if (pixel + k * e.rows < at.end) {
          const i64 element = y + (i64)(pixel + k * e.rows) * e.channels;
          raw_x[k] = fetch(access, x.part, x.first + (i64)(pixel + k * e.rows) * x.stride);
          raw_dy[k] = fetch(access, p.dy, element);
          if (adds) {
            raw_residual[k] = fetch(access, p.residual, element);
          }
        }
      }
#pragma unroll
      for (int k = 0; k < ahead; k++) {
        if (pixel + k * e.rows < at.end) {
          float v[W], dz[W], sum[W];
          unpack(access, raw_x[k], v);
          unpack(access, raw_dy[k], dz);
          if (adds) {
            unpack(access, raw_residual[k], sum);
          }
#pragma unroll
          for (int i = 0; i < W; i++) {
            if (p.silu) {
              dz[i] *= silu_slope_for(access, fma(v[i], scale[i], shift[i]));
            }
            const float dx = fma(dz[i], scale[i], -fma(v[i], slope[i], offset[i]));
            v[i] = adds ? dx + sum[i] : dx;
          }
#pragma unroll
          for (int i = 0; i < W; i++) {
            total[i] += v[i];
          }
          store(access, p.dx, y + (i64)(pixel + k * e.rows) * e.channels, v);
        }
      }
    }
  }
  if (p.left == nullptr) {
    return;
  }
  fold_rows(total, shared, at.row, e.rows, e.lanes, Sums<W>{});
  if (at.row == 0 && at.active) {
#pragma unroll
    for (int i = 0; i < W; i++) {
      p.left[(i64)block_x() * e.channels + at.channel + i] = total[i];
    }
  }
}

KERNEL BOUNDS(256, 2) norm_grad_data_bf16(NormGradDataParams p) { norm_grad_data(PackedBf16{}, p); }
KERNEL BOUNDS(256, 3) norm_grad_data_f32(NormGradDataParams p) { norm_grad_data(PackedF32{}, p); }
KERNEL BOUNDS(256, 3) norm_grad_data_any(NormGradDataParams p) { norm_grad_data(Single{}, p); }

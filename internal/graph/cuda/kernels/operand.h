// The operands of convolutions and linear layers, brought from global to shared memory tile by tile.
//
// Images are [N,H,W,C], weights [R,S,C,K]. Each operand of a product is one of three matrices whose columns are
// neighbours in memory:
//
//   seen      [output pixel][(r, s, c)]: channel c of the pixel that tap (r, s) sees from an output pixel. Never made
//             in memory: its rows are gathered, zero where a tap sees outside the image.
//   plain     [row][column] as it lies in memory: weights as [(r, s, c)][k], gradients as [pixel][k].
//   turned    [c][(r, s, k)]: weights for a data gradient, which sums over taps and output channels.
//
// A tile along k walks along the columns of its matrix, a tile across k down its rows. Each is loaded in one of two
// ways:
//
//   async     16-byte copies in the background. The matrix must be of the product's precision, its columns a multiple
//             of a chunk, and each chunk must lie in one piece at a multiple of 16 bytes.
//   through   registers, for everything else: float32 and bfloat16 in any mixture, any number of columns.
//
// A loader has two functions. fetch begins to bring the operand's next tile, deposit ends it; the tile may be read
// after a barrier behind the copies' completion.
#pragma once

#include "numeric.h"
#include "tile.h"

// ConvImage is a tensor as the taps of a kernel see it.
struct ConvImage {
  const void* first;   // its first channels
  const void* second;  // the others, of a concatenation; or null
  int first_channels;
  int channels;  // of both
  int first_bf16;
  int second_bf16;
  int height;  // as the taps see it
  int width;
  int doubled;  // 1 if pixel (y, x) is (y/2, x/2) in memory, else 0
  int chunked;  // whether each chunk of channels lies in one piece at a multiple of 16 bytes
  FastDivisor by_channels;
};

// ConvWindow is how taps lie in an image: from output pixel (i, j), tap (r, s) sees pixel
//
//   y = i * stride + r * step - top,  x = j * stride + s * step - left.
struct ConvWindow {
  int rows;  // of taps
  int columns;
  int stride;
  int step;  // 1, or -1 in a data gradient
  int top;
  int left;
  u32 pixels;            // output pixels, of all samples
  FastDivisor by_plane;  // output pixels of one sample
  FastDivisor by_width;  // and of one of its rows
};

// ConvMatrix is a plain matrix.
struct ConvMatrix {
  const void* data;
  int bf16;
  int chunked;  // as in ConvImage
  int rows;
  int columns;
};

// ConvWeights are weights [R,S,C,K].
struct ConvWeights {
  const void* data;
  int bf16;
  int chunked;  // as in ConvImage
  int r;
  int s;
  int c;
  int k;
};

// ConvTaps are some of a kernel's taps: every stride'th in both directions from (r, s) on, rows times columns of them.
struct ConvTaps {
  int r;
  int s;
  int stride;
  int rows;
  int columns;
};

// TapColumn is a column (r, s, c) of a seen matrix, or (r, s, k) of a turned one.
struct TapColumn {
  int r;
  int s;
  int channel;
};

// tap_column is column number tap * channels + channel, of so many columns of taps.
DEV TapColumn tap_column(int tap, int channel, int columns) {
  const int r = tap / columns;
  return TapColumn{r, tap - r * columns, channel};
}

// carry makes good for a channel beyond the last one.
DEV void carry(TapColumn& at, int channels, int columns) {
  while (at.channel >= channels) {
    at.channel -= channels;
    at.s++;
    if (at.s == columns) {
      at.s = 0;
      at.r++;
    }
  }
}

// see finds the pixel that tap (r, s) sees, counted in memory; false if that is outside the image.
DEV bool see(const ConvImage& image, const ConvWindow& window, u32 pixel, int r, int s, int& seen) {
  const u32 sample = divide(pixel, window.by_plane);
  const u32 rest = pixel - sample * window.by_plane.divisor;
  const u32 i = divide(rest, window.by_width);
  const u32 j = rest - i * window.by_width.divisor;
  const int y = (int)i * window.stride + r * window.step - window.top;
  const int x = (int)j * window.stride + s * window.step - window.left;
  const int height = image.height >> image.doubled;
  const int width = image.width >> image.doubled;
  seen = ((int)sample * height + (y >> image.doubled)) * width + (x >> image.doubled);
  return pixel < window.pixels && (u32)y < (u32)image.height && (u32)x < (u32)image.width;
}

// Part is the tensor, of an image's two, that a channel lies in: channels first to end of the image.
struct Part {
  const void* data;
  int bf16;
  int first;
  int end;
};

DEV Part part_of(const ConvImage& image, int channel) {
  const int border = image.first_channels;
  const bool first = channel < border;
  return Part{first ? image.first : image.second, first ? image.first_bf16 : image.second_bf16, first ? 0 : border,
              first ? border : image.channels};
}

// weights_line is the number of the tap's line of weights [c][k].
DEV i64 weights_line(const ConvWeights& w, const ConvTaps& taps, const TapColumn& at, int c) {
  const int r = taps.r + at.r * taps.stride;
  const int s = taps.s + at.s * taps.stride;
  return ((i64)r * w.s + s) * w.c + c;
}

// The chunks of a tile are dealt to the threads of a block: a thread has one chunk of every stride'th line.
template <class T, int THREADS>
struct Deal {
  static constexpr int stride = THREADS / T::chunks;
  static constexpr int count = (T::lines + stride - 1) / stride;
  static constexpr bool even = T::lines % stride == 0;
};

template <class T>
DEV u32 dealt_chunk() {
  return thread_x() % T::chunks;
}

template <class T, int THREADS>
DEV u32 dealt_line(int i) {
  return thread_x() / T::chunks + i * Deal<T, THREADS>::stride;
}

// deals is whether the tile has an i'th chunk for this thread.
template <class T, int THREADS>
DEV bool deals(int i) {
  return Deal<T, THREADS>::even || dealt_line<T, THREADS>(i) < T::lines;
}

// place is where it lies.
template <class T, int THREADS>
DEV char* place(char* tile, int i) {
  return tile + chunk_offset<T>(dealt_line<T, THREADS>(i), dealt_chunk<T>());
}

// copy_chunk copies it in the background, or zeros.
template <class T, int THREADS>
DEV void copy_chunk(char* tile, int i, const char* from, bool inside) {
  if (deals<T, THREADS>(i)) {
    copy_async16(place<T, THREADS>(tile, i), from, inside ? 16 : 0);
  }
}

// bytes_of is how many bytes so many elements of a tile take.
template <class T>
DEV i64 bytes_of(i64 elements) {
  return elements * (16 / T::Precision::chunk);
}

// SeenAlong loads tiles of a seen matrix along its columns. Pointers follow each line's pixel through the channels;
// only where a chunk comes to another tap or another tensor are the pixels looked up again.
template <class T, int THREADS>
struct SeenAlong {
  const ConvImage& image;
  const ConvWindow& window;
  u32 pixel;     // output pixel of the thread's first line
  TapColumn at;  // where the thread's next chunk begins
  int end;       // channel where the pointers end
  u32 inside;    // bit i: line i sees a pixel
  const char* from[Deal<T, THREADS>::count];
};

template <class T, int THREADS>
DEV void look_up(SeenAlong<T, THREADS>& l) {
  const Part part = part_of(l.image, l.at.channel);
  l.end = part.end;
  l.inside = 0;
#pragma unroll
  for (int i = 0; i < Deal<T, THREADS>::count; i++) {
    int seen;
    const u32 pixel = l.pixel + i * Deal<T, THREADS>::stride;
    if (see(l.image, l.window, pixel, l.at.r, l.at.s, seen) && l.at.r < l.window.rows) {
      l.inside |= 1u << i;
    }
    const i64 element = (i64)seen * (part.end - part.first) + (l.at.channel - part.first);
    l.from[i] = (const char*)part.data + bytes_of<T>(element);
  }
}

template <class T, int THREADS>
DEV void fetch(SeenAlong<T, THREADS>& l, char* tile) {
#pragma unroll
  for (int i = 0; i < Deal<T, THREADS>::count; i++) {
    copy_chunk<T, THREADS>(tile, i, l.from[i], l.inside >> i & 1);
    l.from[i] += T::chunks * 16;
  }
  l.at.channel += T::chunks * T::Precision::chunk;
  if (l.at.channel >= l.end) {
    carry(l.at, l.image.channels, l.window.columns);
    look_up(l);
  }
}

// SeenAcross loads tiles of a seen matrix down its rows: the thread's column stays, the pixels move.
template <class T, int THREADS>
struct SeenAcross {
  const ConvImage& image;
  const ConvWindow& window;
  u32 pixel;         // output pixel of the thread's next line
  TapColumn at;      // the thread's column
  i64 pitch;         // bytes from pixel to pixel
  const char* data;  // the column's channel of pixel 0
};

template <class T, int THREADS>
DEV void fetch(SeenAcross<T, THREADS>& l, char* tile) {
#pragma unroll
  for (int i = 0; i < Deal<T, THREADS>::count; i++) {
    int seen;
    const u32 pixel = l.pixel + i * Deal<T, THREADS>::stride;
    const bool inside = see(l.image, l.window, pixel, l.at.r, l.at.s, seen) && l.at.r < l.window.rows;
    copy_chunk<T, THREADS>(tile, i, l.data + seen * l.pitch, inside);
  }
  l.pixel += T::lines;
}

// PlainAcross loads tiles of a plain matrix down its rows.
template <class T, int THREADS>
struct PlainAcross {
  u32 row;    // of the thread's next line
  u32 rows;   // of the matrix; none if it lacks the thread's columns
  i64 pitch;  // bytes from row to row
  const char* from;
};

template <class T, int THREADS>
DEV void fetch(PlainAcross<T, THREADS>& l, char* tile) {
#pragma unroll
  for (int i = 0; i < Deal<T, THREADS>::count; i++) {
    copy_chunk<T, THREADS>(tile, i, l.from + i * (Deal<T, THREADS>::stride * l.pitch),
                           l.row + i * Deal<T, THREADS>::stride < l.rows);
  }
  l.from += T::lines * l.pitch;
  l.row += T::lines;
}

// TurnedAlong loads tiles of turned weights along their columns.
template <class T, int THREADS>
struct TurnedAlong {
  const ConvWeights& weights;
  const ConvTaps& taps;
  int c;         // row of the thread's first line
  TapColumn at;  // where the thread's next chunk begins
  const char* from;
};

template <class T, int THREADS>
DEV void look_up(TurnedAlong<T, THREADS>& l) {
  const i64 line = weights_line(l.weights, l.taps, l.at, l.c);
  l.from = (const char*)l.weights.data + bytes_of<T>(line * l.weights.k + l.at.channel);
}

template <class T, int THREADS>
DEV void fetch(TurnedAlong<T, THREADS>& l, char* tile) {
  const i64 pitch = bytes_of<T>((i64)Deal<T, THREADS>::stride * l.weights.k);
#pragma unroll
  for (int i = 0; i < Deal<T, THREADS>::count; i++) {
    const bool inside = l.c + i * Deal<T, THREADS>::stride < l.weights.c && l.at.r < l.taps.rows;
    copy_chunk<T, THREADS>(tile, i, l.from + i * pitch, inside);
  }
  l.from += T::chunks * 16;
  l.at.channel += T::chunks * T::Precision::chunk;
  if (l.at.channel >= l.weights.k) {
    carry(l.at, l.weights.k, l.taps.columns);
    look_up(l);
  }
}

// The matrices as they are read through registers. read_chunk reads elements of one row from a column on, zeros
// outside the matrix.
struct Seen {
  const ConvImage& image;
  const ConvWindow& window;
};

struct Turned {
  const ConvWeights& weights;
  const ConvTaps& taps;
};

DEV void read_piece(const void* data, i64 at, int bf16, float (&v)[8]) { load8(data, at, bf16, v); }
DEV void read_piece(const void* data, i64 at, int bf16, float (&v)[4]) { load4(data, at, bf16, v); }

template <int N>
DEV void read_chunk(const ConvMatrix& m, u32 row, u32 column, float (&v)[N]) {
  const i64 at = (i64)row * m.columns + column;
  const u32 columns = row < (u32)m.rows ? m.columns : 0;
  if (m.chunked && column < columns) {
    read_piece(m.data, at, m.bf16, v);
    return;
  }
#pragma unroll
  for (int e = 0; e < N; e++) {
    v[e] = column + e < columns ? load_any(m.data, at + e, m.bf16) : 0;
  }
}

template <int N>
DEV void read_chunk(const Seen& m, u32 pixel, u32 column, float (&v)[N]) {
  const ConvImage& image = m.image;
  const int tap = divide(column, image.by_channels);
  TapColumn at = tap_column(tap, column - tap * image.channels, m.window.columns);
#pragma unroll
  for (int e = 0; e < N; e++) {
    int seen;
    const bool inside = see(image, m.window, pixel, at.r, at.s, seen) && at.r < m.window.rows;
    const Part part = part_of(image, at.channel);
    const i64 element = (i64)seen * (part.end - part.first) + (at.channel - part.first);
    if (e == 0 && image.chunked && inside) {
      read_piece(part.data, element, part.bf16, v);
      return;
    }
    v[e] = inside ? load_any(part.data, element, part.bf16) : 0;
    at.channel++;
    carry(at, image.channels, m.window.columns);
  }
}

template <int N>
DEV void read_chunk(const Turned& m, u32 c, u32 column, float (&v)[N]) {
  const ConvWeights& w = m.weights;
  const int tap = column / w.k;
  TapColumn at = tap_column(tap, column - tap * w.k, m.taps.columns);
#pragma unroll
  for (int e = 0; e < N; e++) {
    const bool inside = c < (u32)w.c && at.r < m.taps.rows;
    const i64 element = weights_line(w, m.taps, at, c) * w.k + at.channel;
    if (e == 0 && w.chunked && inside) {
      read_piece(w.data, element, w.bf16, v);
      return;
    }
    v[e] = inside ? load_any(w.data, element, w.bf16) : 0;
    at.channel++;
    carry(at, w.k, m.taps.columns);
  }
}

// Through loads tiles of any matrix through registers.
template <class T, int THREADS, class Matrix>
struct Through {
  const Matrix matrix;
  u32 row;     // of the matrix, where the next tile begins
  u32 column;
  Vec4 words[Deal<T, THREADS>::count];
};

template <class T, int THREADS, class Matrix>
DEV void fetch(Through<T, THREADS, Matrix>& l, char*) {
#pragma unroll
  for (int i = 0; i < Deal<T, THREADS>::count; i++) {
    if (deals<T, THREADS>(i)) {
      float v[T::Precision::chunk];
      read_chunk(l.matrix, l.row + dealt_line<T, THREADS>(i), l.column + dealt_chunk<T>() * T::Precision::chunk, v);
      l.words[i] = pack_chunk(v);
    }
  }
  if constexpr (T::along_k) {
    l.column += T::chunks * T::Precision::chunk;
  } else {
    l.row += T::lines;
  }
}

template <class T, int THREADS, class Matrix>
DEV void deposit(Through<T, THREADS, Matrix>& l, char* tile) {
#pragma unroll
  for (int i = 0; i < Deal<T, THREADS>::count; i++) {
    if (deals<T, THREADS>(i)) {
      *(Vec4*)place<T, THREADS>(tile, i) = l.words[i];
    }
  }
}

// What is copied in the background needs no end.
template <class T, int THREADS>
DEV void deposit(SeenAlong<T, THREADS>&, char*) {}

template <class T, int THREADS>
DEV void deposit(SeenAcross<T, THREADS>&, char*) {}

template <class T, int THREADS>
DEV void deposit(PlainAcross<T, THREADS>&, char*) {}

template <class T, int THREADS>
DEV void deposit(TurnedAlong<T, THREADS>&, char*) {}

// The loader of a matrix, whose first tile begins at a row and a column.
template <class T, int THREADS, bool ASYNC>
DEV auto load_seen(const ConvImage& image, const ConvWindow& window, u32 row, u32 column) {
  if constexpr (!ASYNC) {
    return Through<T, THREADS, Seen>{Seen{image, window}, row, column, {}};
  } else {
    const u32 pixel = row + dealt_line<T, THREADS>(0);
    const u32 first = column + dealt_chunk<T>() * T::Precision::chunk;
    const int tap = divide(first, image.by_channels);
    const TapColumn at = tap_column(tap, first - tap * image.channels, window.columns);
    if constexpr (T::along_k) {
      SeenAlong<T, THREADS> l{image, window, pixel, at, 0, 0, {}};
      look_up(l);
      return l;
    } else {
      const Part part = part_of(image, at.channel);
      const char* data = (const char*)part.data + bytes_of<T>(at.channel - part.first);
      return SeenAcross<T, THREADS>{image, window, pixel, at, bytes_of<T>(part.end - part.first), data};
    }
  }
}

template <class T, int THREADS, bool ASYNC>
DEV auto load_plain(const ConvMatrix& matrix, u32 row, u32 column) {
  if constexpr (!ASYNC) {
    return Through<T, THREADS, ConvMatrix>{matrix, row, column, {}};
  } else {
    const u32 first = column + dealt_chunk<T>() * T::Precision::chunk;
    const u32 line = row + dealt_line<T, THREADS>(0);
    const i64 pitch = bytes_of<T>(matrix.columns);
    const u32 rows = first < (u32)matrix.columns ? matrix.rows : 0;
    return PlainAcross<T, THREADS>{line, rows, pitch, (const char*)matrix.data + line * pitch + bytes_of<T>(first)};
  }
}

template <class T, int THREADS, bool ASYNC>
DEV auto load_turned(const ConvWeights& weights, const ConvTaps& taps, u32 row, u32 column) {
  if constexpr (!ASYNC) {
    return Through<T, THREADS, Turned>{Turned{weights, taps}, row, column, {}};
  } else {
    const int c = row + dealt_line<T, THREADS>(0);
    const int first = column + dealt_chunk<T>() * T::Precision::chunk;
    const int tap = first / weights.k;
    TurnedAlong<T, THREADS> l{weights, taps, c, tap_column(tap, first - tap * weights.k, taps.columns), nullptr};
    look_up(l);
    return l;
  }
}

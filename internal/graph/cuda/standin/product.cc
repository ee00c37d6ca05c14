#include "product.h"

#include <cstring>

// Fields of a descriptor, see wgmma_descriptor.
static u32 field(u64 descriptor, int shift) { return (u32)(descriptor >> shift & 0x3fff) << 4; }

Layout layout_of(const Worker& w, u64 descriptor, int rows, bool turned) {
  const u64 known = (u64)0x3fff | (u64)0x3fff << 16 | (u64)0x3fff << 32 | (u64)3 << 62;
  if (descriptor >> 62 != 1 || descriptor & ~known) {
    die(w, "descriptor 0x%llx is not one of wgmma_descriptor", descriptor);
  }
  const Layout l{field(descriptor, 0), field(descriptor, 16), field(descriptor, 32), turned};
  const u32 within_row = l.address % 128;
  if (l.address % 1024 / 128 || (turned ? within_row != 0 : within_row % 32 != 0)) {
    die(w, "an operand of a product begins at address %u, which is not where a row of the pattern of 1024 bytes, or "
        "its 16 numbers of k, begin", l.address);
  }
  if (l.stride % 1024 || (turned && rows > 64 && l.leading % 1024)) {
    die(w, "an operand of a product has stride %u and leading %u, which are not multiples of the pattern, 1024",
        l.stride, l.leading);
  }
  return l;
}

typedef u16 Halves __attribute__((vector_size(16)));
typedef u32 Words __attribute__((vector_size(32)));
typedef float Floats __attribute__((vector_size(32)));
typedef float Panel __attribute__((vector_size(64)));

// widen is the 8 numbers of a piece.
static inline __attribute__((always_inline)) void widen(float to[8], const char* piece) {
  Halves v;
  memcpy(&v, piece, sizeof v);
  const Words words = __builtin_convertvector(v, Words) << 16;
  memcpy(to, &words, sizeof words);
}

void unpack_a(OperandA& to, const char* shared, const Layout& l) {
  if (!l.turned) {
    for (int row = 0; row < product_rows; row++) {
      widen(&to[row][0], shared + piece_address(l, row, 0));
      widen(&to[row][8], shared + piece_address(l, row, 8));
    }
    return;
  }
  for (int k = 0; k < product_depth; k++) {
    for (int row = 0; row < product_rows; row += 8) {
      float v[8];
      widen(v, shared + piece_address(l, row, k));
      for (int i = 0; i < 8; i++) {
        to[row + i][k] = v[i];
      }
    }
  }
}

void unpack_b(OperandB& to, const char* shared, const Layout& l, int columns) {
  for (int column = 0; column < columns; column += 8) {
    float(*panel)[panel_columns] = to[column / panel_columns];
    const int at = column % panel_columns;
    if (l.turned) {
      for (int k = 0; k < product_depth; k++) {
        widen(&panel[k][at], shared + piece_address(l, column, k));
      }
      continue;
    }
    for (int i = 0; i < 8; i++) {
      float v[product_depth];
      widen(v, shared + piece_address(l, column + i, 0));
      widen(v + 8, shared + piece_address(l, column + i, 8));
      for (int k = 0; k < product_depth; k++) {
        panel[k][at + i] = v[k];
      }
    }
  }
}

// multiply_panels keeps so many rows of a panel in registers. A product of two bf16 is exact in float32, so it does not
// matter whether the compiler fuses it into the sum.
template <int rows>
static inline __attribute__((always_inline)) void multiply_panels(ProductTile& tile, const OperandA& a,
                                                                  const OperandB& b, int panels) {
  for (int p = 0; p < panels; p++) {
    for (int first = 0; first < product_rows; first += rows) {
      Panel sums[rows];
      memcpy(sums, tile.panels[p][first], sizeof sums);
      for (int k = 0; k < product_depth; k++) {
        Panel column;
        memcpy(&column, b[p][k], sizeof column);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
          sums[i] += a[first + i][k] * column;
        }
      }
      memcpy(tile.panels[p][first], sums, sizeof sums);
    }
  }
}

// As many rows as fill the registers of each kind of processor; the results are equal.
#ifdef __x86_64__
__attribute__((target("avx512f"))) static void multiply_avx512(ProductTile& tile, const OperandA& a,
                                                               const OperandB& b, int panels) {
  multiply_panels<16>(tile, a, b, panels);
}

__attribute__((target("avx2,fma"))) static void multiply_avx2(ProductTile& tile, const OperandA& a, const OperandB& b,
                                                              int panels) {
  multiply_panels<4>(tile, a, b, panels);
}

static const bool has_avx512 = __builtin_cpu_supports("avx512f");
static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif

void multiply_add(ProductTile& tile, const OperandA& a, const OperandB& b, int columns) {
  const int panels = columns / panel_columns;
#ifdef __x86_64__
  if (has_avx512) {
    multiply_avx512(tile, a, b, panels);
    return;
  }
  if (has_avx2) {
    multiply_avx2(tile, a, b, panels);
    return;
  }
#endif
  multiply_panels<2>(tile, a, b, panels);
}

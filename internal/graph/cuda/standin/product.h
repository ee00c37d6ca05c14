// The arithmetic of wgmma: operands out of shared memory, and products of blocks of numbers.
#pragma once

#include "hopper_block.h"

const int product_rows = 64;
const int product_depth = 16;       // k
const int product_columns = 256;    // at most
const int panel_columns = 16;

// Operands as float32. Those of b, and products, are in panels of 16 columns.
typedef float OperandA[product_rows][product_depth];
typedef float OperandB[product_columns / panel_columns][product_depth][panel_columns];

struct ProductTile {
  float panels[product_columns / panel_columns][product_rows][panel_columns];
};

// Arithmetic is what a worker multiplies in.
struct Arithmetic {
  OperandA a;
  OperandB b;
  std::vector<std::unique_ptr<ProductTile>> tiles;
};

// Layout is a descriptor taken apart: where the pieces of 8 elements of an operand lie.
struct Layout {
  u32 address;
  u32 leading;
  u32 stride;
  bool turned;
};

// layout_of checks the descriptor of an operand of so many rows of M or N.
Layout layout_of(const Worker& w, u64 descriptor, int rows, bool turned);

// piece_address is where 8 elements lie: those of k from a multiple of 8 of one row or, turned, those of rows from a
// multiple of 8 for one k.
inline u32 piece_address(const Layout& l, int row, int k) {
  const u32 i = (u32)row, j = (u32)k;
  const u32 address = l.turned ? l.address + i / 64 * l.leading + i % 64 * 2 + j / 8 * l.stride + j % 8 * 128
                               : l.address + i / 8 * l.stride + i % 8 * 128 + j * 2;
  return address ^ (address >> 7 & 7) << 4;
}

// unpack_a and unpack_b make float32 of an operand. shared is where address 0 of shared memory would lie.
void unpack_a(OperandA& to, const char* shared, const Layout& l);
void unpack_b(OperandB& to, const char* shared, const Layout& l, int columns);

// multiply_add adds a b to the tile, in the order of k.
void multiply_add(ProductTile& tile, const OperandA& a, const OperandB& b, int columns);

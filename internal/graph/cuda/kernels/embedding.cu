// Rows of a table, and the gradient of the table.
#include "device.h"
#include "numeric.h"

constexpr int embedding_threads = 256;

// EmbeddingRowsParams: out[n] = table[index[n]], rows of width columns; NaN where the table has no such row. Launcher:
// 256 threads, one of total values each.
struct EmbeddingRowsParams {
  const float* table;
  const u32* index;
  float* out;
  FastDivisor width;
  u32 rows;
  int total;
};

KERNEL BOUNDS(256, 4) embedding_rows(EmbeddingRowsParams p) {
  const u32 i = block_x() * embedding_threads + thread_x();
  if (i >= (u32)p.total) {
    return;
  }
  const u32 n = divide(i, p.width);
  const u32 row = p.index[n];
  const u32 column = i - n * p.width.divisor;
  p.out[i] = row < p.rows ? p.table[(i64)row * p.width.divisor + column] : as_float(0x7fffffffu);
}

// EmbeddingRowsGradParams: dtable[r] is the sum of dy[n] over those n whose index[n] is r, in their order, dy
// [count,width]. Launcher: 256 threads, grid {rows of the table, 256 columns each}.
struct EmbeddingRowsGradParams {
  const u32* index;
  const float* dy;
  float* dtable;
  int count;
  int width;
};

KERNEL BOUNDS(256, 4) embedding_rows_grad(EmbeddingRowsGradParams p) {
  SHARED u32 uses[embedding_threads / 32];
  const u32 row = block_x();
  const int thread = thread_x();
  const int column = block_y() * embedding_threads + thread;
  float sum = 0;
  for (int first = 0; first < p.count; first += embedding_threads) {
    // Which of the next 256 use this row, a bit each.
    const u32 used = ballot(first + thread < p.count && p.index[first + thread] == row);
    if (thread % 32 == 0) {
      uses[thread / 32] = used;
    }
    barrier();
    for (int word = 0; word < embedding_threads / 32; word++) {
      u32 bits = column < p.width ? uses[word] : 0;
      for (int n = first + 32 * word; bits != 0; n++, bits >>= 1) {
        if (bits & 1u) {
          sum += p.dy[(i64)n * p.width + column];
        }
      }
    }
    barrier();
  }
  if (column < p.width) {
    p.dtable[(i64)row * p.width + column] = sum;
  }
}

// Bulk copies of boxes of a tensor to shared memory. A copy overwrites its destination with NaN when it is started, and
// writes what it copies when run_a_load chooses it.
#include <cstring>

#include "mbarrier.h"
#include "memory.h"
#include "races.h"

// span is what a box takes of a dimension, in elements of the copy.
static u32 span(const TiledTensor& t, int i) { return (t.box[i] + t.steps[i] - 1u) / t.steps[i]; }

static u32 row_bytes(const TiledTensor& t) { return span(t, 0) * t.element_bytes; }

// swizzled is where the piece that would lie at an address does lie: 16-byte pieces are permuted by the row of 128
// bytes that they are in.
static u32 swizzled(u32 address, u32 swizzle) {
  const u32 pieces = swizzle / piece_bytes;
  return pieces ? address ^ (address >> 7 & (pieces - 1)) << 4 : address;
}

// Row is a row of a box: where it lies in shared memory, and the part of it, in elements, that is in the tensor.
struct Row {
  u32 address;
  u32 first, last;  // last is past the end; none is inside where they are equal
  const char* from;  // of the first
};

// for_each_row calls visit with each row of a box.
template <class Visit>
static inline void for_each_row(const Load& load, Visit visit) {
  const TiledTensor& t = load.tensor;
  const i64 inner = (i64)t.last[0] + 1;
  const i64 begin = load.at[0] < 0 ? -(i64)load.at[0] : 0;
  const i64 end = inner - load.at[0] < span(t, 0) ? inner - load.at[0] : span(t, 0);
  u32 at[max_rank] = {};
  Row row{load.address, 0, 0, nullptr};
  for (;;) {
    bool inside = begin < end;
    u64 from = t.address + (u64)((begin + load.at[0]) * t.element_bytes);
    for (int i = 1; i < t.rank; i++) {
      const i64 coordinate = (i64)load.at[i] + (i64)at[i] * t.steps[i];
      inside = inside && coordinate >= 0 && coordinate <= t.last[i];
      from += (u64)coordinate * t.strides[i - 1];
    }
    row.first = inside ? (u32)begin : 0;
    row.last = inside ? (u32)end : 0;
    row.from = (const char*)from;
    visit(row);
    row.address += row_bytes(t);
    int i = 1;
    while (i < t.rank && ++at[i] == span(t, i)) {
      at[i++] = 0;
    }
    if (i >= t.rank) {
      return;
    }
  }
}

static void check_destination(const Worker& w, const TiledTensor& t, u32 address, u32 bytes) {
  // The pattern of a swizzle of 8, 4 or 2 pieces repeats after as many rows of 128 bytes.
  const u32 alignment = t.swizzle ? t.swizzle * 8u : 128;
  shared_at(w, "a copy", address, 1, alignment);
  if (bytes > w.dynamic_shared.bytes || address - shared_start > w.dynamic_shared.bytes - bytes) {
    die(w, "a copy of %u bytes to byte %u of dynamic shared memory passes its end, %zu", bytes, address - shared_start,
        w.dynamic_shared.bytes);
  }
}

static void start_load(u32 address, const TensorMap* map, int rank, const int* at, u32 barrier) {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "a copy");
  if ((uintptr_t)map % 64) {
    die(w, "the tensor map of a copy lies at %p, not at a multiple of 64", map);
  }
  check_global(w, map, sizeof *map, Access::read);
  Load load{};
  memcpy(&load.tensor, map, sizeof load.tensor);
  const TiledTensor& t = load.tensor;
  if (!is_tensor_map(t)) {
    die(w, "what lies at %p is no tensor map", map);
  }
  if (t.rank != rank) {
    die(w, "a copy of a box of rank %d by the tensor map of a tensor of rank %u", rank, t.rank);
  }
  if (t.swizzle && row_bytes(t) != t.swizzle) {
    die(w, "a box whose rows have %u bytes with a swizzle of %u is more than the stand-in knows", row_bytes(t),
        t.swizzle);
  }
  memcpy(load.at, at, (size_t)rank * sizeof *at);
  load.address = address;
  load.bytes = row_bytes(t);
  for (int i = 1; i < rank; i++) {
    load.bytes *= span(t, i);
  }
  check_destination(w, t, address, load.bytes);
  load.mbarrier = mbarrier_of_load(w, h, barrier);
  begin_load(w, address, load.bytes, load.mbarrier);
  for_each_row(load, [&](const Row& row) {
    if (row.last > row.first) {
      check_global(w, row.from, (row.last - row.first) * t.element_bytes, Access::read);
    }
  });
  memset(shared_at(w, "a copy", address, 1, 1), poison, load.bytes);
  h.loads.push_back(load);
  give_way(w);
}

static void run(Worker& w, const Load& load) {
  const TiledTensor& t = load.tensor;
  const u32 bytes = row_bytes(t);
  char row_in_order[256 * 8];
  char* const shared = (char*)w.dynamic_shared.base;
  for_each_row(load, [&](const Row& row) {
    const u32 first = row.first * t.element_bytes, last = row.last * t.element_bytes;
    memset(row_in_order, 0, bytes);
    if (last > first) {
      memcpy(row_in_order + first, row.from, last - first);
    }
    for (u32 at = 0; at < bytes; at += piece_bytes) {
      memcpy(shared + (swizzled(row.address + at, t.swizzle) - shared_start), row_in_order + at, piece_bytes);
    }
  });
  HopperBlock& h = *w.hopper;
  end_load(w, load.address, load.bytes, bytes_arrived(w, h, load.mbarrier, load.bytes));
}

bool run_a_load(Worker& w) {
  std::vector<Load>& loads = w.hopper->loads;
  if (loads.empty()) {
    return false;
  }
  const u32 i = random_below(w.random_state, (u32)loads.size());
  const Load load = loads[i];
  loads[i] = loads.back();
  loads.pop_back();
  run(w, load);
  return true;
}

void tma_load3(u32 shared, const TensorMap* map, int c0, int c1, int c2, u32 barrier) {
  const int at[] = {c0, c1, c2};
  start_load(shared, map, 3, at, barrier);
}

void tma_load4(u32 shared, const TensorMap* map, int c0, int c1, int c2, int c3, u32 barrier) {
  const int at[] = {c0, c1, c2, c3};
  start_load(shared, map, 4, at, barrier);
}

void tma_load5(u32 shared, const TensorMap* map, int c0, int c1, int c2, int c3, int c4, u32 barrier) {
  const int at[] = {c0, c1, c2, c3, c4};
  start_load(shared, map, 5, at, barrier);
}

void tma_prefetch(const TensorMap* map) {
  Worker& w = this_worker();
  hopper_of(w, "tma_prefetch");
  check_global(w, map, sizeof *map, Access::read);
}

void fence_async_proxy() {
  Worker& w = this_worker();
  fence_proxy(w, hopper_of(w, "fence_async_proxy").clocks, w.current->index);
}

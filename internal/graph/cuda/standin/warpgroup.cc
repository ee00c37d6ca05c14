// Warpgroups: products (wgmma) and the number of registers. hopper_gpu.h has the contracts.
#include <cstring>

#include "product.h"
#include "races.h"

struct Caller {
  u32 group;   // warpgroup
  u32 thread;  // in it
  u32 warp;    // in it
};

// caller_of is the place of the calling thread. Its warpgroup has to be whole.
static Caller caller_of(const Worker& w, const char* function) {
  const u32 index = w.current->index;
  const Caller c{index / warpgroup_threads, index % warpgroup_threads, index % warpgroup_threads / warp_lanes};
  if ((c.group + 1) * warpgroup_threads > w.launch->threads) {
    die(w, "%s needs a whole warpgroup of %u threads", function, warpgroup_threads);
  }
  return c;
}

void wgmma_fence() {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "wgmma_fence");
  const Caller c = caller_of(w, "wgmma_fence");
  h.warpgroups[c.group].fenced[c.thread] = true;
}

// check_needed ends the process if the calling warp does not know what it needs for a product to read its operands.
static void check_needed(const Worker& w, const HopperBlock& h, const Product& p) {
  const u32 warp = w.current->index / warp_lanes;
  for (const Needed& n : p.needed) {
    // The lanes of a warp start a product together, so that it comes after what each of them did.
    const bool own = n.fenced && (n.slot - thread_slot(0)) / warp_lanes == warp;
    if (!own && !knows(h.clocks, warp, n.slot, n.epoch)) {
      if (!n.fenced) {
        die(w, "data race: a product reads what a copy brought, without a wait for the mbarrier at byte %u",
            h.mbarriers[n.slot - copies_slot(0)].address - shared_start);
      }
      die(w, "data race: a product reads what thread %u wrote, with nothing to order the two",
          n.slot - thread_slot(0));
    }
    if (n.fenced && !knows_fenced(h.clocks, warp, n.slot, n.epoch)) {
      die(w, "a product reads what thread %u wrote without a fence_async_proxy", n.slot - thread_slot(0));
    }
  }
}

// read_operand records that a product reads an operand, and adds what warps need to know for it.
static void read_operand(Worker& w, HopperBlock& h, Product& p, u32 group, const Layout& l, int rows) {
  const int row_step = l.turned ? 8 : 1, k_step = l.turned ? 1 : 8;
  for (int row = 0; row < rows; row += row_step) {
    for (int k = 0; k < product_depth; k += k_step) {
      const u32 address = piece_address(l, row, k);
      const u32 offset = address - shared_start;
      if (address < shared_start || offset + piece_bytes > w.dynamic_shared.bytes) {
        die(w, "a product reads byte %lld of dynamic shared memory, of which the launch asked for %zu",
            (i64)address - shared_start, w.dynamic_shared.bytes);
      }
      Piece& piece = h.pieces[offset / piece_bytes];
      read_piece(w, piece, offset, p.needed);
      piece.products[group] = p.group;
    }
  }
}

void start_wgmma(float* sums, int n, u64 a, u64 b, bool a_turned, bool b_turned) {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "wgmma");
  const Caller c = caller_of(w, "wgmma");
  Warpgroup& g = h.warpgroups[c.group];
  if (!g.fenced[c.thread]) {
    die(w, "a product without a wgmma_fence before the first one");
  }
  const u32 group = g.committed[c.thread] + 1;
  const u32 index = g.started[c.thread]++ - g.done;
  if (index == g.products.size()) {
    g.products.emplace_back();
    Product& p = g.products.back();
    p.a = a;
    p.b = b;
    p.n = n;
    p.a_turned = a_turned;
    p.b_turned = b_turned;
    p.group = group;
    p.warps = 0;
    read_operand(w, h, p, c.group, layout_of(w, a, product_rows, a_turned), product_rows);
    read_operand(w, h, p, c.group, layout_of(w, b, n, b_turned), n);
  }
  Product& p = g.products[index];
  if (p.a != a || p.b != b || p.n != n || p.a_turned != a_turned || p.b_turned != b_turned || p.group != group) {
    die(w, "the threads of warpgroup %u start different products: 0x%llx by 0x%llx of %d columns in group %u, and "
        "0x%llx by 0x%llx of %d columns in group %u", c.group, p.a, p.b, p.n, p.group, a, b, n, group);
  }
  p.sums[c.thread] = sums;
  if (!(p.warps & 1u << c.warp)) {
    p.warps |= 1u << c.warp;
    check_needed(w, h, p);
  }
}

// Tiles of products that are worked on, one for each array of sums.
struct Tile {
  float** sums;
  int n;
  ProductTile* values;
};

// A thread of a warpgroup has two numbers of a row and two of the row 8 below, of every 8 columns.
template <class Move>
static inline __attribute__((always_inline)) void for_each_pair(const Tile& t, Move move) {
  for (int thread = 0; thread < (int)warpgroup_threads; thread++) {
    float* sums = t.sums[thread];
    const int row = thread / warp_lanes * 16 + thread % warp_lanes / 4;
    const int column = thread % 4 * 2;
    for (int panel = 0; panel < t.n / panel_columns; panel++) {
      for (int half = 0; half < 2; half++) {
        float* upper = &t.values->panels[panel][row][8 * half + column];
        move(sums, upper);
        move(sums + 2, upper + 8 * panel_columns);
        sums += 4;
      }
    }
  }
}

static void gather(const Tile& t) {
  for_each_pair(t, [](const float* sums, float* values) { memcpy(values, sums, 2 * sizeof *sums); });
}

static void scatter(const Tile& t) {
  for_each_pair(t, [](float* sums, const float* values) { memcpy(sums, values, 2 * sizeof *sums); });
}

// run does the first products of a warpgroup, in their order. Neighbours that share operands, or sums, have them
// unpacked once.
static void run(Worker& w, Warpgroup& g, size_t count) {
  Arithmetic& arithmetic = *w.hopper->arithmetic;
  const char* shared = (const char*)w.dynamic_shared.base - shared_start;
  std::vector<Tile> tiles;
  const Product* before = nullptr;
  for (size_t i = 0; i < count; i++) {
    Product& p = g.products[i];
    size_t tile = 0;
    while (tile < tiles.size() && (tiles[tile].sums[0] != p.sums[0] || tiles[tile].n != p.n)) {
      tile++;
    }
    if (tile == tiles.size()) {
      if (tile == arithmetic.tiles.size()) {
        arithmetic.tiles.emplace_back(new ProductTile);
      }
      tiles.push_back({p.sums, p.n, arithmetic.tiles[tile].get()});
      gather(tiles.back());
    }
    if (!before || before->a != p.a || before->a_turned != p.a_turned) {
      unpack_a(arithmetic.a, shared, layout_of(w, p.a, product_rows, p.a_turned));
    }
    if (!before || before->b != p.b || before->b_turned != p.b_turned || before->n != p.n) {
      unpack_b(arithmetic.b, shared, layout_of(w, p.b, p.n, p.b_turned), p.n);
    }
    multiply_add(*tiles[tile].values, arithmetic.a, arithmetic.b, p.n);
    before = &p;
  }
  for (const Tile& t : tiles) {
    scatter(t);
  }
}

// run_groups does the products of the groups up to one.
static void run_groups(Worker& w, Warpgroup& g, u32 last) {
  size_t count = 0;
  while (count < g.products.size() && g.products[count].group <= last) {
    count++;
  }
  if (count) {
    run(w, g, count);
    g.products.erase(g.products.begin(), g.products.begin() + (long)count);
    g.done += (u32)count;
  }
}

void wgmma_commit() {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "wgmma_commit");
  const Caller c = caller_of(w, "wgmma_commit");
  Warpgroup& g = h.warpgroups[c.group];
  g.committed[c.thread]++;
  give_way(w);
  if (!h.eager) {
    return;
  }
  u32 last = g.committed[0];
  for (u32 group : g.committed) {
    last = group < last ? group : last;
  }
  run_groups(w, g, last);
}

static const char* name_of(WarpgroupOperation operation) {
  return operation == WarpgroupOperation::wait ? "wgmma_wait" : "registers_give or registers_take";
}

static void wake_warpgroup(Worker& w, u32 group) {
  for (u32 warp = group * warpgroup_warps; warp < (group + 1) * warpgroup_warps; warp++) {
    wake_warp(w, w.warps[warp]);
  }
}

// together waits for all threads of a warpgroup. The last one completes the operation and wakes the others, unless
// complete is false: they then wait for who makes it complete later.
template <class Complete>
static void together(Worker& w, HopperBlock& h, const Caller& c, WarpgroupOperation operation, int argument,
                     Complete complete) {
  Warpgroup& g = h.warpgroups[c.group];
  if (g.arrived == 0) {
    g.operation = operation;
    g.argument = argument;
  } else if (g.operation != operation || g.argument != argument) {
    die(w, "threads of warpgroup %u are in %s of %d, others in %s of %d", c.group, name_of(g.operation), g.argument,
        name_of(operation), argument);
  }
  if (++g.arrived < warpgroup_threads) {
    wait_for(w, Waiting::warpgroup);
    return;
  }
  g.arrived = 0;
  if (complete()) {
    wake_warpgroup(w, c.group);
    give_way(w);
  } else {
    wait_for(w, Waiting::warpgroup);
  }
}

void wait_for_wgmma(int in_progress) {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "wgmma_wait");
  const Caller c = caller_of(w, "wgmma_wait");
  together(w, h, c, WarpgroupOperation::wait, in_progress, [&] {
    Warpgroup& g = h.warpgroups[c.group];
    for (u32 committed : g.committed) {
      if (committed != g.committed[0]) {
        die(w, "the threads of warpgroup %u have committed different numbers of groups", c.group);
      }
    }
    const u32 committed = g.committed[0];
    const u32 last = committed > (u32)in_progress ? committed - (u32)in_progress : 0;
    run_groups(w, g, last);
    for (u32 warp = 0; warp < warpgroup_warps; warp++) {
      u32& seen = h.clocks.warps[c.group * warpgroup_warps + warp].seen[products_slot(c.group)];
      seen = last > seen ? last : seen;
    }
    return true;
  });
}

// grant lets a warpgroup have the registers that it waits for, if there are enough.
static bool grant(HopperBlock& h, Warpgroup& g) {
  const u32 more = (g.wanted - g.registers) * warpgroup_threads;
  if (more > h.free_registers) {
    return false;
  }
  h.free_registers -= more;
  g.registers = g.wanted;
  g.wanted = 0;
  return true;
}

void set_registers(int registers, bool more) {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "registers_give or registers_take");
  const Caller c = caller_of(w, "registers_give or registers_take");
  Warpgroup& g = h.warpgroups[c.group];
  const u32 wanted = (u32)registers;
  if (g.arrived == 0 && (more ? wanted < g.registers : wanted > g.registers)) {
    die(w, "%s<%d> by a warpgroup of %u registers a thread", more ? "registers_take" : "registers_give", registers,
        g.registers);
  }
  together(w, h, c, WarpgroupOperation::registers, more ? registers : -registers, [&] {
    if (more) {
      g.wanted = wanted;
      return grant(h, g);
    }
    h.free_registers += (g.registers - wanted) * warpgroup_threads;
    g.registers = wanted;
    for (u32 other = 0; other < max_warpgroups; other++) {
      if (h.warpgroups[other].wanted && grant(h, h.warpgroups[other])) {
        wake_warpgroup(w, other);
      }
    }
    return true;
  });
}

void check_warpgroup_of(const Worker& w, const Thread* t) {
  const Warpgroup& g = w.hopper->warpgroups[t->index / warpgroup_threads];
  if (g.started[t->index % warpgroup_threads] != g.done) {
    die(w, "the thread ends with products that no wgmma_wait covers");
  }
  if (g.arrived) {
    die(w, "the thread ends while threads of its warpgroup wait for it in %s", name_of(g.operation));
  }
}

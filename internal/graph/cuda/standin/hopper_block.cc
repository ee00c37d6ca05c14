// The beginning and the end of a block of a kernel for sm_90a, and its accesses to shared memory by address.
#include "hopper_block.h"

#include <cstring>
#include <new>

#include "memory.h"
#include "product.h"
#include "races.h"

HopperBlock* new_hopper_block() {
  char* p = map_zeros(sizeof(HopperBlock));
  if (!p) {
    die_in_driver("no memory for a worker");
  }
  auto* h = new (p) HopperBlock;
  h->arithmetic = new Arithmetic;
  return h;
}

static void start_warpgroup(Warpgroup& g, u32 registers) {
  g.products.clear();
  g.done = 0;
  memset(g.started, 0, sizeof g.started);
  memset(g.committed, 0, sizeof g.committed);
  memset(g.fenced, 0, sizeof g.fenced);
  g.operation = WarpgroupOperation::none;
  g.arrived = 0;
  g.registers = registers;
  g.wanted = 0;
}

void start_hopper_block(Worker& w) {
  HopperBlock& h = *w.hopper;
  start_clocks(h.clocks, w.launch->threads);
  const u32 bytes = (u32)w.dynamic_shared.bytes;
  memset(h.pieces, 0, (bytes + piece_bytes - 1) / piece_bytes * sizeof *h.pieces);
  memset(h.mbarrier_at, 0, (bytes + 7) / 8);
  h.mbarrier_count = 0;
  h.loads.clear();
  for (NamedBarrier& b : h.named) {
    b.threads = 0;
    b.waiting.clear();
  }
  for (Warpgroup& g : h.warpgroups) {
    start_warpgroup(g, w.launch->registers);
  }
  h.free_registers = 0;
  h.eager = random_below(w.random_state, 2);
}

void end_hopper_block(const Worker& w) {
  const HopperBlock& h = *w.hopper;
  if (!h.loads.empty()) {
    die(w, "the block ends with %zu copies to its shared memory in flight", h.loads.size());
  }
  for (int id = 1; id < 16; id++) {
    if (h.named[id].threads) {
      die(w, "the block ends while threads wait at named barrier %d", id);
    }
  }
}

HopperBlock& hopper_of(Worker& w, const char* function) {
  if (!w.launch->hopper) {
    die(w, "%s in a kernel that was not compiled for sm_90a", function);
  }
  return *w.hopper;
}

u32 shared_base() {
  Worker& w = this_worker();
  hopper_of(w, "shared_base");
  dynamic_shared();
  return shared_start;
}

char* shared_at(const Worker& w, const char* function, u32 address, u32 bytes, u32 alignment) {
  if (address % alignment) {
    die(w, "%s at address %u of shared memory, which is not aligned to %u bytes", function, address, alignment);
  }
  const u32 offset = address - shared_start;
  if (address < shared_start || offset > w.dynamic_shared.bytes || bytes > w.dynamic_shared.bytes - offset) {
    die(w, "%s at byte %lld of dynamic shared memory, of which the launch asked for %zu", function,
        (i64)address - shared_start, w.dynamic_shared.bytes);
  }
  return (char*)w.dynamic_shared.base + offset;
}

template <class Value>
static Value load_shared(const char* function, u32 address) {
  Worker& w = this_worker();
  hopper_of(w, function);
  const char* p = shared_at(w, function, address, sizeof(Value), sizeof(Value));
  check_shared(w, p, sizeof(Value), Access::read);
  return *(const Value*)p;
}

template <class Value>
static void store_shared(const char* function, u32 address, Value v) {
  Worker& w = this_worker();
  hopper_of(w, function);
  char* p = shared_at(w, function, address, sizeof(Value), sizeof(Value));
  check_shared(w, p, sizeof(Value), Access::write);
  *(Value*)p = v;
}

Words4 read_shared16(u32 address) { return load_shared<Words4>("load_shared16", address); }
void write_shared16(u32 address, Words4 v) { store_shared("store_shared16", address, v); }
u64 read_shared8(u32 address) { return load_shared<u64>("load_shared8", address); }
void write_shared8(u32 address, u64 v) { store_shared("store_shared8", address, v); }

// whole_warps is the set of warps of the threads at a barrier, which must be all of their lanes.
static u32 whole_warps(const Worker& w, int id, const std::vector<const Thread*>& threads) {
  u32 lanes[max_warps] = {};
  u32 warps = 0;
  for (const Thread* t : threads) {
    lanes[t->index / warp_lanes]++;
    warps |= 1u << t->index / warp_lanes;
  }
  for (u32 warp = 0; warp < max_warps; warp++) {
    if (lanes[warp] && lanes[warp] != warp_lanes) {
      die(w, "named barrier %d: %u lanes of warp %u came, not all", id, lanes[warp], warp);
    }
  }
  return warps;
}

void wait_at_named_barrier(int id, int threads) {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "named_barrier");
  NamedBarrier& b = h.named[id];
  if (b.threads && b.threads != (u32)threads) {
    die(w, "named barrier %d of %d threads, while others wait there for %u", id, threads, b.threads);
  }
  b.threads = (u32)threads;
  b.waiting.push_back(w.current);
  if (b.waiting.size() < (size_t)threads) {
    wait_for(w, Waiting::named_barrier);
    return;
  }
  meet(w, h.clocks, whole_warps(w, id, b.waiting));
  for (const Thread* t : b.waiting) {
    wake(w, t);
  }
  b.waiting.clear();
  b.threads = 0;
  give_way(w);
}

// mbarriers: hopper_gpu.h has their contract.
#include <cstdio>
#include <cstring>

#include "mbarrier.h"
#include "races.h"

const int max_count = (1 << 20) - 1;  // of arrivals, and of bytes

static u32 thread_now(const Worker& w) { return w.current->index; }
static u32 warp_now(const Worker& w) { return w.current->index / warp_lanes; }

// find is the mbarrier at an address, which the calling thread must know to be initialised.
static Mbarrier& find(Worker& w, HopperBlock& h, const char* function, u32 address) {
  shared_at(w, function, address, 8, 8);
  const u32 index = h.mbarrier_at[(address - shared_start) / 8];
  if (!index) {
    die(w, "%s of byte %u of dynamic shared memory, where no mbarrier is", function, address - shared_start);
  }
  Mbarrier& m = h.mbarriers[index - 1];
  if (m.maker != thread_now(w) && !knows(h.clocks, warp_now(w), thread_slot(m.maker), m.made)) {
    die(w, "%s of the mbarrier at byte %u, which thread %u has initialised without a barrier since", function,
        address - shared_start, m.maker);
  }
  return m;
}

void mbarrier_init(u32 address, int arrivals) {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "mbarrier_init");
  char* place = shared_at(w, "mbarrier_init", address, 8, 8);
  if (arrivals < 1 || arrivals > max_count) {
    die(w, "mbarrier_init with %d arrivals; want 1 to %d", arrivals, max_count);
  }
  u8& index = h.mbarrier_at[(address - shared_start) / 8];
  if (index) {
    die(w, "the mbarrier at byte %u is initialised again", address - shared_start);
  }
  if (h.mbarrier_count == max_mbarriers) {
    die(w, "more than %u mbarriers are too many for the stand-in", max_mbarriers);
  }
  check_shared(w, place, 8, Access::write);
  index = (u8)++h.mbarrier_count;
  h.pieces[piece_of(address)].mbarriers |= (u8)(1 << address / 8 % 2);
  Mbarrier& m = h.mbarriers[index - 1];
  m.address = address;
  m.arrivals = m.pending = (u32)arrivals;
  m.bytes = 0;
  m.phase = 0;
  m.maker = thread_now(w);
  m.made = h.clocks.epochs[m.maker];
  m.fenced = false;
  forget(h.clocks, m.gathered);
  forget(h.clocks, m.complete);
  memset(m.known, 0, sizeof m.known);
  m.waiting.clear();
}

void mbarrier_init_fence() {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "mbarrier_init_fence");
  for (u32 i = 0; i < h.mbarrier_count; i++) {
    h.mbarriers[i].fenced |= h.mbarriers[i].maker == thread_now(w);
  }
}

// complete_phase begins the next phase if the current one lacks nothing.
static void complete_phase(Worker& w, HopperBlock& h, Mbarrier& m) {
  if (m.pending || m.bytes) {
    return;
  }
  m.pending = m.arrivals;
  m.phase++;
  join(h.clocks, m.complete, m.gathered);
  m.complete.seen[copies_slot((u32)(&m - h.mbarriers))] = m.phase;
  forget(h.clocks, m.gathered);
  for (const Thread* t : m.waiting) {
    wake(w, t);
  }
  m.waiting.clear();
}

static void arrive(Worker& w, HopperBlock& h, Mbarrier& m) {
  if (m.pending == 0) {
    die(w, "more than %u arrivals at the mbarrier at byte %u in a phase", m.arrivals, m.address - shared_start);
  }
  release(w, h.clocks, thread_now(w), m.gathered);
  m.pending--;
  complete_phase(w, h, m);
}

void mbarrier_arrive(u32 address) {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "mbarrier_arrive");
  give_way(w);
  arrive(w, h, find(w, h, "mbarrier_arrive", address));
}

void mbarrier_arrive_expect(u32 address, u32 bytes) {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "mbarrier_arrive_expect");
  give_way(w);
  Mbarrier& m = find(w, h, "mbarrier_arrive_expect", address);
  m.bytes += bytes;
  if (m.bytes > max_count) {
    die(w, "the mbarrier at byte %u expects %lld bytes in a phase; %d are the most", address - shared_start, m.bytes,
        max_count);
  }
  arrive(w, h, m);
}

void mbarrier_wait(u32 address, u32 parity) {
  Worker& w = this_worker();
  HopperBlock& h = hopper_of(w, "mbarrier_wait");
  if (parity > 1) {
    die(w, "mbarrier_wait for parity %u; want 0 or 1", parity);
  }
  give_way(w);
  Mbarrier& m = find(w, h, "mbarrier_wait", address);
  while (m.phase % 2 == parity) {
    if (random_below(w.random_state, 8) == 0 && run_a_load(w)) {
      continue;
    }
    m.waiting.push_back(w.current);
    wait_for(w, Waiting::mbarrier);
  }
  u32& known = m.known[warp_now(w)];
  if (known != m.phase) {
    known = m.phase;
    acquire(h.clocks, warp_now(w), m.complete);
  }
}

u32 mbarrier_of_load(Worker& w, HopperBlock& h, u32 address) {
  const Mbarrier& m = find(w, h, "a copy", address);
  if (!m.fenced) {
    die(w, "a copy completes on the mbarrier at byte %u, which no mbarrier_init_fence of thread %u followed",
        address - shared_start, m.maker);
  }
  return (u32)(&m - h.mbarriers);
}

u32 bytes_arrived(Worker& w, HopperBlock& h, u32 mbarrier, u32 bytes) {
  Mbarrier& m = h.mbarriers[mbarrier];
  m.bytes -= bytes;
  if (m.bytes < -max_count) {
    die(w, "the mbarrier at byte %u has got %lld bytes more than it expects", m.address - shared_start, -m.bytes);
  }
  const u32 phase = m.phase + 1;
  complete_phase(w, h, m);
  return phase;
}

void describe_mbarriers(const Worker& w, char* text, size_t size) {
  size_t length = 0;
  text[0] = 0;
  const HopperBlock& h = *w.hopper;
  for (u32 i = 0; i < h.mbarrier_count && length < size; i++) {
    const Mbarrier& m = h.mbarriers[i];
    if (m.waiting.empty()) {
      continue;
    }
    length += (size_t)snprintf(text + length, size - length,
                               "; %zu threads (one is %u) for phase %u of the mbarrier at byte %u, which lacks %u of "
                               "%u arrivals and %lld bytes",
                               m.waiting.size(), m.waiting[0]->index, m.phase, m.address - shared_start, m.pending,
                               m.arrivals, m.bytes);
  }
}

// Clocks of a block of a kernel for sm_90a: who knows of whose accesses to memory, where mbarriers, named barriers and
// warps order threads one by one and barrier() is rare.
//
// Every thread counts epochs; an access is of a thread in an epoch. A release publishes a thread's epoch, and all that
// its warp knows, and begins another epoch; an acquire makes it known to a warp. So an access comes before all that its
// own thread does later, and before what a warp does that knows of its epoch. Bulk copies are known by the mbarrier
// they complete on and its phase, products by their warpgroup and group. What one lane acquires all lanes of its warp
// know here: that may hide a race but never makes one up.
#pragma once

#include "worker.h"

const u32 max_warpgroups = max_threads / 128;
const u32 max_mbarriers = 64;

// Slots of a clock.
inline u32 products_slot(u32 warpgroup) { return warpgroup; }
inline u32 copies_slot(u32 mbarrier) { return max_warpgroups + mbarrier; }
inline u32 thread_slot(u32 thread) { return max_warpgroups + max_mbarriers + thread; }
const u32 clock_slots = max_warpgroups + max_mbarriers + max_threads;
const u32 max_epoch = (1u << 23) - 1;

// Knowledge is, by slot, the last epoch, phase or group that is known, and the last epoch whose writes are known to be
// before a fence_async_proxy.
struct Knowledge {
  u32 seen[clock_slots];
  u32 fenced[clock_slots];
};

struct Clocks {
  u32 used;  // slots
  u32 epochs[max_threads];
  Knowledge warps[max_warps];
};

// start_clocks begins a block. forget empties a piece of knowledge.
void start_clocks(Clocks& c, u32 threads);
void forget(const Clocks& c, Knowledge& k);

// release adds to k what a thread has done and what its warp knows; acquire adds k to what a warp knows.
void release(const Worker& w, Clocks& c, u32 thread, Knowledge& k);
void acquire(Clocks& c, u32 warp, const Knowledge& k);
void join(const Clocks& c, Knowledge& to, const Knowledge& from);

// meet is a barrier of the lanes of some warps, a bit for each.
void meet(const Worker& w, Clocks& c, u32 warps);

// fence_proxy is fence_async_proxy of a thread.
void fence_proxy(const Worker& w, Clocks& c, u32 thread);

inline bool knows(const Clocks& c, u32 warp, u32 slot, u32 epoch) { return c.warps[warp].seen[slot] >= epoch; }
inline bool knows_fenced(const Clocks& c, u32 warp, u32 slot, u32 epoch) {
  return c.warps[warp].fenced[slot] >= epoch;
}

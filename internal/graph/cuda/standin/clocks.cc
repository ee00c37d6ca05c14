#include "clocks.h"

#include <cstring>

void forget(const Clocks& c, Knowledge& k) {
  memset(k.seen, 0, c.used * sizeof *k.seen);
  memset(k.fenced, 0, c.used * sizeof *k.fenced);
}

void start_clocks(Clocks& c, u32 threads) {
  c.used = thread_slot(threads);
  for (u32 t = 0; t < threads; t++) {
    c.epochs[t] = 1;
  }
  for (u32 warp = 0; warp * warp_lanes < threads; warp++) {
    forget(c, c.warps[warp]);
  }
}

static void raise(u32* to, const u32* from, u32 count) {
  for (u32 i = 0; i < count; i++) {
    to[i] = from[i] > to[i] ? from[i] : to[i];
  }
}

void join(const Clocks& c, Knowledge& to, const Knowledge& from) {
  raise(to.seen, from.seen, c.used);
  raise(to.fenced, from.fenced, c.used);
}

static void next_epoch(const Worker& w, Clocks& c, u32 thread) {
  if (c.epochs[thread] == max_epoch) {
    die(w, "more synchronisation in one block than the stand-in can count");
  }
  c.epochs[thread]++;
}

void release(const Worker& w, Clocks& c, u32 thread, Knowledge& k) {
  join(c, k, c.warps[thread / warp_lanes]);
  u32& seen = k.seen[thread_slot(thread)];
  seen = c.epochs[thread] > seen ? c.epochs[thread] : seen;
  next_epoch(w, c, thread);
}

void acquire(Clocks& c, u32 warp, const Knowledge& k) { join(c, c.warps[warp], k); }

void meet(const Worker& w, Clocks& c, u32 warps) {
  Knowledge* all = nullptr;  // of the first of the warps
  for (u32 set = warps; set; set &= set - 1) {
    const u32 warp = (u32)__builtin_ctz(set);
    Knowledge& k = c.warps[warp];
    for (u32 lane = 0; lane < warp_lanes; lane++) {
      const u32 thread = warp * warp_lanes + lane;
      if (thread_slot(thread) < c.used) {
        k.seen[thread_slot(thread)] = c.epochs[thread];
        next_epoch(w, c, thread);
      }
    }
    if (all) {
      join(c, *all, k);
    } else {
      all = &k;
    }
  }
  for (u32 set = warps & (warps - 1); set; set &= set - 1) {
    Knowledge& k = c.warps[__builtin_ctz(set)];
    memcpy(k.seen, all->seen, c.used * sizeof *k.seen);
    memcpy(k.fenced, all->fenced, c.used * sizeof *k.fenced);
  }
}

void fence_proxy(const Worker& w, Clocks& c, u32 thread) {
  Knowledge& k = c.warps[thread / warp_lanes];
  raise(k.fenced, k.seen, c.used);
  k.fenced[thread_slot(thread)] = c.epochs[thread];
  next_epoch(w, c, thread);
}

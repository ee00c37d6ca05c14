// Blocks: starting the threads of a block, choosing who runs next, barriers.
#include <cstring>

#include "hopper_block.h"
#include "memory.h"
#include "module.h"
#include "warp.h"

const size_t stack_bytes = 65536;
const size_t worker_bytes = (size_t)4 << 20;
static_assert(sizeof(Worker) <= worker_bytes, "a worker and its stacks share the region");
static_assert(worker_bytes + max_threads * stack_bytes <= region_bytes, "a worker and its stacks share the region");

// take_stack is a stack from the pool: the one that was given back last, as it is in the cache.
static char* take_stack(Worker& w) {
  if (!w.free_stacks.empty()) {
    char* stack = w.free_stacks.back();
    w.free_stacks.pop_back();
    return stack;
  }
  char* stack = (char*)&w + worker_bytes + w.stacks_made * stack_bytes;
  w.stacks_made++;
  guard_page(stack);
  return stack;
}

static void run_thread() {
  Worker& w = this_worker();
  w.launch->kernel->call(w.launch->parameters.data());
  w.current->finished = true;
  switch_fiber(w.current->fiber, w.scheduler);
  __builtin_unreachable();
}

// resume goes to another thread, from the fiber of the caller.
static void resume(Worker& w, Fiber& from, Thread* to) {
  if (!to->stack) {
    // The tops of stacks lie apart modulo the page size, or they would compete for a few lines of the cache.
    to->stack = take_stack(w);
    const size_t number = (size_t)(to->stack - (char*)&w) / stack_bytes;
    const size_t offset = number * 1088 % 4096 & ~(size_t)15;
    prepare(to->fiber, to->stack + stack_bytes - offset, stack_bytes - offset - 4096, run_thread);
  }
  w.current = to;
  switch_fiber(from, to->fiber);
}

static void report_deadlock(Worker& w) {
  int at_barrier = 0, in_warp = 0, at_named_barrier = 0, in_warpgroup = 0;
  const Thread* example = nullptr;
  for (const Thread& t : w.threads) {
    if (t.place / warp_lanes * warp_lanes >= w.launch->threads || t.finished) {
      continue;
    }
    at_barrier += t.waiting == Waiting::barrier;
    at_named_barrier += t.waiting == Waiting::named_barrier;
    in_warpgroup += t.waiting == Waiting::warpgroup;
    if (t.waiting == Waiting::warp) {
      in_warp++;
      example = &t;
    }
  }
  if (example) {
    const char* operation = operation_name(warp_of(w, example).operation);
    die(w, "deadlock: %d threads wait at a barrier, %d in an operation of their warp that not all its lanes reach "
        "(thread %u in %s)", at_barrier, in_warp, example->index, operation);
  }
  if (w.launch->hopper) {
    char mbarriers[512];
    describe_mbarriers(w, mbarriers, sizeof mbarriers);
    die(w, "deadlock: %d threads wait at a barrier, %d at named barriers, %d for products or registers of their "
        "warpgroup%s", at_barrier, at_named_barrier, in_warpgroup, mbarriers);
  }
  die(w, "deadlock: %d threads wait at a barrier", at_barrier);
}

// lowest_from is the lowest bit of a non-empty set at or after a start, else the lowest of all.
static inline int lowest_from(u32 set, u32 start) {
  const u32 later = start < 32 ? set & ~0u << start : 0;
  return __builtin_ctz(later ? later : set);
}

// next_thread prefers the warp that is running, after the place that is running.
static Thread* next_thread(Worker& w) {
  const u32 place = w.current->place;
  u32 warp = place / warp_lanes;
  u32 start = place % warp_lanes + 1;
  if (!w.warps[warp].ready || --w.steps_in_warp <= 0) {
    // Copies arrive now and then even if a thread that need not wait goes round in a loop.
    if (w.launch->hopper && random_below(w.random_state, 64) == 0) {
      run_a_load(w);
    }
    while (!w.ready_warps) {
      if (!w.launch->hopper || !run_a_load(w)) {
        report_deadlock(w);
      }
    }
    warp = (u32)lowest_from(w.ready_warps, random_below(w.random_state, max_warps));
    start = random_below(w.random_state, warp_lanes);
    w.steps_in_warp = 16 + (int)random_below(w.random_state, 128);
  }
  return &w.threads[warp * warp_lanes + (u32)lowest_from(w.warps[warp].ready, start)];
}

void suspend(Worker& w) {
  Thread* self = w.current;
  Thread* next = next_thread(w);
  if (next != self) {
    resume(w, self->fiber, next);
  }
}

static void set_not_ready(Worker& w, const Thread* t) {
  Warp& warp = warp_of(w, t);
  warp.ready &= ~(1u << t->place % warp_lanes);
  if (!warp.ready) {
    w.ready_warps &= ~(1u << t->place / warp_lanes);
  }
}

void wait_for(Worker& w, Waiting what) {
  w.current->waiting = what;
  set_not_ready(w, w.current);
  suspend(w);
}

void wake(Worker& w, const Thread* t) {
  warp_of(w, t).ready |= 1u << t->place % warp_lanes;
  w.ready_warps |= 1u << t->place / warp_lanes;
}

void wake_warp(Worker& w, Warp& warp) {
  warp.ready = warp.alive;
  if (warp.ready) {
    w.ready_warps |= 1u << (&warp - w.warps);
  }
}

void wake_block(Worker& w) {
  w.at_barrier = 0;
  w.barriers++;
  if (w.launch->hopper) {
    const u32 warps = (w.launch->threads + warp_lanes - 1) / warp_lanes;
    meet(w, w.hopper->clocks, warps == 32 ? ~0u : (1u << warps) - 1);
  }
  for (u32 first = 0; first < w.launch->threads; first += warp_lanes) {
    wake_warp(w, w.warps[first / warp_lanes]);
  }
}

// start_block places the threads in their warps in a random order and fills shared memory with NaN.
static void start_block(Worker& w, u32 block) {
  const Launch& launch = *w.launch;
  w.block = {block % launch.grid.x, block / launch.grid.x % launch.grid.y, block / launch.grid.x / launch.grid.y};
  w.serial = launch.first_serial + block;
  w.random_state = (launch.seed + block) * 0x9e3779b97f4a7c15u | 1;
  w.fenced = false;
  w.latest_atomic = 0;
  w.acquired = 0;
  w.alive = launch.threads;
  w.at_barrier = 0;
  w.barriers = 0;
  w.steps_in_warp = 1;
  w.ready_warps = 0;
  for (u32 first = 0; first < launch.threads; first += warp_lanes) {
    Warp& warp = w.warps[first / warp_lanes];
    const u32 rest = launch.threads - first;
    const u32 lanes = rest < warp_lanes ? rest : warp_lanes;
    u32 order[warp_lanes];
    for (u32 i = 0; i < lanes; i++) {
      const u32 j = random_below(w.random_state, i + 1);
      order[i] = order[j];
      order[j] = i;
    }
    for (u32 i = 0; i < warp_lanes; i++) {
      Thread& t = w.threads[first + i];
      t.finished = i >= lanes;
      t.index = first + (i < lanes ? order[i] : i);
      t.stack = nullptr;
      t.waiting = Waiting::nothing;
      t.copies.clear();
      t.group_ends.clear();
    }
    warp.alive = lanes == warp_lanes ? ~0u : (1u << lanes) - 1;
    warp.ready = 0;
    warp.arrived = 0;
    warp.barriers = 0;
    wake_warp(w, warp);
  }
  w.dynamic_shared.bytes = launch.dynamic_shared;
  w.dynamic_shared.base = (uintptr_t)w.dynamic_end - ((launch.dynamic_shared + 1023) & ~(size_t)1023);
  memset((void*)w.dynamic_shared.base, poison, w.dynamic_shared.bytes);
  if (w.static_touched_from < w.static_touched_to) {
    memset((char*)w.static_shared.base + w.static_touched_from, poison,
           w.static_touched_to - w.static_touched_from);
  }
  w.static_touched_from = w.static_shared.bytes;
  w.static_touched_to = 0;
  if (launch.hopper) {
    start_hopper_block(w);
  }
}

static void end_thread(Worker& w, Thread* t) {
  if (w.launch->hopper) {
    check_warpgroup_of(w, t);
  }
  Warp& warp = warp_of(w, t);
  w.free_stacks.push_back(t->stack);
  set_not_ready(w, t);
  w.alive--;
  warp.alive &= ~(1u << t->place % warp_lanes);
  thread_ended(w, warp);
  if (w.alive > 0 && w.at_barrier == w.alive) {
    wake_block(w);
  }
}

static void run_block(Worker& w, u32 block) {
  start_block(w, block);
  w.current = &w.threads[0];
  while (w.alive > 0) {
    resume(w, w.scheduler, next_thread(w));
    end_thread(w, w.current);
  }
  if (w.launch->hopper) {
    end_hopper_block(w);
  }
}

void run_blocks(Worker& w) {
  const u32 blocks = (u32)w.launch->order.size();
  for (u32 i = w.launch->next++; i < blocks; i = w.launch->next++) {
    run_block(w, w.launch->order[i]);
  }
}

void barrier() {
  Worker& w = this_worker();
  if (++w.at_barrier == w.alive) {
    wake_block(w);
    suspend(w);
  } else {
    wait_for(w, Waiting::barrier);
  }
}

u32 thread_x() { return this_worker().current->index; }
u32 block_x() { return this_worker().block.x; }
u32 block_y() { return this_worker().block.y; }
u32 block_z() { return this_worker().block.z; }
u32 grid_x() { return this_worker().launch->grid.x; }
u32 grid_y() { return this_worker().launch->grid.y; }
u32 grid_z() { return this_worker().launch->grid.z; }
u32 block_threads() { return this_worker().launch->threads; }

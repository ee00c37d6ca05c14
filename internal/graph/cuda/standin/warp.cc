// Warps: barriers, shuffles and votes.
#include "warp.h"

#include "hopper_block.h"

const char* operation_name(WarpOperation operation) {
  switch (operation) {
    case WarpOperation::barrier:
      return "warp_barrier";
    case WarpOperation::shuffle:
      return "a shuffle";
    case WarpOperation::vote:
      return "a vote";
    case WarpOperation::load_matrix:
      return "load_matrix";
    case WarpOperation::mma_bf16:
      return "mma_bf16";
    case WarpOperation::mma_tf32:
      return "mma_tf32";
  }
  __builtin_unreachable();
}

void die_diverged(const Worker& w, WarpOperation first, WarpOperation second) {
  die(w, "the warp has diverged: some of its lanes are in %s, others in %s", operation_name(first),
      operation_name(second));
}

void die_incomplete(const Worker& w, WarpOperation operation) {
  die(w, "%s needs all %d lanes of a warp; some have ended or were never there", operation_name(operation),
      warp_lanes);
}

static void pass_warp_barrier(Worker& w, Warp& warp) {
  warp.arrived = 0;
  warp.barriers++;
  if (w.launch->hopper) {
    meet(w, w.hopper->clocks, 1u << (&warp - w.warps));
  }
  wake_warp(w, warp);
}

// A barrier waits for the lanes that have not ended; all else wants a full warp.
void thread_ended(Worker& w, Warp& warp) {
  if (warp.arrived == 0) {
    return;
  }
  if (warp.operation != WarpOperation::barrier) {
    die(w, "the thread has ended while lanes of its warp wait for it in %s", operation_name(warp.operation));
  }
  if (warp.arrived == (u32)__builtin_popcount(warp.alive)) {
    pass_warp_barrier(w, warp);
  }
}

void warp_barrier() {
  Worker& w = this_worker();
  Warp& warp = warp_of(w, w.current);
  if (warp.arrived > 0 && warp.operation != WarpOperation::barrier) {
    die_diverged(w, warp.operation, WarpOperation::barrier);
  }
  warp.operation = WarpOperation::barrier;
  if (++warp.arrived == (u32)__builtin_popcount(warp.alive)) {
    pass_warp_barrier(w, warp);
    give_way(w);
  } else {
    wait_for(w, Waiting::warp);
  }
}

static const u32* exchange_words(Worker& w, WarpOperation operation, u32 v) {
  return together(
             w, operation, [v](Exchange& e, u32 lane) { e.words[lane] = v; }, [](Exchange&) {})
      .words;
}

u32 shuffle_xor(u32 v, int mask) {
  Worker& w = this_worker();
  if (mask < 0 || mask >= warp_lanes) {
    die(w, "shuffle_xor with mask %d; want 0 to 31", mask);
  }
  const u32 lane = w.current->index % warp_lanes;
  return exchange_words(w, WarpOperation::shuffle, v)[lane ^ (u32)mask];
}

u32 shuffle_down(u32 v, int delta) {
  Worker& w = this_worker();
  if (delta < 0 || delta >= warp_lanes) {
    die(w, "shuffle_down by %d; want 0 to 31", delta);
  }
  const u32 lane = w.current->index % warp_lanes;
  const u32 from = lane + (u32)delta;
  return exchange_words(w, WarpOperation::shuffle, v)[from < warp_lanes ? from : lane];
}

u32 shuffle_from(u32 v, int lane) {
  Worker& w = this_worker();
  if (lane < 0 || lane >= warp_lanes) {
    die(w, "shuffle_from lane %d; want 0 to 31", lane);
  }
  return exchange_words(w, WarpOperation::shuffle, v)[lane];
}

u32 ballot(bool v) {
  const u32* votes = exchange_words(this_worker(), WarpOperation::vote, v);
  u32 set = 0;
  for (u32 lane = 0; lane < warp_lanes; lane++) {
    set |= votes[lane] << lane;
  }
  return set;
}

int vote_all(bool v) { return ballot(v) == ~0u; }

// A ring of stages in shared memory: one thread fills them by bulk copies, in order, and warps that wait for the copies
// read them and hand them back.
//
// Who fills and who reads keep a TmaRing each, of the same stages.
#pragma once
#include "hopper.h"

struct TmaRing {
  u32 full;   // mbarriers, one of 8 bytes for each stage: what was copied there is complete
  u32 empty;  // likewise: all readers are done with it
  int stages;
  int stage;   // the next one
  u32 parity;  // of the phase of its mbarriers that whoever waits next waits for
};

// tma_ring is one whose mbarriers lie at an address: 16 bytes a stage.
DEV TmaRing tma_ring(u32 barriers, int stages) { return TmaRing{barriers, barriers + 8 * stages, stages, 0, 0}; }

// tma_ring_init makes the mbarriers; one thread calls it, then mbarrier_init_fence and a barrier follow. readers is how
// many arrivals hand a stage back.
DEV void tma_ring_init(const TmaRing& ring, int readers) {
  for (int i = 0; i < ring.stages; i++) {
    mbarrier_init(ring.full + 8 * i, 1);
    mbarrier_init(ring.empty + 8 * i, readers);
  }
}

// tma_ring_claim waits until the next stage is empty, expects bytes in it, and returns the mbarrier that their copies
// are to complete on.
DEV u32 tma_ring_claim(const TmaRing& ring, u32 bytes) {
  const u32 full = ring.full + 8 * ring.stage;
  mbarrier_wait(ring.empty + 8 * ring.stage, ring.parity ^ 1);
  mbarrier_arrive_expect(full, bytes);
  return full;
}

// tma_ring_wait waits until the next stage is full.
DEV void tma_ring_wait(const TmaRing& ring) { mbarrier_wait(ring.full + 8 * ring.stage, ring.parity); }

// tma_ring_release hands a stage back if the condition holds.
DEV void tma_ring_release(const TmaRing& ring, int stage, bool condition) {
  mbarrier_arrive_if(ring.empty + 8 * stage, condition);
}

DEV void tma_ring_advance(TmaRing& ring) {
  if (++ring.stage == ring.stages) {
    ring.stage = 0;
    ring.parity ^= 1;
  }
}

// What a block of a kernel for sm_90a has beside threads: mbarriers, bulk copies in flight, named barriers, warpgroups
// with products in progress, and records of how the asynchronous proxy accessed shared memory. All is as late as the
// rules allow: a copy writes when a thread waits for an mbarrier, some time, in random order; a product reads its
// operands and changes its sums in the wait that covers it or, in some blocks, as soon as it is committed.
#pragma once

#include "clocks.h"
#include "tensor_map.h"

struct Arithmetic;

const u32 shared_start = 1024;  // address of dynamic shared memory; the system has what comes before
const u32 piece_bytes = 16;     // what the asynchronous proxy moves at a time
const u32 warpgroup_threads = 128;
const u32 warpgroup_warps = warpgroup_threads / warp_lanes;

// Piece is what is known of 16 bytes of dynamic shared memory.
struct Piece {
  u32 copy;      // phase of the mbarrier, counted from 1, in which a copy to it completed; 0 for none
  u8 mbarrier;   // of that copy
  bool generic;  // written or read by threads since the last copy
  u8 mbarriers;  // which halves are mbarriers, a bit each
  u32 products[max_warpgroups];  // the last group of each warpgroup, from 1, that reads it; 0 for none
};

const u32 in_flight_phase = ~0u;

// Mbarrier is an mbarrier of the block. Its 8 bytes of shared memory hold nothing.
struct Mbarrier {
  u32 address;
  u32 arrivals;  // of a phase
  u32 pending;   // of the current phase
  i64 bytes;     // expected in the current phase that have not come
  u32 phase;     // phases that are complete
  u32 maker;     // thread that called mbarrier_init, in an epoch
  u32 made;
  bool fenced;   // by mbarrier_init_fence
  Knowledge gathered;  // what has arrived in the current phase
  Knowledge complete;  // and before
  u32 known[max_warps];  // phases whose knowledge a warp has
  std::vector<const Thread*> waiting;
};

// Load is a copy in flight.
struct Load {
  TiledTensor tensor;
  int at[max_rank];  // coordinates of the first element
  u32 address;       // in shared memory
  u32 bytes;
  u32 mbarrier;      // index
};

// NamedBarrier is one of the barriers 1 to 15.
struct NamedBarrier {
  u32 threads;  // it waits for; 0 if none is there
  std::vector<const Thread*> waiting;
};

// Needed is what a warp has to know before a product may read its operands: an epoch of a slot, and whether it must be
// fenced, as writes of threads must.
struct Needed {
  u32 slot, epoch;
  bool fenced;
};

// Product is a wgmma that has been started and is not done.
struct Product {
  u64 a, b;
  int n;
  bool a_turned, b_turned;
  u32 group;  // from 1
  u32 warps;  // that were found to know what is needed, a bit each
  std::vector<Needed> needed;
  float* sums[warpgroup_threads];
};

// WarpgroupOperation names what all threads of a warpgroup do together.
enum class WarpgroupOperation { none, wait, registers };

struct Warpgroup {
  std::vector<Product> products;  // in the order of start
  u32 done;                       // products before those
  u32 started[warpgroup_threads];    // by thread
  u32 committed[warpgroup_threads];  // groups, by thread
  bool fenced[warpgroup_threads];    // has called wgmma_fence
  WarpgroupOperation operation;
  int argument;
  u32 arrived;
  u32 registers;  // of a thread
  u32 wanted;     // registers of a thread that it waits for, 0 for none
};

struct HopperBlock {
  Clocks clocks;
  Piece pieces[max_shared / piece_bytes];
  u8 mbarrier_at[max_shared / 8];  // by offset/8, index + 1, 0 for none
  u32 mbarrier_count;
  Mbarrier mbarriers[max_mbarriers];
  std::vector<Load> loads;
  NamedBarrier named[16];
  Warpgroup warpgroups[max_warpgroups];
  u32 free_registers;  // that were given and not taken
  bool eager;          // products run when they are committed
  Arithmetic* arithmetic;
};

// new_hopper_block makes the state of a worker, start_hopper_block begins a block, end_hopper_block checks that
// nothing is in progress when all its threads have ended.
HopperBlock* new_hopper_block();
void start_hopper_block(Worker& w);
void end_hopper_block(const Worker& w);

// hopper_of is the state of the block that calls a function; it ends the process unless the kernel is for sm_90a.
HopperBlock& hopper_of(Worker& w, const char* function);

// shared_at is where bytes at an address of shared memory lie, which are aligned to as much.
char* shared_at(const Worker& w, const char* function, u32 address, u32 bytes, u32 alignment);
inline u32 piece_of(u32 address) { return (address - shared_start) / piece_bytes; }

// run_a_load lets one copy arrive, if any is in flight.
bool run_a_load(Worker& w);

// check_warpgroup_of checks that a thread that ends leaves nothing in progress.
void check_warpgroup_of(const Worker& w, const Thread* t);

// describe_mbarriers says which threads wait for which mbarriers, and what these lack.
void describe_mbarriers(const Worker& w, char* text, size_t size);

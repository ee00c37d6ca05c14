// Workers: what runs the blocks of a launch, and the state of the block, warp and thread that each is running.
//
// A worker is a thread of the operating system that runs one block at a time. The block's threads are fibers that
// it switches between, at every operation that needs others and, now and then, at others too; which comes next is
// random, by a seed. Nothing here locks: what belongs to a worker is touched by that worker alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../kernels/hopper.h"
#include "fiber.h"

const int warp_lanes = 32;
const int max_threads = 1024;
const int max_warps = max_threads / warp_lanes;
const u32 max_shared = 232448;     // a block's, static and dynamic
const u32 default_shared = 49152;  // without the function's attribute

struct Kernel;
struct Allocation;
struct SharedRecords;
struct HopperBlock;

struct Dim3 {
  u32 x, y, z;
};

// Launch is one launch of a kernel while it runs.
struct Launch {
  const Kernel* kernel;
  std::vector<char> parameters;
  Dim3 grid;
  u32 threads;
  u32 dynamic_shared;
  bool hopper;    // a kernel for sm_90a, see hopper_block.h
  u32 registers;  // of a thread at the start, by the kernel's bounds

  std::vector<u32> order;            // of the blocks
  std::atomic<u32> next{0};          // place in order of the next block to run
  u32 first_serial;                  // of block 0, see races.h
  std::mutex atomic_lock;            // held during an atomic operation
  u64 atomics = 0;                   // atomic operations so far
  std::unique_ptr<std::atomic<u64>[]> released;  // by block: atomics at its latest one after a fence, 0 for none
  u64 seed;
};

// AsyncCopy is a copy_async that has been issued and not waited for.
struct AsyncCopy {
  char* shared;
  const char* global;
  int size;    // bytes written
  bool zeros;  // instead of what lies at global
};

// Waiting is what a thread that is not ready waits for.
enum class Waiting { nothing, barrier, warp, named_barrier, mbarrier, warpgroup };

// Thread is a thread of the block.
struct Thread {
  Fiber fiber;
  char* stack;  // its lowest address, null before the thread has started
  u32 place;    // in Worker.threads
  u32 index;    // in the block
  Waiting waiting;
  bool finished;
  std::vector<AsyncCopy> copies;    // in the order of issue
  std::vector<size_t> group_ends;   // copies of the closed groups: the number issued up to the end of each
};

// WarpOperation names what all lanes of a warp do together.
enum class WarpOperation { barrier, shuffle, vote, load_matrix, mma_bf16, mma_tf32 };

// Exchange is where the lanes of a warp leave operands and find results.
struct alignas(64) Exchange {
  u32 words[warp_lanes];
  const char* rows[warp_lanes];
  // Of matrix products: word w of operand a is a[w][lane]; of b, b[w][lane%4][lane/4].
  u32 a[4][warp_lanes];
  u32 b[2][4][8];
  float product[16][8];
};

struct alignas(64) Warp {
  u32 ready;    // threads that can run, a bit for each place
  u32 alive;    // threads that have not ended, likewise
  u32 arrived;  // lanes at the operation in progress
  WarpOperation operation;
  u32 turn;      // operations completed; its parity picks the exchange, as lanes may run one operation ahead
  u32 barriers;  // warp barriers passed
  Exchange exchange[2];
};

// SharedRange is a piece of shared memory with records of who accessed it, see races.h.
struct SharedRange {
  uintptr_t base;
  size_t bytes;
  SharedRecords* records;  // one for 4 bytes
};

const u32 recent_allocations = 4;

// Worker lies at the start of a region aligned to its own size that also holds the stacks of its threads, so that
// code on such a stack finds it from the stack pointer.
struct Worker {
  // threads[32*w + p] is the thread at place p of warp w. Places are lanes in a random order.
  Thread threads[max_threads];
  Warp warps[max_warps];
  Thread* current;
  u32 ready_warps;  // warps with ready threads
  u32 alive;        // threads of the block that have not ended
  u32 at_barrier;
  u32 barriers;     // passed by the block
  int steps_in_warp;  // until another warp gets its turn though this one could go on
  u64 random_state;
  Fiber scheduler;

  Launch* launch;
  Dim3 block;
  u32 serial;    // of the block, see races.h
  bool fenced;   // a thread of the block has called fence
  u64 latest_atomic;  // value of launch->atomics at the block's latest atomic operation, 0 for none
  u64 acquired;       // latest_atomic as the latest fence found it

  char* dynamic_end;  // where the pages for dynamic shared memory end and a guard page begins
  SharedRange dynamic_shared;
  SharedRange static_shared;
  size_t static_touched_from, static_touched_to;  // offsets written since the memory was last filled
  const Allocation* recent[recent_allocations];   // that kernels have accessed
  u32 oldest_recent;

  HopperBlock* hopper;  // what a kernel for sm_90a needs

  std::vector<char*> free_stacks;
  u32 stacks_made;
};

const uintptr_t region_bytes = (uintptr_t)1 << 27;

// this_worker is the worker of the code that calls it, which must run on the stack of a thread of a block.
inline Worker& this_worker() {
  return *(Worker*)((uintptr_t)__builtin_frame_address(0) & ~(region_bytes - 1));
}

inline Warp& warp_of(Worker& w, const Thread* t) { return w.warps[t->place / warp_lanes]; }

// random_below is a number from 0 to n-1.
inline u32 random_below(u64& state, u32 n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (u32)((state >> 32) * n >> 32);
}

// run_blocks runs blocks of the worker's launch until none is left (block.cc).
void run_blocks(Worker& w);

// suspend runs another thread that is ready; it returns when the calling one has its turn again.
void suspend(Worker& w);

// wait_for marks the calling thread as not ready and suspends it. wake makes a thread ready again, wake_warp and
// wake_block all threads of a warp, of the block.
void wait_for(Worker& w, Waiting what);
void wake(Worker& w, const Thread* t);
void wake_warp(Worker& w, Warp& warp);
void wake_block(Worker& w);

// give_way suspends the calling thread now and then.
inline void give_way(Worker& w) {
  if (random_below(w.random_state, 8) == 0) {
    suspend(w);
  }
}

// thread_ended checks and completes what a warp waits for when one of its threads has ended (warp.cc).
void thread_ended(Worker& w, Warp& warp);

// die ends the process with a message that names kernel, block and thread. The one without a worker is for the driver.
[[noreturn]] void die(const Worker& w, const char* format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn]] void die_in_driver(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Checks of every access that kernels make to memory: bounds, alignment, and data races.
//
// The compiler puts a call before each load and store of a kernel (-fsanitize=thread; races.cc defines the functions
// that it calls, ThreadSanitizer itself is not used). For each word of shared and device memory there are records of
// who accessed it last. Two accesses to a word by different threads, one of them a write, are a race unless something
// orders them:
//   - in a block, a barrier between them; in a warp, a warp_barrier too;
//   - between blocks of a launch, only this: the writer's block called fence and then atomic_add, and after that the
//     reader's block called atomic_add and then fence. A later launch comes after all of an earlier one.
// Shuffles, votes and products order nothing. The order in which threads happen to run does not matter, so a missing
// barrier is found in one run. What the records forget, to stay small, may hide a race but never makes one up.
//
// In a kernel for sm_90a the accesses of a block are ordered by its clocks (clocks.h). What bulk copies and products do
// with shared memory is in records of 16 bytes (Piece).
#pragma once

#include "hopper_block.h"

enum class Access { read, write };

// Record is one access, or several that are alike, in a number; 0 for none. From the highest bit down:
//   24 bits  serial number of the block, counted over all launches, from 1
//   12 bits  barriers the block had passed, modulo 2^12
//   10 bits  thread
//   11 bits  warp barriers its warp had passed, modulo 2^11
//    1 bit   whether it is a write
//    4 bits  which bytes of the word
//    2 bits  RecordKind
// In a kernel for sm_90a the two counts of barriers are, together, the thread's epoch.
typedef u64 Record;

const u32 max_serial = (1u << 24) - 1;

// A word of shared memory has a record of the last write and one of the last read, or of a group of readers. A word of
// device memory has one record: the last write of the launch or, as long as there is none, its readers.
struct SharedRecords {
  Record write, read;
};

// check_shared checks and records an access of the calling thread to shared memory, check_global one to device memory.
// They return only if it may go on.
void check_shared(Worker& w, const void* p, u32 bytes, Access access);
void check_global(Worker& w, const void* p, u32 bytes, Access access);

// begin_async records that an asynchronous copy of the calling thread writes to shared memory from now on; any other
// access is an error until end_async.
void begin_async(Worker& w, const void* p, u32 bytes);
void end_async(Worker& w, const void* p, u32 bytes);

// begin_load records that a bulk copy of the calling thread, which completes on an mbarrier, writes to shared memory
// from now on; end_load that it has written, in a phase of the mbarrier, counted from 1.
void begin_load(Worker& w, u32 address, u32 bytes, u32 mbarrier);
void end_load(Worker& w, u32 address, u32 bytes, u32 phase);

// read_piece checks that a product may read 16 bytes at an offset of dynamic shared memory, and adds what has to be
// known for it.
void read_piece(Worker& w, const Piece& piece, u32 offset, std::vector<Needed>& needed);

// The bytes of the records of some bytes of memory.
inline size_t shared_record_bytes(size_t memory) { return (memory + 3) / 4 * sizeof(SharedRecords); }
inline size_t device_record_bytes(size_t memory) { return (memory + 3) / 4 * sizeof(Record); }

#include "races.h"

#include <cstdio>

#include "memory.h"

// RecordKind says whom a record is about: one thread, several threads of one warp, threads of several warps. Beyond
// that, of shared memory: an asynchronous copy in flight, which a thread has issued; of device memory: several blocks.
enum RecordKind : u64 { by_thread = 0, by_warp = 1, by_block = 2, in_flight = 3, by_blocks = 3 };

const int serial_shift = 40;
const int barrier_shift = 28;
const int thread_shift = 18;
const int warp_barrier_shift = 7;
const u64 is_write = 1 << 6;
const int bytes_shift = 2;
const u64 bytes_and_kind = 63;

static inline u32 serial_of(Record r) { return (u32)(r >> serial_shift); }
static inline u32 thread_of(Record r) { return (u32)(r >> thread_shift) & 1023; }
static inline u64 bytes_of(Record r) { return r & 15 << bytes_shift; }
static inline RecordKind kind_of(Record r) { return (RecordKind)(r & 3); }

// record_of is an access of the calling thread, now, without its bytes.
static inline Record record_of(Worker& w, Access access) {
  const u32 thread = w.current->index;
  u32 barriers = w.barriers;
  u32 warp_barriers = warp_of(w, w.current).barriers;
  if (w.launch->hopper) {
    const u32 epoch = w.hopper->clocks.epochs[thread];
    barriers = epoch >> 11;
    warp_barriers = epoch;
  }
  return (u64)w.serial << serial_shift | (u64)(barriers & 4095) << barrier_shift | (u64)thread << thread_shift |
         (u64)(warp_barriers & 2047) << warp_barrier_shift | (access == Access::write) * is_write;
}

static inline u32 epoch_of(Record r) {
  return ((u32)(r >> barrier_shift) & 4095) << 11 | ((u32)(r >> warp_barrier_shift) & 2047);
}

// unknown reports whether the calling thread, of a kernel for sm_90a, may run beside the access of a record of its
// block by one thread.
static inline bool unknown(const Worker& w, Record old) {
  const u32 thread = thread_of(old), self = w.current->index;
  return thread != self && !knows(w.hopper->clocks, self / warp_lanes, thread_slot(thread), epoch_of(old));
}

static inline bool same_phase(Record a, Record b) { return a >> barrier_shift == b >> barrier_shift; }
static inline bool same_warp(Record a, Record b) { return thread_of(a) / warp_lanes == thread_of(b) / warp_lanes; }
static inline bool same_warp_phase(Record a, Record b) { return ((a ^ b) >> warp_barrier_shift & 2047) == 0; }

// concurrent_in_block reports whether nothing in their block orders the accesses of a record before one of the calling
// thread. Both are of the same block.
static inline bool concurrent_in_block(Record old, Record now) {
  if (!same_phase(old, now)) {
    return false;
  }
  switch (kind_of(old)) {
    case by_thread:
      return thread_of(old) != thread_of(now) && !(same_warp(old, now) && !same_warp_phase(old, now));
    case by_warp:
      return !same_warp(old, now) || same_warp_phase(old, now);
    default:
      return true;
  }
}

// joined is the record of earlier reads and one of now, by the same block in the same phase.
static inline Record joined(Record old, Record now) {
  const u64 common = bytes_of(old) & bytes_of(now);
  if (!common) {
    return now;
  }
  if (kind_of(old) == by_block || !same_warp(old, now)) {
    return (now & ~bytes_and_kind) | common | by_block;
  }
  if (!same_warp_phase(old, now)) {
    return now;
  }
  if (kind_of(old) == by_thread && thread_of(old) == thread_of(now)) {
    return old | now;
  }
  return (now & ~bytes_and_kind) | common | by_warp;
}

// rewritten is the record of an earlier write and one of now that has come after it.
static inline Record rewritten(Record old, Record now) {
  const bool alike = (old ^ now) >> bytes_shift << bytes_shift == ((bytes_of(old) ^ bytes_of(now)));
  return alike && kind_of(old) == by_thread ? old | now : now;
}

static void describe_threads(Record r, char* text, size_t size) {
  switch (kind_of(r)) {
    case by_thread:
      snprintf(text, size, "thread %u", thread_of(r));
      break;
    case by_warp:
      snprintf(text, size, "threads of warp %u", thread_of(r) / warp_lanes);
      break;
    default:
      snprintf(text, size, "threads of several warps");
      break;
  }
}

[[noreturn]] static void die_of_race(const Worker& w, const char* memory, size_t offset, Record old, Record now,
                                     const char* who) {
  die(w, "data race: byte %zu of %s is %s, and was %s by %s with nothing to order the two", offset, memory,
      now & is_write ? "written" : "read", old & is_write ? "written" : "read", who);
}

// Shared memory.

[[noreturn]] static void report_shared(const Worker& w, const char* memory, size_t offset, Record old, Record now) {
  if (kind_of(old) == in_flight) {
    die(w, "byte %zu of %s is %s while an asynchronous copy of thread %u to it is in flight", offset, memory,
        now & is_write ? "written" : "read", thread_of(old));
  }
  char who[64];
  describe_threads(old, who, sizeof who);
  die_of_race(w, memory, offset, old, now, who);
}

static inline bool conflicts_in_shared(Record old, Record now) {
  if (serial_of(old) != serial_of(now) || !(bytes_of(old) & bytes_of(now))) {
    return false;
  }
  return kind_of(old) == in_flight || concurrent_in_block(old, now);
}

// check_recent_word handles an access to a word that the block has accessed in the same phase.
__attribute__((noinline)) static void check_recent_word(const Worker& w, SharedRecords& records, Record now,
                                                        const char* memory, size_t offset) {
  if (conflicts_in_shared(records.write, now)) {
    report_shared(w, memory, offset, records.write, now);
  }
  if (!(now & is_write)) {
    records.read = same_phase(records.read, now) ? joined(records.read, now) : now;
    return;
  }
  if (conflicts_in_shared(records.read, now)) {
    report_shared(w, memory, offset, records.read, now);
  }
  records.write = rewritten(records.write, now);
}

// one_reader is which of two reads to remember, an older one and one of now, in a kernel for sm_90a: either, unless
// one comes before the other.
static Record one_reader(Worker& w, Record old, Record now) {
  if (serial_of(old) != serial_of(now)) {
    return now;
  }
  if (thread_of(old) == thread_of(now)) {
    return rewritten(old, now);
  }
  return unknown(w, old) && random_below(w.random_state, 2) ? old : now;
}

// check_clocked_word handles an access in a kernel for sm_90a.
static void check_clocked_word(Worker& w, SharedRecords& records, Record now, const char* memory, size_t offset) {
  const auto conflicts = [&](Record old) {
    return serial_of(old) == serial_of(now) && (bytes_of(old) & bytes_of(now)) &&
           (kind_of(old) == in_flight || unknown(w, old));
  };
  if (conflicts(records.write)) {
    report_shared(w, memory, offset, records.write, now);
  }
  if (!(now & is_write)) {
    records.read = one_reader(w, records.read, now);
    return;
  }
  if (conflicts(records.read)) {
    report_shared(w, memory, offset, records.read, now);
  }
  records.write = rewritten(records.write, now);
}

static inline void check_shared_word(const Worker& w, SharedRecords& records, Record now, const char* memory,
                                     size_t offset) {
  const bool settled = !same_phase(records.write, now) && kind_of(records.write) != in_flight;
  if (settled && !(now & is_write) && records.read == now) {
    return;
  }
  if (settled && !same_phase(records.read, now)) {
    (now & is_write ? records.write : records.read) = now;
    return;
  }
  check_recent_word(w, records, now, memory, offset);
}

// for_each_word calls check(index of the word, record with the bytes of the word, offset of the access in it).
template <class Check>
static inline __attribute__((always_inline)) void for_each_word(size_t offset, u32 bytes, Record record, Check check) {
  if (offset % 4 == 0 && bytes == 4) {
    check(offset / 4, record | 15 << bytes_shift, offset);
    return;
  }
  const size_t end = offset + bytes;
  if (offset % 4 == 0 && bytes % 4 == 0) {
    for (size_t at = offset; at < end; at += 4) {
      check(at / 4, record | 15 << bytes_shift, at);
    }
    return;
  }
  for (size_t at = offset; at < end;) {
    const size_t next = (at / 4 + 1) * 4 < end ? (at / 4 + 1) * 4 : end;
    const u64 mask = ((1u << (next - at)) - 1) << at % 4;
    check(at / 4, record | mask << bytes_shift, at);
    at = next;
  }
}

// The asynchronous proxy: bulk copies and products.

// check_pieces checks an access of the calling thread against what copies and products do with the same bytes.
static void check_pieces(Worker& w, size_t offset, u32 bytes, Access access) {
  HopperBlock& h = *w.hopper;
  const u32 warp = w.current->index / warp_lanes;
  const char* what = access == Access::read ? "read" : "written";
  for (size_t i = offset / piece_bytes; i <= (offset + bytes - 1) / piece_bytes; i++) {
    Piece& piece = h.pieces[i];
    for (u32 half = 0; half < 2; half++) {
      const size_t begin = i * piece_bytes + 8 * half;
      if (piece.mbarriers >> half & 1 && begin < offset + bytes && offset < begin + 8) {
        die(w, "byte %zu of dynamic shared memory is %s, where an mbarrier is", begin, what);
      }
    }
    if (piece.copy == in_flight_phase) {
      die(w, "byte %zu of dynamic shared memory is %s while a copy to it is in flight", i * piece_bytes, what);
    }
    if (piece.copy && !knows(h.clocks, warp, copies_slot(piece.mbarrier), piece.copy)) {
      die(w, "data race: byte %zu of dynamic shared memory is %s without a wait for the mbarrier at byte %u, on which "
          "a copy to it has completed", i * piece_bytes, what, h.mbarriers[piece.mbarrier].address - shared_start);
    }
    if (access == Access::write) {
      for (u32 group = 0; group * warpgroup_threads < w.launch->threads; group++) {
        if (piece.products[group] && !knows(h.clocks, warp, products_slot(group), piece.products[group])) {
          die(w, "data race: byte %zu of dynamic shared memory is written, and nothing says that the product of "
              "warpgroup %u that reads it is done", i * piece_bytes, group);
        }
      }
    }
    piece.generic = true;
  }
}

// overwrite_words checks that a copy may overwrite what threads have accessed, and forgets their accesses.
static void overwrite_words(Worker& w, size_t offset) {
  const Clocks& clocks = w.hopper->clocks;
  const u32 warp = w.current->index / warp_lanes;
  for (size_t word = offset / 4; word < (offset + piece_bytes) / 4; word++) {
    SharedRecords& records = w.dynamic_shared.records[word];
    for (const Record old : {records.write, records.read}) {
      if (serial_of(old) != w.serial) {
        continue;
      }
      const char* what = old & is_write ? "wrote" : "read";
      if (kind_of(old) == in_flight || unknown(w, old)) {
        die(w, "data race: a copy overwrites byte %zu of dynamic shared memory, which thread %u %s with nothing to "
            "order the two", word * 4, thread_of(old), what);
      }
      if (old & is_write && !knows_fenced(clocks, warp, thread_slot(thread_of(old)), epoch_of(old))) {
        die(w, "a copy overwrites byte %zu of dynamic shared memory, which thread %u wrote without a "
            "fence_async_proxy since", word * 4, thread_of(old));
      }
    }
    records = SharedRecords{};
  }
}

void begin_load(Worker& w, u32 address, u32 bytes, u32 mbarrier) {
  HopperBlock& h = *w.hopper;
  const u32 warp = w.current->index / warp_lanes;
  for (u32 offset = address - shared_start; offset < address - shared_start + bytes; offset += piece_bytes) {
    Piece& piece = h.pieces[offset / piece_bytes];
    if (piece.mbarriers) {
      die(w, "a copy overwrites byte %u of dynamic shared memory, where an mbarrier is", offset);
    }
    if (piece.copy == in_flight_phase) {
      die(w, "a copy overwrites byte %u of dynamic shared memory, to which another copy is in flight", offset);
    }
    if (piece.copy && !knows(h.clocks, warp, copies_slot(piece.mbarrier), piece.copy)) {
      die(w, "data race: a copy overwrites byte %u of dynamic shared memory, and nothing says that the copy before has "
          "been waited for", offset);
    }
    for (u32 group = 0; group * warpgroup_threads < w.launch->threads; group++) {
      if (piece.products[group] && !knows(h.clocks, warp, products_slot(group), piece.products[group])) {
        die(w, "data race: a copy overwrites byte %u of dynamic shared memory, and nothing says that the product of "
            "warpgroup %u that reads it is done", offset, group);
      }
      piece.products[group] = 0;
    }
    if (piece.generic) {
      overwrite_words(w, offset);
    }
    piece.copy = in_flight_phase;
    piece.mbarrier = (u8)mbarrier;
    piece.generic = false;
  }
}

void end_load(Worker& w, u32 address, u32 bytes, u32 phase) {
  Piece* pieces = &w.hopper->pieces[piece_of(address)];
  for (u32 i = 0; i < bytes / piece_bytes; i++) {
    pieces[i].copy = phase;
  }
}

// need adds something to what has to be known.
static void need(std::vector<Needed>& needed, u32 slot, u32 epoch, bool fenced) {
  for (size_t i = needed.size(); i-- > 0;) {
    if (needed[i].slot == slot) {
      needed[i].epoch = epoch > needed[i].epoch ? epoch : needed[i].epoch;
      return;
    }
  }
  needed.push_back({slot, epoch, fenced});
}

void read_piece(Worker& w, const Piece& piece, u32 offset, std::vector<Needed>& needed) {
  if (piece.copy == in_flight_phase) {
    die(w, "a product reads byte %u of dynamic shared memory, to which a copy is in flight", offset);
  }
  if (piece.mbarriers) {
    die(w, "a product reads byte %u of dynamic shared memory, where an mbarrier is", offset);
  }
  if (piece.copy) {
    need(needed, copies_slot(piece.mbarrier), piece.copy, false);
  }
  if (!piece.generic) {
    return;
  }
  for (u32 word = offset / 4; word < (offset + piece_bytes) / 4; word++) {
    const Record old = w.dynamic_shared.records[word].write;
    if (serial_of(old) == w.serial && kind_of(old) == in_flight) {
      die(w, "a product reads byte %u of dynamic shared memory, to which thread %u copies asynchronously", word * 4,
          thread_of(old));
    }
    if (serial_of(old) == w.serial) {
      need(needed, thread_slot(thread_of(old)), epoch_of(old), true);
    }
  }
}

static inline bool within(const SharedRange& range, const void* p) { return (uintptr_t)p - range.base < range.bytes; }

// check_range checks an access that begins in a range of shared memory.
static inline void check_range(Worker& w, const SharedRange& range, const char* memory, const void* p, u32 bytes,
                               Record record) {
  const size_t offset = (uintptr_t)p - range.base;
  if (bytes > range.bytes - offset) {
    die(w, "an access of %u bytes at byte %zu of %s passes its end, %zu", bytes, offset, memory, range.bytes);
  }
  if (w.launch->hopper) {
    if (&range == &w.dynamic_shared) {
      check_pieces(w, offset, bytes, record & is_write ? Access::write : Access::read);
    }
    for_each_word(offset, bytes, record, [&](size_t word, Record now, size_t at) {
      check_clocked_word(w, range.records[word], now, memory, at);
    });
    return;
  }
  for_each_word(offset, bytes, record, [&](size_t word, Record now, size_t at) {
    check_shared_word(w, range.records[word], now, memory, at);
  });
}

// try_shared handles an access to shared memory; false if it is to something else.
static inline bool try_shared(Worker& w, const void* p, u32 bytes, Access access, RecordKind kind) {
  if (within(w.dynamic_shared, p)) {
    check_range(w, w.dynamic_shared, "dynamic shared memory", p, bytes, record_of(w, access) | kind);
    return true;
  }
  if (!within(w.static_shared, p)) {
    return false;
  }
  check_range(w, w.static_shared, "static shared memory", p, bytes, record_of(w, access) | kind);
  if (access == Access::write) {
    const size_t offset = (uintptr_t)p - w.static_shared.base;
    w.static_touched_from = offset < w.static_touched_from ? offset : w.static_touched_from;
    w.static_touched_to = offset + bytes > w.static_touched_to ? offset + bytes : w.static_touched_to;
  }
  return true;
}

void check_shared(Worker& w, const void* p, u32 bytes, Access access) {
  if (!try_shared(w, p, bytes, access, by_thread)) {
    die(w, "%p is not in shared memory", p);
  }
}

void begin_async(Worker& w, const void* p, u32 bytes) {
  if (!try_shared(w, p, bytes, Access::write, in_flight)) {
    die(w, "%p is not in shared memory", p);
  }
}

void end_async(Worker& w, const void* p, u32 bytes) {
  const SharedRange& range = within(w.dynamic_shared, p) ? w.dynamic_shared : w.static_shared;
  for_each_word((uintptr_t)p - range.base, bytes, record_of(w, Access::write),
                [&](size_t word, Record now, size_t) { range.records[word].write = now; });
}

// Device memory. Workers share its records.

static inline Record load(const Record& record) { return __atomic_load_n(&record, __ATOMIC_RELAXED); }
static inline void store(Record& record, Record v) { __atomic_store_n(&record, v, __ATOMIC_RELAXED); }

// concurrent_between_blocks reports whether nothing orders the accesses of a record before one of the calling thread.
// They are of other blocks of the same launch.
static bool concurrent_between_blocks(const Worker& w, Record old) {
  if (kind_of(old) == by_blocks) {
    return w.acquired == 0;  // who they are is not known any more
  }
  const u64 released = w.launch->released[serial_of(old) - w.launch->first_serial].load(std::memory_order_relaxed);
  return released == 0 || released >= w.acquired;
}

[[noreturn]] static void report_device(const Worker& w, size_t offset, Record old, Record now) {
  char who[64], text[128];
  describe_threads(old, who, sizeof who);
  if (kind_of(old) == by_blocks) {
    snprintf(text, sizeof text, "several blocks");
  } else if (serial_of(old) != serial_of(now)) {
    snprintf(text, sizeof text, "%s of block %u of the grid", who, serial_of(old) - w.launch->first_serial);
  } else {
    snprintf(text, sizeof text, "%s", who);
  }
  die_of_race(w, "device memory", offset, old, now, text);
}

// check_old_record handles an access to a word that the launch has accessed before.
__attribute__((noinline)) static void check_old_record(Worker& w, Record& record, Record old, Record now,
                                                       size_t offset) {
  const bool other_block = serial_of(old) != serial_of(now) || kind_of(old) == by_blocks;
  const bool clocked = w.launch->hopper;
  const u64 common = bytes_of(old) & bytes_of(now);
  if ((old | now) & is_write) {
    if (common && (other_block ? concurrent_between_blocks(w, old)
                   : clocked   ? unknown(w, old)
                               : concurrent_in_block(old, now))) {
      report_device(w, offset, old, now);
    }
    if (now & is_write) {
      store(record, rewritten(old, now));
    }
    return;
  }
  Record both = now;
  if (clocked && common) {
    both = one_reader(w, old, now);
  } else if (!clocked && same_phase(old, now)) {
    both = joined(old, now);
  }
  if (other_block && common) {
    // It stays as it is from now on, so that workers do not fight for the cache line.
    both = (old & ~bytes_and_kind) | common | by_blocks;
  }
  if (both != old) {
    store(record, both);
  }
}

static inline void check_device_word(Worker& w, Record& record, Record now, size_t offset) {
  const Record old = load(record);
  if (serial_of(old) < w.launch->first_serial) {
    store(record, now);
  } else if (old != now) {
    check_old_record(w, record, old, now, offset);
  }
}

// die_outside reports an access to memory that kernels may not touch.
[[noreturn]] static void die_outside(const Worker& w, uintptr_t address, u32 bytes, Access access) {
  const char* what = access == Access::read ? "read" : "write";
  const uintptr_t dynamic_end = (uintptr_t)w.dynamic_end;
  if (address < dynamic_end && address >= dynamic_end - max_shared) {
    die(w, "%s of %u bytes at byte %lld of dynamic shared memory, of which the launch asked for %zu", what, bytes,
        (i64)(address - w.dynamic_shared.base), w.dynamic_shared.bytes);
  }
  char near[160];
  describe_address(address, near, sizeof near);
  die(w, "%s of %u bytes at %p, outside of device and shared memory: %s", what, bytes, (void*)address, near);
}

static inline bool holds(const Allocation* a, uintptr_t address, u32 bytes) {
  const size_t offset = address - a->base;
  return offset < a->bytes && bytes <= a->bytes - offset;
}

// find_recent is find_allocation with a memory of the last few.
static inline const Allocation* find_recent(Worker& w, uintptr_t address, u32 bytes) {
  for (const Allocation* a : w.recent) {
    if (a && holds(a, address, bytes)) {
      return a;
    }
  }
  const Allocation* a = find_allocation(address, bytes);
  if (a) {
    w.recent[w.oldest_recent++ % recent_allocations] = a;
  }
  return a;
}

// try_global handles an access to device memory, or to page-locked memory of the host, which kernels may use too.
static inline bool try_global(Worker& w, const void* p, u32 bytes, Access access) {
  const Allocation* a = find_recent(w, (uintptr_t)p, bytes);
  if (!a) {
    return false;
  }
  if (a->records) {
    for_each_word((uintptr_t)p - a->base, bytes, record_of(w, access), [&](size_t word, Record now, size_t offset) {
      check_device_word(w, a->records[word], now, offset);
    });
  }
  return true;
}

void check_global(Worker& w, const void* p, u32 bytes, Access access) {
  if (!try_global(w, p, bytes, access)) {
    die_outside(w, (uintptr_t)p, bytes, access);
  }
}

static void check_atomic(Worker& w, const int* p) {
  const bool shared = within(w.dynamic_shared, p) || within(w.static_shared, p);
  if (!shared && !find_recent(w, (uintptr_t)p, sizeof *p)) {
    die_outside(w, (uintptr_t)p, sizeof *p, Access::write);
  }
}

int atomic_add(int* p, int v) {
  Worker& w = this_worker();
  if ((uintptr_t)p % sizeof *p) {
    die(w, "atomic_add at %p, which is not aligned to %zu bytes", p, sizeof *p);
  }
  check_atomic(w, p);
  give_way(w);
  std::lock_guard<std::mutex> lock(w.launch->atomic_lock);
  w.latest_atomic = ++w.launch->atomics;
  if (w.fenced) {
    w.launch->released[w.serial - w.launch->first_serial] = w.latest_atomic;
  }
  const int before = *p;
  *p = before + v;
  return before;
}

void fence() {
  Worker& w = this_worker();
  w.fenced = true;
  w.acquired = w.latest_atomic;
  give_way(w);
}

// What follows is called by the code that the compiler generates for kernels. Locals lie on the thread's stack, in the
// worker's region; constants in the driver's own image.
static inline void check_access(const void* p, u32 bytes, Access access) {
  Worker& w = this_worker();
  const uintptr_t address = (uintptr_t)p;
  if (address - (uintptr_t)&w < region_bytes || try_shared(w, p, bytes, access, by_thread) ||
      try_global(w, p, bytes, access) || (access == Access::read && in_driver_image(address))) {
    return;
  }
  die_outside(w, address, bytes, access);
}

template <u32 bytes, Access access>
static inline void check_aligned(const void* p) {
  if (bytes > 1 && (uintptr_t)p % bytes) {
    die(this_worker(), "an access of %u bytes at %p, which is not aligned to as much", bytes, p);
  }
  check_access(p, bytes, access);
}

extern "C" {
void __tsan_init() {}
void __tsan_read1(void* p) { check_aligned<1, Access::read>(p); }
void __tsan_read2(void* p) { check_aligned<2, Access::read>(p); }
void __tsan_read4(void* p) { check_aligned<4, Access::read>(p); }
void __tsan_read8(void* p) { check_aligned<8, Access::read>(p); }
void __tsan_read16(void* p) { check_aligned<16, Access::read>(p); }
void __tsan_write1(void* p) { check_aligned<1, Access::write>(p); }
void __tsan_write2(void* p) { check_aligned<2, Access::write>(p); }
void __tsan_write4(void* p) { check_aligned<4, Access::write>(p); }
void __tsan_write8(void* p) { check_aligned<8, Access::write>(p); }
void __tsan_write16(void* p) { check_aligned<16, Access::write>(p); }
void __tsan_unaligned_read2(void* p) { check_access(p, 2, Access::read); }
void __tsan_unaligned_read4(void* p) { check_access(p, 4, Access::read); }
void __tsan_unaligned_read8(void* p) { check_access(p, 8, Access::read); }
void __tsan_unaligned_read16(void* p) { check_access(p, 16, Access::read); }
void __tsan_unaligned_write2(void* p) { check_access(p, 2, Access::write); }
void __tsan_unaligned_write4(void* p) { check_access(p, 4, Access::write); }
void __tsan_unaligned_write8(void* p) { check_access(p, 8, Access::write); }
void __tsan_unaligned_write16(void* p) { check_access(p, 16, Access::write); }
void __tsan_read_range(void* p, unsigned long bytes) { check_access(p, (u32)bytes, Access::read); }
void __tsan_write_range(void* p, unsigned long bytes) { check_access(p, (u32)bytes, Access::write); }
}

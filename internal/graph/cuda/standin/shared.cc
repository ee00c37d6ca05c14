// Shared memory, asynchronous copies into it, and explicit accesses to device memory.
#include <cstring>

#include "memory.h"
#include "races.h"

char* dynamic_shared() {
  Worker& w = this_worker();
  if (w.launch->dynamic_shared == 0) {
    die(w, "dynamic_shared of a launch without dynamic shared memory");
  }
  return (char*)w.dynamic_shared.base;
}

static void check_alignment(const Worker& w, const char* function, const void* p, u32 bytes) {
  if ((uintptr_t)p % bytes) {
    die(w, "%s at %p, which is not aligned to %u bytes", function, p, bytes);
  }
}

// A copy happens as late as the rules allow: in the wait that covers it. Until then its destination holds NaN.
static void copy_async(const char* function, void* shared, const void* global, int bytes, u32 size) {
  Worker& w = this_worker();
  if (bytes != 0 && bytes != (int)size) {
    die(w, "%s of %d bytes; want 0 or %u", function, bytes, size);
  }
  check_alignment(w, function, shared, size);
  if (bytes != 0) {
    check_alignment(w, function, global, size);
    check_global(w, global, size, Access::read);
  }
  begin_async(w, shared, size);
  memset(shared, poison, size);
  w.current->copies.push_back({(char*)shared, (const char*)global, (int)size, bytes == 0});
  give_way(w);
}

void copy_async16(void* shared, const void* global, int bytes) {
  copy_async("copy_async16", shared, global, bytes, 16);
}

void copy_async4(void* shared, const void* global, int bytes) { copy_async("copy_async4", shared, global, bytes, 4); }

void copy_async_commit() {
  Thread& t = *this_worker().current;
  t.group_ends.push_back(t.copies.size());
}

void wait_for_copies(int in_flight) {
  Worker& w = this_worker();
  Thread& t = *w.current;
  give_way(w);
  if (t.group_ends.size() <= (size_t)in_flight) {
    return;
  }
  const size_t groups = t.group_ends.size() - (size_t)in_flight;
  const size_t copies = t.group_ends[groups - 1];
  for (size_t i = 0; i < copies; i++) {
    const AsyncCopy& c = t.copies[i];
    if (c.zeros) {
      memset(c.shared, 0, (size_t)c.size);
    } else {
      memcpy(c.shared, c.global, (size_t)c.size);
    }
    end_async(w, c.shared, (u32)c.size);
  }
  t.copies.erase(t.copies.begin(), t.copies.begin() + (long)copies);
  t.group_ends.erase(t.group_ends.begin(), t.group_ends.begin() + (long)groups);
  for (size_t& end : t.group_ends) {
    end -= copies;
  }
}

template <class Value>
static Value load_global(const char* function, const void* p) {
  Worker& w = this_worker();
  check_alignment(w, function, p, sizeof(Value));
  check_global(w, p, sizeof(Value), Access::read);
  return *(const Value*)p;
}

template <class Value>
static void store_global(const char* function, void* p, Value v) {
  Worker& w = this_worker();
  check_alignment(w, function, p, sizeof(Value));
  check_global(w, p, sizeof(Value), Access::write);
  *(Value*)p = v;
}

Words4 read_global16(const void* p) { return load_global<Words4>("load_global16", p); }
void write_global16(void* p, Words4 v) { store_global("store_global16", p, v); }
u64 read_global8(const void* p) { return load_global<u64>("load_global8", p); }
void write_global8(void* p, u64 v) { store_global("store_global8", p, v); }

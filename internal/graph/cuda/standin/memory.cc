#include "memory.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "races.h"

const size_t page = 4096;
const size_t large_page = 2 << 20;   // if the system has them
const size_t guard = 1 << 20;        // untouchable bytes before and after a mapping
const size_t alignment = 256;        // of allocations, as the driver promises

// By base. The pointers stay valid until the allocation is released. It is changed only while no kernel runs.
static std::map<uintptr_t, Allocation>& allocations() {
  static auto* all = new std::map<uintptr_t, Allocation>;
  return *all;
}

char* map_zeros(size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  return p == MAP_FAILED ? nullptr : (char*)p;
}

void guard_page(char* address) {
  if (mprotect(address, page, PROT_NONE)) {
    die_in_driver("cannot protect a page");
  }
}

static size_t whole_pages(size_t bytes) { return (bytes + page - 1) / page * page; }

// An allocation is one mapping: a guard, the memory, a guard, and the records, on large pages if they fill some.
const Allocation* allocate(size_t bytes, int device) {
  const size_t memory = whole_pages(bytes);
  const size_t records = device < 0 ? 0 : whole_pages(device_record_bytes(bytes));
  const size_t room_to_align = records < large_page ? 0 : large_page;
  Allocation a{};
  a.mapped = guard + memory + guard + room_to_align + records;
  a.mapping = map_zeros(a.mapped);
  if (!a.mapping) {
    return nullptr;
  }
  char* first = a.mapping + guard;
  if (mprotect(a.mapping, guard, PROT_NONE) || mprotect(first + memory, guard, PROT_NONE)) {
    munmap(a.mapping, a.mapped);
    return nullptr;
  }
  memset(first, poison, memory);
  a.base = (uintptr_t)first + ((memory - bytes) & ~(alignment - 1));
  a.bytes = bytes;
  a.device = device;
  if (records) {
    uintptr_t start = (uintptr_t)first + memory + guard;
    start = room_to_align ? (start + large_page - 1) / large_page * large_page : start;
    madvise((void*)start, records, MADV_HUGEPAGE);
    a.records = (Record*)start;
  }
  return &(allocations()[a.base] = a);
}

static void unmap(const Allocation& a) { munmap(a.mapping, a.mapped); }

bool release(uintptr_t base, int device) {
  const auto found = allocations().find(base);
  if (found == allocations().end() || found->second.device != device) {
    return false;
  }
  unmap(found->second);
  allocations().erase(found);
  return true;
}

void release_all(int device) {
  for (auto i = allocations().begin(); i != allocations().end();) {
    if (i->second.device != device) {
      ++i;
      continue;
    }
    unmap(i->second);
    i = allocations().erase(i);
  }
}

const Allocation* find_allocation(uintptr_t address, size_t bytes) {
  auto after = allocations().upper_bound(address);
  if (after == allocations().begin()) {
    return nullptr;
  }
  const Allocation& a = std::prev(after)->second;
  const size_t offset = address - a.base;
  return offset <= a.bytes && bytes <= a.bytes - offset ? &a : nullptr;
}

size_t allocated(int device) {
  size_t sum = 0;
  for (const auto& [base, a] : allocations()) {
    sum += a.device == device ? a.bytes : 0;
  }
  return sum;
}

void clear_records() {
  for (auto& [base, a] : allocations()) {
    if (a.records) {
      memset(a.records, 0, device_record_bytes(a.bytes));
    }
  }
}

void describe_address(uintptr_t address, char* text, size_t size) {
  const auto after = allocations().upper_bound(address);
  const Allocation* before = after == allocations().begin() ? nullptr : &std::prev(after)->second;
  const Allocation* next = after == allocations().end() ? nullptr : &after->second;
  if (before && address - before->base - before->bytes < guard) {
    snprintf(text, size, "%zu bytes past the end of an allocation of %zu bytes",
             (size_t)(address - before->base - before->bytes), before->bytes);
  } else if (before && address - before->base < before->bytes) {
    snprintf(text, size, "it starts %zu bytes before the end of an allocation of %zu bytes",
             (size_t)(before->base + before->bytes - address), before->bytes);
  } else if (next && next->base - address < guard) {
    snprintf(text, size, "%zu bytes before an allocation of %zu bytes", (size_t)(next->base - address), next->bytes);
  } else {
    snprintf(text, size, "no allocation is near");
  }
}

struct Image {
  uintptr_t from, to;
};

static int add_segments(dl_phdr_info* info, size_t, void* result) {
  Image image{~(uintptr_t)0, 0};
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type == PT_LOAD) {
      const uintptr_t from = info->dlpi_addr + segment.p_vaddr;
      image.from = from < image.from ? from : image.from;
      image.to = from + segment.p_memsz > image.to ? from + segment.p_memsz : image.to;
    }
  }
  const uintptr_t here = (uintptr_t)&add_segments;
  if (here < image.from || here >= image.to) {
    return 0;
  }
  *(Image*)result = image;
  return 1;
}

bool in_driver_image(uintptr_t address) {
  static const Image image = [] {
    Image found{};
    dl_iterate_phdr(add_segments, &found);
    return found;
  }();
  return address >= image.from && address < image.to;
}

// Memory of the device and page-locked memory of the host.
#pragma once

#include "worker.h"

// poison is what fresh memory is filled with: any float32, bfloat16 or float64 made of it is NaN.
const int poison = 0xff;

// Allocation is a piece of device memory, or of page-locked host memory. Its end lies just before pages that cannot
// be touched (up to the alignment of 256 bytes).
struct Allocation {
  uintptr_t base;
  size_t bytes;
  int device;     // -1 for the host
  u64* records;   // of who accessed it, one for 4 bytes, see races.h; null for the host
  char* mapping;  // the whole of it, with guards and records
  size_t mapped;
};

// allocate returns null if the system has no memory; device -1 is the host.
const Allocation* allocate(size_t bytes, int device);

// release gives an allocation back and reports whether there was one with that base.
bool release(uintptr_t base, int device);
void release_all(int device);

// find_allocation is the one that holds a whole range, or null.
const Allocation* find_allocation(uintptr_t address, size_t bytes);

// allocated is the sum of a device's allocations.
size_t allocated(int device);

// clear_records forgets all accesses to device memory.
void clear_records();

// describe_address says in words what is near an address that is in no allocation.
void describe_address(uintptr_t address, char* text, size_t size);

// in_driver_image reports whether an address is in the loaded file of this driver, as a kernel's constants are.
bool in_driver_image(uintptr_t address);

// guard_page makes the page at an address untouchable.
void guard_page(char* page);

// map_zeros maps memory that is zero and takes no space until it is used. It returns null if there is no room.
char* map_zeros(size_t bytes);

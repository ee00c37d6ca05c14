// The environment variables that tests set, read whenever they matter.
//
//   STANDIN_SEED             of the random order of blocks and threads; 1
//   STANDIN_WORKERS          threads of the operating system that run blocks, 1 to 64; 2. Read once.
//   STANDIN_DEVICES          number of devices, 0 to 8; 1
//   STANDIN_CAPABILITY       compute capability; 8.0
//   STANDIN_MULTIPROCESSORS  of each device; 108
//   STANDIN_MEMORY           of each device, in bytes; 4294967296
//   STANDIN_FAIL             what shall fail, see failures.h
#pragma once

#include <cstddef>

#include "../kernels/device.h"

struct Capability {
  int major, minor;
};

u64 settings_seed();
int settings_workers();
int settings_devices();
Capability settings_capability();
int settings_multiprocessors();
size_t settings_memory();

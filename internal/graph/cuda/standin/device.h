// Limits of the devices.
#pragma once

// SharedLimits is the most shared memory of a block and of a multiprocessor, in bytes.
struct SharedLimits {
  int block, multiprocessor;
};

SharedLimits shared_limits();

const int registers_per_multiprocessor = 65536;
const int threads_per_multiprocessor = 2048;
const int blocks_per_multiprocessor = 32;

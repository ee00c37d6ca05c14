// Kernels of this library and modules of PTX that name them.
#pragma once

#include <cstddef>

#include "driver.h"

// Kernel is a kernel that was compiled for the CPU.
struct Kernel {
  const char* name;
  void (*call)(const void* parameters);
  size_t parameter_bytes;
};

// register_kernel adds one; registration.h calls it when the library is loaded.
void register_kernel(const Kernel& kernel);

// Function is an entry of a module.
struct Function {
  const Kernel* kernel;
  unsigned max_threads;
  unsigned min_blocks;       // a multiprocessor shall hold, 0 if the source does not say
  unsigned static_shared;    // bytes
  unsigned dynamic_shared;   // the most that a launch may ask for
  bool hopper;               // of a module for sm_90a
};

// registers_of is the most registers a thread could have if the launch bounds are kept; the stand-in has none.
unsigned registers_of(const Function& f);

// is_function reports whether a handle is a function of a module that is loaded.
bool is_function(const Function* function);

// What build.sh adds to each kernel source: one Registration for each kernel in it.
#pragma once

#include "module.h"

template <auto kernel>
struct Registration;

// The compiler's checks of memory accesses are for kernels; the parameters lie outside of the device's memory.
template <class Parameters, void (*kernel)(Parameters)>
struct Registration<kernel> {
  __attribute__((no_sanitize("thread"))) static void call(const void* parameters) {
    kernel(*(const Parameters*)parameters);
  }

  __attribute__((no_sanitize("thread"))) explicit Registration(const char* name) {
    register_kernel(Kernel{name, call, sizeof(Parameters)});
  }
};

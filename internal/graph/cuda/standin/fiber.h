// Fibers: a computation with a stack of its own that can be left and resumed, one for each thread of a CUDA block.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && !defined(STANDIN_UCONTEXT)
#define STANDIN_ASSEMBLY_SWITCH
#else
#include <ucontext.h>
#endif

struct Fiber {
#ifdef STANDIN_ASSEMBLY_SWITCH
  void* stack_pointer;
#else
  ucontext_t state;
#endif
};

// prepare makes a fiber that runs entry, which must not return, on the stack that ends below top.
void prepare(Fiber& fiber, char* top, size_t bytes, void (*entry)());

// switch_fiber leaves one fiber and resumes another. It returns when something resumes the first.
#ifdef STANDIN_ASSEMBLY_SWITCH
extern "C" __attribute__((visibility("hidden"))) void standin_switch(void** from, void* to);
inline void switch_fiber(Fiber& from, Fiber& to) { standin_switch(&from.stack_pointer, to.stack_pointer); }
#else
inline void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.state, &to.state); }
#endif

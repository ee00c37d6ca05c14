#include "fiber.h"

#include <cstdint>

#ifdef STANDIN_ASSEMBLY_SWITCH

// The registers that a call preserves go on the stack that is left and come from the stack that is resumed. The
// return address below them is where prepare, or the other fiber's call, says.
asm(R"(
  .text
  .hidden standin_switch
  .globl standin_switch
  .type standin_switch, @function
standin_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
  .size standin_switch, .-standin_switch
)");

void prepare(Fiber& fiber, char* top, size_t, void (*entry)()) {
  const int saved_registers = 6;
  void** stack = (void**)((uintptr_t)top & ~(uintptr_t)15);
  *--stack = nullptr;  // entry's return address, so that its stack is aligned as after a call
  *--stack = (void*)entry;
  for (int i = 0; i < saved_registers; i++) {
    *--stack = nullptr;
  }
  fiber.stack_pointer = stack;
}

#else

void prepare(Fiber& fiber, char* top, size_t bytes, void (*entry)()) {
  getcontext(&fiber.state);
  fiber.state.uc_stack.ss_sp = top - bytes;
  fiber.state.uc_stack.ss_size = bytes;
  fiber.state.uc_link = nullptr;
  makecontext(&fiber.state, entry, 0);
}

#endif

/*
 * slots.S: the functions of symbols.h, each a jump through its slot in door_slots.
 * Arguments and stack are left as they are. arm64 keeps x16 free for such jumps.
 *
 * They are hidden from the dynamic loader: a driver's library that calls its own
 * functions by name must find its own, not these.
 */
    .text
    .set index, 0

#if defined(__x86_64__)

.macro slot name
    .globl \name
    .hidden \name
    .type \name, @function
    .balign 16
\name:
    jmp *door_slots + 8 * index(%rip)
    .size \name, . - \name
    .set index, index + 1
.endm

#elif defined(__aarch64__)

.macro slot name
    .globl \name
    .hidden \name
    .type \name, %function
    .balign 16
\name:
    adrp x16, door_slots + 8 * index
    ldr x16, [x16, :lo12:door_slots + 8 * index]
    br x16
    .size \name, . - \name
    .set index, index + 1
.endm

#else
#error "the CUDA backend is written for amd64 and arm64"
#endif

#define SLOT(name) slot name
#include "symbols.h"

    .section .note.GNU-stack, "", %progbits

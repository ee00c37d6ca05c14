// What comes before a kernel source where it is compiled for the CPU, see build.sh. Sources lie in unnamed namespaces,
// as each is a program of its own for the GPU too. Member functions cannot be static, so DEV is not from here on.
#pragma once

#include "hopper.h"
#include "registration.h"

#undef DEV
#define DEV inline

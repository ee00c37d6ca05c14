// What copies need of mbarriers.
#pragma once

#include "hopper_block.h"

// mbarrier_of_load is the index of the mbarrier that a copy of the calling thread completes on.
u32 mbarrier_of_load(Worker& w, HopperBlock& h, u32 address);

// bytes_arrived tells an mbarrier of bytes that a copy has written, and returns their phase, counted from 1.
u32 bytes_arrived(Worker& w, HopperBlock& h, u32 mbarrier, u32 bytes);

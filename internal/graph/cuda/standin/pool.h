// The pool of workers: threads of the operating system that run launches.
#pragma once

#include "worker.h"

// run_launch runs all blocks of a launch, in a random order, and returns when they have ended. It fills in order,
// first_serial, released and seed. One launch runs at a time.
void run_launch(Launch& launch);

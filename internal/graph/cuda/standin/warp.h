// Warp operations: how the lanes of a warp do one thing together.
#pragma once

#include "worker.h"

// operation_name is the function that kernels call.
const char* operation_name(WarpOperation operation);

// die_diverged reports lanes of one warp at different operations, die_incomplete a warp without all of its lanes.
[[noreturn]] void die_diverged(const Worker& w, WarpOperation first, WarpOperation second);
[[noreturn]] void die_incomplete(const Worker& w, WarpOperation operation);

// together has each lane of the warp deposit its part in the exchange; the last one to come completes the operation;
// all then find the results in the exchange that is returned.
template <class Deposit, class Complete>
inline Exchange& together(Worker& w, WarpOperation operation, Deposit deposit, Complete complete) {
  Warp& warp = warp_of(w, w.current);
  if (warp.arrived == 0) {
    if (warp.alive != ~0u) {
      die_incomplete(w, operation);
    }
    warp.operation = operation;
  } else if (warp.operation != operation) {
    die_diverged(w, warp.operation, operation);
  }
  Exchange& exchange = warp.exchange[warp.turn & 1];
  deposit(exchange, w.current->index % warp_lanes);
  if (++warp.arrived < warp_lanes) {
    wait_for(w, Waiting::warp);
    return exchange;
  }
  complete(exchange);
  warp.arrived = 0;
  warp.turn++;
  wake_warp(w, warp);
  return exchange;
}

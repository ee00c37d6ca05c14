// What every call of the driver begins with, and the state that calls share.
#pragma once

#include <memory>
#include <mutex>
#include <set>

#include "driver.h"
#include "stream.h"

// Context is the primary context of a device. It exists while someone retains it; what belongs to it goes with it.
struct Context {
  int device;
  int references = 0;
  int failed = 0;  // the result that ended the context's work, which every later call returns
  Stream legacy;   // the null stream
  std::set<Stream*> streams;
};

enum Needs : unsigned {
  needs_driver = 1,     // cuInit has been called
  needs_context = 3,    // and the calling thread has a context that works
  unsafe_in_capture = 4,  // not while a stream is captured, except as the mode of the capture allows
};

// admit is the result with which a call is turned away, CUDA_SUCCESS if it may go on.
CUresult admit(const char* function, unsigned needs);

// current_context is the context of the calling thread, after admit has found it to work.
Context& current_context();

std::mutex& driver_lock();

// driver_call runs the body of a driver function. One runs at a time, kernels included.
template <class Body>
CUresult driver_call(const char* function, unsigned needs, Body body) {
  std::lock_guard<std::mutex> lock(driver_lock());
  const CUresult turned_away = admit(function, needs);
  return turned_away != CUDA_SUCCESS ? turned_away : body();
}

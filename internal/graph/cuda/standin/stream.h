// Streams and events. Work is as late as the rules allow: it stays in its stream until something waits for it, so that
// a missing synchronisation shows. Work of other streams runs only as far as events ask for it.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "capture.h"
#include "driver.h"

// Marker is a place in a stream, or in what is captured from it.
struct Marker {
  Stream* stream;
  bool reached = false;
  std::chrono::steady_clock::time_point when;

  std::shared_ptr<Capture> capture;
  std::vector<size_t> nodes;
};

// Work is one entry of a stream: something to run, a marker that is reached with it, or one to wait for.
struct Work {
  std::function<void()> run;
  std::shared_ptr<Marker> reach;
  std::shared_ptr<Marker> wait;
};

struct Stream {
  Context* context = nullptr;
  bool blocking = true;  // ordered with the null stream
  std::deque<Work> queue;

  std::shared_ptr<Capture> capture;  // null unless the stream is being captured
  std::vector<size_t> tail;          // the nodes that what is captured next comes after
};

struct Event {
  Context* context;
  bool timing;
  std::shared_ptr<Marker> last;  // null before the first record
};

// enqueue adds work to a stream or, if that is being captured, to its graph.
CUresult enqueue(Stream& stream, std::function<void()> run);

// synchronize runs what is in a stream, or in all streams of a context; the result is the context's failure, if any.
CUresult synchronize(Stream& stream);
CUresult synchronize(Context& context);

// run_synchronously runs work in the null stream and waits for it, as the copies do that are not asynchronous.
CUresult run_synchronously(Context& context, std::function<void()> run);

// find_stream is the stream of a handle, null if there is none.
Stream* find_stream(Context& context, CUstream handle);

#include "stream.h"

#include <algorithm>

#include "call.h"
#include "settings.h"
#include "worker.h"

static std::shared_ptr<Marker> new_marker(Stream& stream) {
  auto marker = std::make_shared<Marker>();
  marker->stream = &stream;
  return marker;
}

// run_first runs the first entry of a stream, and of other streams what it waits for.
static void run_first(Stream& stream) {
  Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  while (work.wait && !work.wait->reached) {
    run_first(*work.wait->stream);
  }
  if (work.run && !stream.context->failed) {
    work.run();
  }
  if (work.reach) {
    work.reach->reached = true;
    work.reach->when = std::chrono::steady_clock::now();
  }
}

static CUresult result_of(const Context& context) { return (CUresult)context.failed; }

CUresult synchronize(Stream& stream) {
  while (!stream.queue.empty()) {
    run_first(stream);
  }
  return result_of(*stream.context);
}

// The streams' order is random: nothing but events and the null stream may be counted on.
CUresult synchronize(Context& context) {
  static u64 state = settings_seed() | 1;
  std::vector<Stream*> streams(context.streams.begin(), context.streams.end());
  streams.push_back(&context.legacy);
  for (size_t i = streams.size(); i > 1; i--) {
    std::swap(streams[i - 1], streams[random_below(state, (u32)i)]);
  }
  for (Stream* s : streams) {
    synchronize(*s);
  }
  return result_of(context);
}

static void wait_for_tail(Stream& stream, Stream& other) {
  if (other.queue.empty()) {
    return;
  }
  auto marker = new_marker(other);
  other.queue.push_back({nullptr, marker, nullptr});
  stream.queue.push_back({nullptr, nullptr, marker});
}

// order_with_null_stream: work of the null stream comes after all work of blocking streams that is there, and theirs
// after its.
static CUresult order_with_null_stream(Stream& stream) {
  Context& context = *stream.context;
  if (&stream != &context.legacy) {
    if (stream.blocking) {
      wait_for_tail(stream, context.legacy);
    }
    return CUDA_SUCCESS;
  }
  for (Stream* s : context.streams) {
    if (s->blocking && s->capture) {
      return invalidate(*s->capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    }
  }
  for (Stream* s : context.streams) {
    if (s->blocking) {
      wait_for_tail(stream, *s);
    }
  }
  return CUDA_SUCCESS;
}

CUresult enqueue(Stream& stream, std::function<void()> run) {
  if (stream.capture) {
    return add_node(stream, std::move(run));
  }
  const CUresult r = order_with_null_stream(stream);
  if (r == CUDA_SUCCESS) {
    stream.queue.push_back({std::move(run), nullptr, nullptr});
  }
  return r;
}

CUresult run_synchronously(Context& context, std::function<void()> run) {
  CUresult r = order_with_null_stream(context.legacy);
  if (r == CUDA_SUCCESS) {
    r = refuse_in_capture();
  }
  if (r != CUDA_SUCCESS) {
    return r;
  }
  context.legacy.queue.push_back({std::move(run), nullptr, nullptr});
  return synchronize(context.legacy);
}

Stream* find_stream(Context& context, CUstream handle) {
  const auto legacy_handle = (CUstream)1;
  if (!handle || handle == legacy_handle) {
    return &context.legacy;
  }
  return context.streams.count(handle) ? handle : nullptr;
}

DRIVER_CALL cuStreamCreate(CUstream* stream, unsigned flags) {
  return driver_call("cuStreamCreate", needs_context, [&] {
    if (flags > CU_STREAM_NON_BLOCKING) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    auto* s = new Stream;
    s->context = &current_context();
    s->blocking = flags != CU_STREAM_NON_BLOCKING;
    s->context->streams.insert(s);
    *stream = s;
    return CUDA_SUCCESS;
  });
}

// stream_call runs a body with the stream of a handle.
template <class Body>
static CUresult stream_call(const char* function, CUstream handle, Body body) {
  return driver_call(function, needs_context, [&] {
    Stream* s = find_stream(current_context(), handle);
    return s ? body(*s) : CUDA_ERROR_INVALID_HANDLE;
  });
}

DRIVER_CALL cuStreamDestroy_v2(CUstream stream) {
  return stream_call("cuStreamDestroy_v2", stream, [&](Stream& s) {
    if (&s == &s.context->legacy) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (s.capture) {
      return invalidate(*s.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    synchronize(s);
    s.context->streams.erase(&s);
    delete &s;
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuStreamSynchronize(CUstream stream) {
  return stream_call("cuStreamSynchronize", stream, [&](Stream& s) {
    if (s.capture) {
      return invalidate(*s.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    const CUresult r = order_with_null_stream(s);
    return r != CUDA_SUCCESS ? r : synchronize(s);
  });
}

// A query lets the stream get one entry further, so that a program that polls comes to an end.
DRIVER_CALL cuStreamQuery(CUstream stream) {
  return stream_call("cuStreamQuery", stream, [&](Stream& s) {
    if (s.capture) {
      return invalidate(*s.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    if (s.queue.empty()) {
      return CUDA_SUCCESS;
    }
    run_first(s);
    const CUresult r = result_of(*s.context);
    return r != CUDA_SUCCESS ? r : CUDA_ERROR_NOT_READY;
  });
}

static std::set<Event*>& events() {
  static auto* all = new std::set<Event*>;
  return *all;
}

DRIVER_CALL cuEventCreate(CUevent* event, unsigned flags) {
  return driver_call("cuEventCreate", needs_context, [&] {
    *event = new Event{&current_context(), (flags & CU_EVENT_DISABLE_TIMING) == 0, nullptr};
    events().insert(*event);
    return CUDA_SUCCESS;
  });
}

// event_call runs a body with the event of a handle.
template <class Body>
static CUresult event_call(const char* function, CUevent handle, Body body) {
  return driver_call(function, needs_context, [&] {
    return events().count(handle) ? body(*handle) : CUDA_ERROR_INVALID_HANDLE;
  });
}

DRIVER_CALL cuEventDestroy_v2(CUevent event) {
  return event_call("cuEventDestroy_v2", event, [&](Event& e) {
    events().erase(&e);
    delete &e;
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuEventRecord(CUevent event, CUstream stream) {
  return event_call("cuEventRecord", event, [&](Event& e) {
    Stream* s = find_stream(current_context(), stream);
    if (!s) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    auto marker = new_marker(*s);
    if (s->capture) {
      if (!s->capture->valid) {
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
      }
      marker->capture = s->capture;
      marker->nodes = s->tail;
      e.last = marker;
      return CUDA_SUCCESS;
    }
    const CUresult r = order_with_null_stream(*s);
    if (r == CUDA_SUCCESS) {
      s->queue.push_back({nullptr, marker, nullptr});
      e.last = marker;
    }
    return r;
  });
}

// wait_in_capture makes a stream wait for an event where one of the two is being captured.
static CUresult wait_in_capture(Stream& stream, const Marker& marker) {
  if (!marker.capture) {
    return invalidate(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  }
  if (marker.capture->ended) {
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  if (stream.capture && stream.capture != marker.capture) {
    invalidate(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    return invalidate(*marker.capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
  }
  if (&stream == &stream.context->legacy) {
    return invalidate(*marker.capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  }
  stream.capture = marker.capture;
  for (size_t node : marker.nodes) {
    if (std::find(stream.tail.begin(), stream.tail.end(), node) == stream.tail.end()) {
      stream.tail.push_back(node);
    }
  }
  return CUDA_SUCCESS;
}

DRIVER_CALL cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  return event_call("cuStreamWaitEvent", event, [&](Event& e) {
    Stream* s = find_stream(current_context(), stream);
    if (!s) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!e.last) {
      return CUDA_SUCCESS;
    }
    if (s->capture || e.last->capture) {
      return wait_in_capture(*s, *e.last);
    }
    s->queue.push_back({nullptr, nullptr, e.last});
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuEventSynchronize(CUevent event) {
  return event_call("cuEventSynchronize", event, [&](Event& e) {
    if (!e.last) {
      return CUDA_SUCCESS;
    }
    if (e.last->capture) {
      return invalidate(*e.last->capture, CUDA_ERROR_CAPTURED_EVENT);
    }
    while (!e.last->reached) {
      run_first(*e.last->stream);
    }
    return result_of(*e.context);
  });
}

DRIVER_CALL cuEventQuery(CUevent event) {
  return event_call("cuEventQuery", event, [&](Event& e) {
    if (!e.last || e.last->reached) {
      return CUDA_SUCCESS;
    }
    if (e.last->capture) {
      return invalidate(*e.last->capture, CUDA_ERROR_CAPTURED_EVENT);
    }
    run_first(*e.last->stream);
    const CUresult r = result_of(*e.context);
    return r != CUDA_SUCCESS ? r : CUDA_ERROR_NOT_READY;
  });
}

DRIVER_CALL cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return event_call("cuEventElapsedTime", start, [&](Event& a) {
    if (!events().count(end) || !a.last || !end->last || a.last->capture || end->last->capture || !a.timing ||
        !end->timing) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!a.last->reached || !end->last->reached) {
      return CUDA_ERROR_NOT_READY;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(end->last->when - a.last->when).count();
    return CUDA_SUCCESS;
  });
}

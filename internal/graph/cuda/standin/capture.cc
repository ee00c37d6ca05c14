#include "capture.h"

#include <algorithm>
#include <set>

#include "call.h"
#include "settings.h"
#include "worker.h"

// The captures that have begun and not ended.
static std::vector<std::shared_ptr<Capture>>& captures() {
  static auto* all = new std::vector<std::shared_ptr<Capture>>;
  return *all;
}

CUresult invalidate(Capture& capture, CUresult result) {
  capture.valid = false;
  return result;
}

CUresult refuse_in_capture() {
  CUresult r = CUDA_SUCCESS;
  for (auto& c : captures()) {
    const bool concerned = c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                           (c->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && c->owner == std::this_thread::get_id());
    if (concerned) {
      r = invalidate(*c, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
  }
  return r;
}

CUresult add_node(Stream& stream, std::function<void()> run) {
  Capture& capture = *stream.capture;
  if (!capture.valid) {
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  }
  capture.graph->nodes.push_back({std::move(run), stream.tail});
  stream.tail = {capture.graph->nodes.size() - 1};
  return CUDA_SUCCESS;
}

DRIVER_CALL cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  return driver_call("cuStreamBeginCapture_v2", needs_context, [&] {
    Stream* s = find_stream(current_context(), stream);
    if (!s) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (s == &current_context().legacy) {
      return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    if (s->capture) {
      return CUDA_ERROR_ILLEGAL_STATE;
    }
    s->capture = std::make_shared<Capture>();
    s->capture->origin = s;
    s->capture->mode = mode;
    s->capture->owner = std::this_thread::get_id();
    s->tail.clear();
    captures().push_back(s->capture);
    return CUDA_SUCCESS;
  });
}

// all_joined reports whether all that the streams of a capture did comes before the end of its origin.
static bool all_joined(const Context& context, const Stream& origin) {
  const std::vector<Node>& nodes = origin.capture->graph->nodes;
  std::vector<bool> before(nodes.size(), false);
  for (size_t node : origin.tail) {
    before[node] = true;
  }
  for (size_t i = nodes.size(); i-- > 0;) {
    for (size_t node : nodes[i].after) {
      before[node] = before[node] || before[i];
    }
  }
  for (const Stream* s : context.streams) {
    if (s->capture != origin.capture) {
      continue;
    }
    for (size_t node : s->tail) {
      if (!before[node]) {
        return false;
      }
    }
  }
  return true;
}

static std::set<Graph*>& graphs() {
  static auto* all = new std::set<Graph*>;
  return *all;
}

DRIVER_CALL cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  return driver_call("cuStreamEndCapture", needs_context, [&] {
    Stream* s = find_stream(current_context(), stream);
    if (!s) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!s->capture) {
      return CUDA_ERROR_ILLEGAL_STATE;
    }
    const std::shared_ptr<Capture> capture = s->capture;
    if (capture->origin != s) {
      return invalidate(*capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    }
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->owner != std::this_thread::get_id()) {
      return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    const bool joined = all_joined(*s->context, *s);
    capture->ended = true;
    captures().erase(std::find(captures().begin(), captures().end(), capture));
    for (Stream* other : s->context->streams) {
      if (other->capture == capture) {
        other->capture = nullptr;
        other->tail.clear();
      }
    }
    *graph = nullptr;
    if (!capture->valid) {
      return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    if (!joined) {
      return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    }
    *graph = new Graph(*capture->graph);
    graphs().insert(*graph);
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
  return driver_call("cuGraphGetNodes", needs_context, [&] {
    if (!graphs().count(graph) || nodes) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    *count = graph->nodes.size();
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuGraphDestroy(CUgraph graph) {
  return driver_call("cuGraphDestroy", needs_context, [&] {
    if (!graphs().erase(graph)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    delete graph;
    return CUDA_SUCCESS;
  });
}

static std::set<Executable*>& executables() {
  static auto* all = new std::set<Executable*>;
  return *all;
}

DRIVER_CALL cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
  return driver_call("cuGraphInstantiateWithFlags", needs_context, [&] {
    if (!graphs().count(graph)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    *executable = new Executable{std::make_shared<const Graph>(*graph)};
    executables().insert(*executable);
    return CUDA_SUCCESS;
  });
}

// run_graph runs the nodes in a random one of the orders that the graph allows.
static void run_graph(const Graph& graph, const Context& context) {
  static u64 state = settings_seed() | 1;
  std::vector<size_t> waits(graph.nodes.size());
  std::vector<std::vector<size_t>> next(graph.nodes.size());
  std::vector<size_t> ready;
  for (size_t i = 0; i < graph.nodes.size(); i++) {
    waits[i] = graph.nodes[i].after.size();
    for (size_t node : graph.nodes[i].after) {
      next[node].push_back(i);
    }
    if (waits[i] == 0) {
      ready.push_back(i);
    }
  }
  while (!ready.empty() && !context.failed) {
    std::swap(ready.back(), ready[random_below(state, (u32)ready.size())]);
    const size_t node = ready.back();
    ready.pop_back();
    graph.nodes[node].run();
    for (size_t later : next[node]) {
      if (--waits[later] == 0) {
        ready.push_back(later);
      }
    }
  }
}

DRIVER_CALL cuGraphLaunch(CUgraphExec executable, CUstream stream) {
  return driver_call("cuGraphLaunch", needs_context, [&] {
    Stream* s = find_stream(current_context(), stream);
    if (!s || !executables().count(executable)) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    return enqueue(*s, [graph = executable->graph, context = s->context] { run_graph(*graph, *context); });
  });
}

DRIVER_CALL cuGraphExecDestroy(CUgraphExec executable) {
  return driver_call("cuGraphExecDestroy", needs_context, [&] {
    if (!executables().erase(executable)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    delete executable;
    return CUDA_SUCCESS;
  });
}

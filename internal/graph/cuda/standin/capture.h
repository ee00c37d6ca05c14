// Capture of streams into graphs, and graphs.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "driver.h"

// Node is one piece of work of a graph.
struct Node {
  std::function<void()> run;
  std::vector<size_t> after;  // indices of the nodes it waits for
};

struct Graph {
  std::vector<Node> nodes;  // each after those that it waits for
};

// Executable is a graph that can be launched; it keeps its nodes when the graph is destroyed.
struct Executable {
  std::shared_ptr<const Graph> graph;
};

// Capture is what is captured from one stream and from those that join it.
struct Capture {
  Stream* origin;
  CUstreamCaptureMode mode;
  std::thread::id owner;
  bool valid = true;
  bool ended = false;
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
};

// add_node adds a node to what a capturing stream is captured into.
CUresult add_node(Stream& stream, std::function<void()> run);

// refuse_in_capture turns a call away that may not be made while a stream is captured, and invalidates the capture.
CUresult refuse_in_capture();

// invalidate makes a capture fail, with the result for the call that caused it.
CUresult invalidate(Capture& capture, CUresult result);

//go:build gpu && !cpu

package driver

/*
#include <cuda.h>
*/
import "C"

import (
	"errors"
	"unsafe"

	"gorgonia.org/cu"
)

// Graph is work that was captured from a stream, launched as one: the host pays for
// one call instead of one for each kernel. Addresses and parameters in it are fixed.
type Graph struct {
	Nodes  int // kernels, copies and fills in it
	handle cu.ExecGraph
}

// Capture calls f and takes what it queues in the stream, and in streams that wait
// for events of it and are waited for again, as a graph instead of running it. f
// must not wait for the device. Destroy the graph.
func (s *Stream) Capture(f func() error) (*Graph, error) {
	if code := C.cuStreamBeginCapture(s.c(), C.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL); code != C.CUDA_SUCCESS {
		return nil, coded(code, "cuStreamBeginCapture", "capturing a stream")
	}
	failed := f()
	var graph C.CUgraph
	if code := C.cuStreamEndCapture(s.c(), &graph); code != C.CUDA_SUCCESS && failed == nil {
		failed = coded(code, "cuStreamEndCapture", "capturing a stream")
	}
	if graph == nil {
		if failed == nil {
			failed = errors.New("capturing a stream: nothing was captured")
		}
		return nil, failed
	}
	captured := *(*cu.Graph)(unsafe.Pointer(&graph))
	var g *Graph
	if failed == nil {
		g, failed = instantiate(graph)
	}
	if err := captured.Destroy(); err != nil {
		failed = errors.Join(failed, failure(err, "cuGraphDestroy", "capturing a stream"))
	}
	return g, failed
}

func instantiate(graph C.CUgraph) (*Graph, error) {
	var nodes C.size_t
	if code := C.cuGraphGetNodes(graph, nil, &nodes); code != C.CUDA_SUCCESS {
		return nil, coded(code, "cuGraphGetNodes", "counting what was captured")
	}
	var exec C.CUgraphExec
	if code := C.cuGraphInstantiateWithFlags(&exec, graph, 0); code != C.CUDA_SUCCESS {
		return nil, coded(code, "cuGraphInstantiateWithFlags", "making a graph of %d nodes", int(nodes))
	}
	return &Graph{Nodes: int(nodes), handle: *(*cu.ExecGraph)(unsafe.Pointer(&exec))}, nil
}

// Launch queues a graph. It does not run beside itself.
func (s *Stream) Launch(g *Graph) error {
	if code := C.cuGraphLaunch(g.c(), s.c()); code != C.CUDA_SUCCESS {
		return coded(code, "cuGraphLaunch", "launching a graph of %d nodes", g.Nodes)
	}
	return nil
}

// Destroy gives the graph back; a launch under way is still done.
func (g *Graph) Destroy() error {
	if err := g.handle.Destroy(); err != nil {
		return failure(err, "cuGraphExecDestroy", "ending a graph")
	}
	return nil
}

func (g *Graph) c() C.CUgraphExec { return *(*C.CUgraphExec)(unsafe.Pointer(&g.handle)) }

//go:build !gpu || cpu

// Package cuda is the place of the CUDA backend. This build has none: asking for
// the device, or for a list of them, says so.
package cuda

import "ddpm/internal/graph"

func init() {
	missing := &graph.NotBuilt{Device: "CUDA", Advice: "use --device cpu, or build it with make cuda"}
	graph.RegisterBackend("cuda", func(graph.Options) (graph.Backend, error) { return nil, missing })
	graph.RegisterChecker("cuda", func(graph.Options) ([]graph.KernelCheck, error) { return nil, missing })
	graph.RegisterLister("cuda", func() ([]graph.DeviceInfo, error) { return nil, missing })
}

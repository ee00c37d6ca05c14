//go:build !gpu || cpu

// Package cuda is the place of the CUDA backend. This build has none: asking for
// the device says so.
package cuda

import "ddpm/internal/graph"

func init() {
	graph.RegisterBackend("cuda", func(graph.Options) (graph.Backend, error) {
		return nil, &graph.NotBuilt{Device: "CUDA", Advice: "use --device cpu, or build it with make cuda"}
	})
}

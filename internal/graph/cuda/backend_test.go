//go:build gpu && !cpu

package cuda

import (
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/graphtest"
)

func TestBackend(t *testing.T) {
	for _, p := range []graph.Precision{graph.FP32, graph.TF32, graph.BF16} {
		t.Run(string(p), func(t *testing.T) {
			graphtest.RunAll(t, graphtest.Open(t, "cuda", p))
		})
	}
}

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
			b, err := open(graph.Options{Precision: p})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}()
			graphtest.RunAll(t, b)
		})
	}
}

package cpu

import (
	"testing"

	"ddpm/internal/graph"
)

func TestGuidance(t *testing.T) {
	out := gaussian(2*3*50*60*6, 1)
	checkOperation(t, graph.Twice{}, 0, []graph.Shape{{3, 50, 60, 6}}, out[:len(out)/2])
	for _, rescale := range []float64{0, 0.7} {
		op := graph.Guidance{Channels: 3, Rescale: rescale}
		checkOperation(t, op, 5e-7, []graph.Shape{{6, 50, 60, 6}, {1}}, out, []float32{3})
	}
}

//go:build gpu && !cpu

package model

import (
	"testing"

	"ddpm/internal/graph"
	_ "ddpm/internal/graph/cuda"
)

func openGPU(t *testing.T, p graph.Precision) graph.Backend {
	t.Helper()
	b, _, err := graph.Open("cuda", graph.Options{Precision: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestTinyUNetMatchesPyTorchOnAGPU(t *testing.T) {
	t.Run("fp32", func(t *testing.T) {
		g := openGolden(t)
		program, state := g.run(openGPU(t, graph.FP32), tinyLoss(t, graph.Float32))
		g.compare(program, state)
	})
	for precision, r := range map[graph.Precision]rounded{
		graph.TF32: {eps: [2]float64{1e-5, 2e-3}, loss: 2e-4, grads: 4e-3},
		graph.BF16: {eps: [2]float64{1e-3, 2e-2}, loss: 3e-3, grads: 4e-2},
	} {
		t.Run(string(precision), func(t *testing.T) {
			g := openGolden(t)
			program, state := g.run(openGPU(t, precision), tinyLoss(t, graph.Float32))
			g.compareRounded(program, state, r)
		})
	}
}

func TestTenStepsMatchPyTorchOnAGPU(t *testing.T) { tenSteps(t, openGPU(t, graph.FP32)) }

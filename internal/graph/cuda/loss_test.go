//go:build gpu && !cpu

package cuda

import (
	"testing"

	"ddpm/internal/graph"
)

func TestLosses(t *testing.T) {
	var cases []opTest
	add := func(tolerance float64, out storage, op graph.Op, in ...value) {
		cases = append(cases, opTest{op: op, in: in, out: out, tolerance: tolerance})
	}
	for _, s := range [][]int{{1, 1, 1, 1}, {3, 5, 7, 3}, {2, 16, 16, 3}, {2, 100, 81, 3}, {1, 40, 41, 24}, {2, 3}, {1, 20001}} {
		for _, x := range []storage{float32s, bfloat16s} {
			for _, y := range []storage{float32s, bfloat16s} {
				pred, target := normals(x, s...), spreadOf(y, 0, 1, s...)
				add(2e-6, float32s, graph.SquaredError{}, pred, target)
				add(3e-7, x, graph.SquaredErrorGrad{}, pred, target, normals(float32s, s[0]))
			}
		}
		add(2e-6, float32s, graph.SquaredError{}, shifted(normals(float32s, s...), 4), spreadOf(float32s, 0, 1, s...))
	}
	for _, n := range []int{1, 3, 16, 257, 1000} {
		add(3e-7, float32s, graph.Mean{}, normals(float32s, n))
		add(2e-7, float32s, graph.MeanGrad{N: n}, normals(float32s))
	}
	runAll(t, cases)
}

//go:build gpu && !cpu

package cuda

import (
	"testing"

	"ddpm/internal/graph"
)

func TestGuidance(t *testing.T) {
	var cases []opTest
	add := func(tolerance float64, out storage, op graph.Op, in ...value) {
		cases = append(cases, opTest{op: op, in: in, out: out, tolerance: tolerance})
	}
	weight := func(w float64) value { return value{Operand: graph.Operand{Shape: graph.Shape{1}, Data: []float64{w}}} }
	for _, s := range [][]int{{1, 1, 1, 1}, {3, 5, 7, 3}, {2, 4, 6, 8}, {2, 29, 31, 3}, {3, 2}} {
		for _, stored := range []storage{float32s, bfloat16s} {
			add(0, stored, graph.Twice{}, normals(stored, s...))
			both, k := append([]int{2 * s[0]}, s[1:]...), s[len(s)-1]
			for _, out := range []storage{float32s, stored} {
				add(2e-7, out, graph.Guidance{Channels: k}, normals(stored, both...), weight(3))
				add(2e-7, out, graph.Guidance{Channels: k}, spreadOf(stored, 0, 1, wide(both)...), weight(-1.5))
				add(1e-6, out, graph.Guidance{Channels: k, Rescale: 0.7}, spreadOf(stored, 0, 1, wide(both)...), weight(3))
			}
		}
		both := append([]int{2 * s[0]}, s[1:]...)
		add(1e-6, float32s, graph.Guidance{Channels: 1, Rescale: 1}, shifted(normals(float32s, both...), 4), weight(0.5))
	}
	add(0, bfloat16s, graph.Twice{}, normals(float32s, 3, 2, 2, 8))
	add(0, float32s, graph.Twice{}, shifted(normals(float32s, 3, 5), 4))
	// The deviation is a thousandth of the mean.
	add(3e-6, float32s, graph.Guidance{Channels: 3, Rescale: 1}, spreadOf(float32s, 100, 0.1, 4, 20, 20, 3), weight(2))
	runAll(t, cases)
}

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
		both := normals(float32s, wide(s)...)
		add(2e-6, float32s, graph.SquaredError{}, both, spreadOf(float32s, 0, 1, s...))
		add(2e-6, float32s, graph.SquaredError{}, both, shifted(spreadOf(float32s, 0, 1, s...), 4))
		add(3e-7, float32s, graph.SquaredErrorGrad{}, both, spreadOf(float32s, 0, 1, s...), normals(float32s, s[0]))
		add(3e-7, float32s, graph.SquaredErrorGrad{}, shifted(both, 4), spreadOf(bfloat16s, 0, 1, s...), normals(float32s, s[0]))
	}
	for _, x := range []storage{float32s, bfloat16s} {
		both, target := normals(x, 2, 9, 7, 8), spreadOf(float32s, 0, 1, 2, 9, 7, 4)
		add(2e-6, float32s, graph.SquaredError{}, both, target)
		add(3e-7, x, graph.SquaredErrorGrad{}, both, target, normals(float32s, 2))
	}
	for _, n := range []int{1, 3, 16, 257, 1000} {
		add(3e-7, float32s, graph.Mean{}, normals(float32s, n))
		add(2e-7, float32s, graph.MeanGrad{N: n}, normals(float32s))
	}
	for _, n := range []int{1, 255, 1000} {
		x, dy := spreadOf(float32s, 0, 1, n), normals(float32s, n)
		squares := value{Operand: graph.Operand{Shape: graph.Shape{n}}}
		for _, v := range x.Data {
			squares.Data = append(squares.Data, float32s.round(v*v))
		}
		add(1e-7, float32s, graph.Weigh{}, x, dy)
		cases = append(cases, opTest{op: graph.Weigh{}, in: []value{x, dy}, tolerance: 1e-7, over: 1})
		for _, c := range []float64{0.001, 0.3} {
			add(2e-7, float32s, graph.PseudoHuber{C: c}, squares)
			add(3e-7, float32s, graph.PseudoHuberGrad{C: c}, squares, dy)
		}
	}
	// Where the root less its constant would leave nothing.
	small := value{Operand: graph.Operand{Shape: graph.Shape{2}, Data: []float64{float32s.round(1e-9), 0}}}
	add(2e-7, float32s, graph.PseudoHuber{C: 1}, small)
	runAll(t, cases)
}

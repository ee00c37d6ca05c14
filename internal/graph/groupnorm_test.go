package graph_test

import (
	"fmt"
	"testing"

	"ddpm/internal/graph"
)

// TestGroupNormOfTwoImages holds the normalisation of two images side by side,
// its value and its gradients, against that of their concatenation.
func TestGroupNormOfTwoImages(t *testing.T) {
	for _, silu := range []bool{false, true} {
		for _, groups := range []int{1, 2, 4, 8} { // 2 groups end where the images meet, 1 and 4 do not
			t.Run(fmt.Sprintf("groups=%d,silu=%v", groups, silu), func(t *testing.T) {
				run := func(norm func(b *graph.Builder, x, y, gamma, beta *graph.Node) *graph.Node) (grads, out []float64) {
					b := graph.NewBuilder(graph.Float64)
					param := func(name string, shape ...int) *graph.Node {
						return b.Param(name, graph.Vector, graph.Init{}, shape...)
					}
					z := norm(b, param("x", 2, 3, 2, 3), param("y", 2, 3, 2, 5), param("gamma", 8), param("beta", 8))
					if b.Err() != nil {
						t.Fatal(b.Err())
					}
					loss := b.Mean(b.SquaredError(z, b.Input("target", graph.Float64, 2, 3, 2, 8)))
					g := finish(t, b, loss, map[string]*graph.Node{"loss": loss, "z": z})
					d := define(t, g, feedsFor(g))
					d.run()
					return d.arena(graph.Grads), d.output("z")
				}
				wantGrads, want := run(func(b *graph.Builder, x, y, gamma, beta *graph.Node) *graph.Node {
					return b.GroupNorm(b.Concat(x, y), gamma, beta, groups, 1e-5, silu)
				})
				gotGrads, got := run(func(b *graph.Builder, x, y, gamma, beta *graph.Node) *graph.Node {
					stats := b.Apply(graph.GroupNormStats{Groups: groups, Eps: 1e-5, Concat: true}, x, y)
					return b.Apply(graph.GroupNorm{Groups: groups, SiLU: silu, Concat: true}, x, y, stats, gamma, beta)
				})
				if off, at := furthest(got, want); !(off <= 1e-13) {
					t.Errorf("element %d is %v, want %v", at, got[at], want[at])
				}
				if off, at := furthest(gotGrads, wantGrads); !(off <= 1e-13) {
					t.Errorf("gradient %d is %v, want %v", at, gotGrads[at], wantGrads[at])
				}
			})
		}
	}
}

func TestGroupNormRejectsShapes(t *testing.T) {
	a, b, stats, channels := graph.Shape{2, 4, 4, 3}, graph.Shape{2, 4, 4, 5}, graph.Shape{2, 2, 2}, graph.Shape{8}
	whole, sums := graph.Shape{2, 4, 4, 8}, graph.Shape{2, 2, 8}
	short := graph.Shape{2, 4, 3, 5}
	for _, c := range []struct {
		op graph.Op
		in []graph.Shape
	}{
		{graph.GroupNormStats{Groups: 2, Concat: true}, []graph.Shape{a, short}},
		{graph.GroupNormStats{Groups: 3, Concat: true}, []graph.Shape{a, b}},
		{graph.GroupNormStats{Groups: 2, Concat: true}, []graph.Shape{{2, 3}, {2, 5}}},
		{graph.GroupNorm{Groups: 2, Concat: true}, []graph.Shape{a, short, stats, channels, channels}},
		{graph.GroupNorm{Groups: 2, Concat: true}, []graph.Shape{a, b, stats, channels, {3}}},
		{graph.GroupNorm{Groups: 2}, []graph.Shape{{2, 8}, stats, channels, channels}},
		{graph.GroupNormGradSums{Groups: 2}, []graph.Shape{whole, stats, channels, channels, a}},
		{graph.GroupNormGradSums{Groups: 2, Concat: true}, []graph.Shape{a, b, stats, channels, channels, b}},
		{graph.GroupNormGradSums{Groups: 4}, []graph.Shape{whole, stats, channels, channels, whole}},
		{graph.GroupNormGradData{Groups: 2}, []graph.Shape{whole, stats, channels, channels, whole, {2, 2, 7}}},
		{graph.GroupNormGradData{Groups: 2, Concat: true}, []graph.Shape{a, b, stats, channels, channels, whole, {2, 8}}},
		{graph.GroupNormGradData{Groups: 2, Concat: true}, []graph.Shape{a, short, stats, channels, channels, whole, sums}},
		{graph.GroupNormGradAffine{}, []graph.Shape{{2, 8}}},
	} {
		if s, err := c.op.Infer(c.in); err == nil {
			t.Errorf("%T%+v of %v infers %v, want an error", c.op, c.op, c.in, s)
		}
	}
	// The same with shapes that fit.
	for _, c := range []struct {
		op   graph.Op
		in   []graph.Shape
		want graph.Shape
	}{
		{graph.GroupNormStats{Groups: 2, Concat: true}, []graph.Shape{a, b}, stats},
		{graph.GroupNorm{Groups: 2, Concat: true}, []graph.Shape{a, b, stats, channels, channels}, whole},
		{graph.GroupNormGradSums{Groups: 2, Concat: true}, []graph.Shape{a, b, stats, channels, channels, whole}, sums},
		{graph.GroupNormGradData{Groups: 2, Concat: true}, []graph.Shape{a, b, stats, channels, channels, whole, sums}, whole},
		{graph.GroupNormGradAffine{}, []graph.Shape{sums}, graph.Shape{2, 8}},
	} {
		if s, err := c.op.Infer(c.in); err != nil || !s.Eq(c.want) {
			t.Errorf("%T of %v infers %v, %v, want %v", c.op, c.in, s, err, c.want)
		}
	}
}

package graph_test

import (
	"testing"

	"ddpm/internal/graph"
)

func TestGroupNormRejectsShapes(t *testing.T) {
	a, b, stats, channels := graph.Shape{2, 4, 4, 3}, graph.Shape{2, 4, 4, 5}, graph.Shape{2, 2, 2}, graph.Shape{8}
	whole, sums := graph.Shape{2, 4, 4, 8}, graph.Shape{2, 2, 8}
	short := graph.Shape{2, 4, 3, 5}
	for _, c := range []struct {
		op graph.Op
		in []graph.Shape
	}{
		{graph.Joined{Of: graph.GroupNormStats{Groups: 2}}, []graph.Shape{a, short}},
		{graph.Joined{Of: graph.GroupNormStats{Groups: 3}}, []graph.Shape{a, b}},
		{graph.Joined{Of: graph.GroupNormStats{Groups: 2}}, []graph.Shape{{2, 3}, {2, 5}}},
		{graph.Joined{Of: graph.GroupNorm{Groups: 2}}, []graph.Shape{a, short, stats, channels, channels}},
		{graph.Joined{Of: graph.GroupNorm{Groups: 2}}, []graph.Shape{a, b, stats, channels, {3}}},
		{graph.GroupNorm{Groups: 2}, []graph.Shape{{2, 8}, stats, channels, channels}},
		{graph.GroupNormGradSums{Groups: 2}, []graph.Shape{whole, stats, channels, channels, a}},
		{graph.Joined{Of: graph.GroupNormGradSums{Groups: 2}}, []graph.Shape{a, b, stats, channels, channels, b}},
		{graph.GroupNormGradSums{Groups: 4}, []graph.Shape{whole, stats, channels, channels, whole}},
		{graph.GroupNormGradData{Groups: 2}, []graph.Shape{whole, stats, channels, channels, whole, {2, 2, 7}}},
		{graph.Joined{Of: graph.GroupNormGradData{Groups: 2}}, []graph.Shape{a, b, stats, channels, channels, whole, {2, 8}}},
		{graph.Joined{Of: graph.GroupNormGradData{Groups: 2}}, []graph.Shape{a, short, stats, channels, channels, whole, sums}},
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
		{graph.Joined{Of: graph.GroupNormStats{Groups: 2}}, []graph.Shape{a, b}, stats},
		{graph.Joined{Of: graph.GroupNorm{Groups: 2}}, []graph.Shape{a, b, stats, channels, channels}, whole},
		{graph.Joined{Of: graph.GroupNormGradSums{Groups: 2}}, []graph.Shape{a, b, stats, channels, channels, whole}, sums},
		{graph.Joined{Of: graph.GroupNormGradData{Groups: 2}}, []graph.Shape{a, b, stats, channels, channels, whole, sums}, whole},
		{graph.GroupNormGradAffine{}, []graph.Shape{sums}, graph.Shape{2, 8}},
	} {
		if s, err := c.op.Infer(c.in); err != nil || !s.Eq(c.want) {
			t.Errorf("%T of %v infers %v, %v, want %v", c.op, c.in, s, err, c.want)
		}
	}
}

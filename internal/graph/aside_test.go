package graph_test

import (
	"slices"
	"testing"

	"ddpm/internal/graph"
)

// count is how many instructions of a plan leave something for statistics, for sums of
// gradients and for plain ones, and how many find what was left for them.
func count(p *graph.Plan) (stats, sums, plain, found int) {
	for _, in := range p.Instructions {
		if len(in.Found) > 0 {
			found++
		}
		if in.Aside == nil {
			continue
		}
		switch heart, _ := graph.Unfuse(in.Aside.Op); heart.(type) {
		case graph.GroupNormStats:
			stats++
		case graph.GroupNormGradSums:
			sums++
		case graph.SumPixels:
			plain++
		}
	}
	return stats, sums, plain, found
}

func TestNormalisationsFindWhatIsLeft(t *testing.T) {
	g := networkGraph(t, graph.Float32, "resnet")
	stats, sums, plain, found := count(compile(t, g, leaving{}))
	norms := 0
	for _, in := range compile(t, g, scratchy{}).Instructions {
		if _, ok := in.Op.(graph.GroupNormStats); ok {
			norms++
		}
	}
	if stats == 0 || sums == 0 || plain == 0 || found <= norms {
		t.Errorf("of %d normalisations, %d instructions leave statistics, %d sums of gradients, %d plain ones, and %d find some",
			norms, stats, sums, plain, found)
	}
}

// joining also reads two images side by side.
type joining struct{ leaving }

func (joining) Fuses(op graph.Op, _ []graph.Shape) bool {
	_, f := graph.Unfuse(op)
	return f == graph.Fusion{Joined: true}
}

func (joining) Leaves(op graph.Op, _ graph.Shape, _ []graph.Shape, _ graph.Op, _ []graph.Shape) int {
	if _, ok := op.(graph.Conv2D); ok {
		return 32
	}
	return 0
}

// skipped is a network whose first convolution is normalised twice: alone, and beside
// the second convolution; twice beside itself if same.
func skipped(t *testing.T, same bool) *graph.Graph {
	b := graph.NewBuilder(graph.Float32)
	conv := func(name string, x *graph.Node, from, to int) *graph.Node {
		b := b.Scope(name)
		w := b.Param("weight", graph.ConvWeight, graph.Init{}, 3, 3, from, to)
		return b.Conv(graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}, x, w, b.Param("bias", graph.Vector, graph.Init{}, to))
	}
	norm := func(name string, x *graph.Node, c int) *graph.Node {
		b := b.Scope(name)
		gamma, beta := b.Param("weight", graph.Vector, graph.Init{}, c), b.Param("bias", graph.Vector, graph.Init{}, c)
		return b.GroupNorm(x, gamma, beta, 2, 1e-5, true)
	}
	first := conv("first", b.Input("x", graph.Float32, 2, 4, 4, 3), 3, 4)
	alone := norm("alone", first, 4)
	second := conv("second", alone, 4, 4)
	if same {
		second = first
	}
	return finish(t, b, nil, map[string]*graph.Node{"out": norm("beside", b.Concat(second, first), 8), "alone": alone})
}

func TestPartsOfOneNormalisation(t *testing.T) {
	var found []int
	var first graph.Ref
	plan := compile(t, skipped(t, false), joining{})
	for _, in := range plan.Instructions {
		if _, f := graph.Unfuse(in.Op); len(in.Found) > 0 {
			found = append(found, len(in.Found))
			if !f.Joined {
				first = in.Found[0]
			} else if in.Found[0].Offset == first.Offset || in.Found[1].Offset != first.Offset {
				t.Errorf("want what the second convolution left, then what the first left at %d, have %+v", first.Offset, in.Found)
			}
		}
	}
	if !slices.Equal(found, []int{1, 2}) {
		t.Errorf("normalisations find things of %v convolutions, want 1, then 2", found)
	}
	// Of an image beside itself nothing is left: it would be left twice.
	for _, in := range compile(t, skipped(t, true), joining{}).Instructions {
		if _, f := graph.Unfuse(in.Op); f.Joined && len(in.Found) > 0 {
			t.Errorf("%T finds %+v", in.Op, in.Found)
		}
	}
}

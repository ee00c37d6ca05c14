package graph_test

import (
	"context"
	"math"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/reference"
	"ddpm/internal/rng"
)

// normals are n reproducible standard normal numbers.
func normals(n int, sequence uint32) []float64 {
	z := make([]float32, n)
	rng.Key{Seed: 1, Stream: rng.Noise, Step: sequence}.Normals(z)
	wide := make([]float64, n)
	for i, v := range z {
		wide[i] = float64(v)
	}
	return wide
}

func finish(t *testing.T, b *graph.Builder, loss *graph.Node, outputs map[string]*graph.Node) *graph.Graph {
	t.Helper()
	g, err := b.Finish(loss, outputs)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func compile(t *testing.T, g *graph.Graph, b graph.Backend) *graph.Plan {
	t.Helper()
	plan, err := graph.Compile(g, b)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// definition is a graph run by its definition, in float64 throughout.
type definition struct {
	t       *testing.T
	graph   *graph.Graph
	state   *reference.State
	program graph.Program
	feeds   graph.Feeds
}

// define loads a graph; its weights are normal numbers until they are set.
func define(t *testing.T, g *graph.Graph, feeds graph.Feeds) *definition {
	t.Helper()
	return definePlan(t, compile(t, g, reference.Backend{}), feeds)
}

// definePlan is define for a plan, whatever device it was made for.
func definePlan(t *testing.T, plan *graph.Plan, feeds graph.Feeds) *definition {
	t.Helper()
	g := plan.Graph
	state, err := reference.Backend{}.NewState(g.Layout, true)
	if err != nil {
		t.Fatal(err)
	}
	program, err := reference.Backend{}.Load(plan, state, graph.Params)
	if err != nil {
		t.Fatal(err)
	}
	d := &definition{t, g, state.(*reference.State), program, feeds}
	for i, p := range g.Layout.Params {
		copy(d.arena(graph.Params)[p.Offset:], normals(p.Len, uint32(100+i)))
	}
	return d
}

func (d *definition) arena(a graph.Arena) []float64 { return d.state.Arenas[a] }

func (d *definition) run() {
	d.t.Helper()
	if err := d.program.Run(context.Background(), d.feeds); err != nil {
		d.t.Fatal(err)
	}
}

// output is a named output of the last run, unrounded.
func (d *definition) output(name string) []float64 {
	d.t.Helper()
	v, err := d.program.(interface {
		Output64(name string) ([]float64, error)
	}).Output64(name)
	if err != nil {
		d.t.Fatal(err)
	}
	return v
}

// loss runs the graph and returns its output "loss".
func (d *definition) loss() float64 {
	d.t.Helper()
	d.run()
	return d.output("loss")[0]
}

// furthest is the largest |got-want|, relative to the largest |want|, and where.
func furthest(got, want []float64) (distance float64, at int) {
	var scale float64
	for i, w := range want {
		scale = max(scale, math.Abs(w))
		if d := math.Abs(got[i] - w); d > distance || math.IsNaN(d) {
			distance, at = d, i
		}
	}
	if distance == 0 {
		return 0, 0
	}
	return distance / scale, at
}

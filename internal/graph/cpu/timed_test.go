package cpu

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/rng"
)

var _ graph.Timed = (*program)(nil)

// A timed run computes what a run does.
func TestRunTimed(t *testing.T) {
	b := New(2, isa.Detect())
	defer b.Close()
	builder := graph.NewBuilder(graph.Float32)
	x := builder.Input("x", graph.Float32, 2, 64)
	y := builder.Input("y", graph.Float32, 2, 64)
	sum := builder.Apply(graph.Add{}, x, y)
	w, bias := builder.Param("w", graph.LinearWeight, graph.Init{}, 64, 64), builder.Param("bias", graph.Vector, graph.Init{}, 64)
	g, err := builder.Finish(nil, map[string]*graph.Node{"out": builder.Linear(sum, w, bias)})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := graph.Compile(g, b)
	if err != nil {
		t.Fatal(err)
	}
	state, err := b.NewState(g.Layout, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := state.Write(graph.Params, gaussian(g.Layout.Size, 3)); err != nil {
		t.Fatal(err)
	}
	p, err := b.Load(plan, state, graph.Params)
	if err != nil {
		t.Fatal(err)
	}
	timed := p.(graph.Timed)
	normal := func(n int, sample uint32) []float32 {
		v := make([]float32, n)
		rng.Key{Stream: rng.Noise, Sample: sample}.Normals(v)
		return v
	}
	feeds := graph.Feeds{"x": normal(2*64, 1), "y": normal(2*64, 2)}
	out := func() []float32 {
		v := make([]float32, 2*64)
		if err := p.Output("out", v); err != nil {
			t.Fatal(err)
		}
		return v
	}

	spent := make([]time.Duration, len(plan.Instructions))
	for i := range spent {
		spent[i] = -1
	}
	if err := timed.RunTimed(t.Context(), feeds, spent); err != nil {
		t.Fatal(err)
	}
	if slices.Min(spent) < 0 {
		t.Errorf("not every instruction is timed: %v", spent)
	}
	got := out()
	feeds["y"] = normal(2*64, 3)
	if err := p.Run(t.Context(), feeds); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(out(), got) {
		t.Error("other operands give the same result")
	}
	feeds["y"] = normal(2*64, 2)
	if err := p.Run(t.Context(), feeds); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(out(), got) {
		t.Error("Run and RunTimed differ")
	}

	if err := timed.RunTimed(t.Context(), feeds, spent[1:]); err == nil {
		t.Error("no error where there is no room for the times")
	}
	if err := timed.RunTimed(t.Context(), graph.Feeds{}, spent); err == nil {
		t.Error("no error without operands")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := timed.RunTimed(ended, feeds, spent); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

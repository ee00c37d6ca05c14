// Package graphtest is the test every backend passes: each operation on shapes
// that find off-by-one errors, whole networks, and the contract of states and
// programs, all against package reference. A backend's test is one line:
//
//	func TestBackend(t *testing.T) { graphtest.RunAll(t, backend) }
//
// Inputs come from package rng, so a failure is the same on every machine.
package graphtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/reference"
)

// testCase is one check. It returns what is wrong instead of failing a test, so
// that the suite itself can be tested on backends that are wrong on purpose.
type testCase struct {
	name string
	run  func(b graph.Backend) error
}

// suite is every case, named group/subject/variant.
func suite() []testCase {
	return slices.Concat(opCases(), networkCases(), stateCases(), programCases(), stepCases())
}

// RunAll tests a backend.
func RunAll(t *testing.T, b graph.Backend) {
	for _, c := range suite() {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(b); err != nil {
				t.Error(err)
			}
		})
	}
}

// Open opens a device for a test, which closes it.
func Open(t *testing.T, device string, p graph.Precision) graph.Backend {
	t.Helper()
	b, _, err := graph.Open(device, graph.Options{Precision: p})
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

// loaded is a graph loaded on a backend.
type loaded struct {
	backend graph.Backend
	graph   *graph.Graph
	plan    *graph.Plan
	state   graph.State
	program graph.Program
}

// open compiles a graph, makes a state for it and loads it on Params, filled
// with weights unless they are nil.
func open(b graph.Backend, g *graph.Graph, weights []float32) (*loaded, error) {
	state, err := b.NewState(g.Layout, g.Trains())
	if err != nil {
		return nil, fmt.Errorf("new state: %w", err)
	}
	if weights != nil {
		if err := state.Write(graph.Params, weights); err != nil {
			return nil, fmt.Errorf("write weights: %w", err)
		}
	}
	return openOn(b, g, state, graph.Params)
}

// openOn compiles a graph and loads it on an arena of a state.
func openOn(b graph.Backend, g *graph.Graph, state graph.State, weights graph.Arena) (*loaded, error) {
	plan, err := graph.Compile(g, b)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	program, err := b.Load(plan, state, weights)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return &loaded{b, g, plan, state, program}, nil
}

func (s *loaded) close() error { return errors.Join(s.program.Close(), s.state.Close()) }

// run runs the program once and returns its outputs by name.
func (s *loaded) run(feeds graph.Feeds) (map[string][]float32, error) {
	if err := s.program.Run(context.Background(), feeds); err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	return s.outputs()
}

func (s *loaded) outputs() (map[string][]float32, error) {
	values := map[string][]float32{}
	for _, o := range s.graph.Outputs {
		values[o.Name] = make([]float32, s.plan.Outputs[o.Name].Len())
		if err := s.program.Output(o.Name, values[o.Name]); err != nil {
			return nil, fmt.Errorf("output: %w", err)
		}
	}
	return values, nil
}

func (s *loaded) read(a graph.Arena) ([]float32, error) {
	values := make([]float32, s.state.Layout().Size)
	if err := s.state.Read(a, values); err != nil {
		return nil, fmt.Errorf("read %v: %w", a, err)
	}
	return values, nil
}

// tolerance is relative to the largest value compared, and a backend's precision
// chooses it.
type tolerance struct{ fp32, tf32, bf16 float64 }

func (t tolerance) of(b graph.Backend) float64 {
	switch b.Precision() {
	case graph.TF32:
		return t.tf32
	case graph.BF16:
		return t.bf16
	}
	return t.fp32
}

// pair is a graph loaded on the backend under test and on the reference, with
// the same weights.
type pair struct{ got, want *loaded }

func openPair(b graph.Backend, g *graph.Graph, weights []float32) (*pair, error) {
	want, err := open(reference.Backend{}, g, weights)
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	got, err := open(b, g, weights)
	if err != nil {
		return nil, err
	}
	return &pair{got, want}, nil
}

// withPair runs f on a pair and closes it.
func withPair(b graph.Backend, g *graph.Graph, weights []float32, f func(p *pair) error) error {
	p, err := openPair(b, g, weights)
	if err != nil {
		return err
	}
	return errors.Join(f(p), p.got.close(), p.want.close())
}

// compareRun runs both and compares every output, with the tolerance of the
// backend's precision.
func (p *pair) compareRun(feeds graph.Feeds, t tolerance) error {
	allowed := t.of(p.got.backend)
	want, err := p.want.run(feeds)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	got, err := p.got.run(feeds)
	if err != nil {
		return err
	}
	var wrong []error
	for _, o := range p.got.graph.Outputs {
		wrong = append(wrong, compare(o.Name, o.Shape, got[o.Name], want[o.Name], allowed, 0))
	}
	return errors.Join(wrong...)
}

// compareArena compares an arena parameter by parameter, and checks that the
// gaps between parameters are zero. Values below floor times the largest of the
// arena, zero but for rounding, are held against that floor.
func (p *pair) compareArena(a graph.Arena, t tolerance, floor float64) error {
	allowed := t.of(p.got.backend)
	want, err := p.want.read(a)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	got, err := p.got.read(a)
	if err != nil {
		return err
	}
	least := floor * largest(want)
	var wrong []error
	end := 0
	gap := func(to int) {
		if i := slices.IndexFunc(got[end:to], func(v float32) bool { return v != 0 }); i >= 0 {
			wrong = append(wrong, fmt.Errorf("%v: element %d, between parameters, is %v and not zero", a, end+i, got[end+i]))
		}
	}
	for _, spec := range p.got.graph.Layout.Params {
		gap(spec.Offset)
		end = spec.Offset + spec.Len
		name := fmt.Sprintf("%v of %s", a, spec.Name)
		wrong = append(wrong, compare(name, spec.Shape, got[spec.Offset:end], want[spec.Offset:end], allowed, least))
	}
	gap(len(got))
	return summary(wrong)
}

// summary joins the first errors and counts the others: a mistake near the loss
// shows in every gradient.
func summary(errs []error) error {
	const shown = 5
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if more := len(errs) - shown; more > 0 {
		errs = append(errs[:shown:shown], fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}

func largest(values []float32) float64 {
	var most float64
	for _, v := range values {
		most = max(most, math.Abs(float64(v)))
	}
	return most
}

// compare reports the worst element of got if it is off by more than tolerance
// times the largest of want, or times least if that is larger. A NaN is wrong
// whatever the tolerance.
func compare(name string, shape graph.Shape, got, want []float32, tolerance, least float64) error {
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d values, want %d", name, len(got), len(want))
	}
	scale := max(largest(want), least)
	worst, at := -1.0, 0
	for i, w := range want {
		d := math.Abs(float64(got[i]) - float64(w))
		if math.IsNaN(d) {
			d = math.Inf(1)
		}
		if d > worst {
			worst, at = d, i
		}
	}
	if worst <= tolerance*scale {
		return nil
	}
	return fmt.Errorf("%s %v: worst at %v: have %v, want %v: off by %.2g of the largest value %.3g, allowed %.2g",
		name, shape, coordinates(shape, at), got[at], want[at], worst/scale, scale, tolerance)
}

// coordinates is the index, in each dimension, of element i.
func coordinates(shape graph.Shape, i int) []int {
	at := make([]int, len(shape))
	for d := len(shape) - 1; d >= 0; d-- {
		at[d] = i % shape[d]
		i /= shape[d]
	}
	return at
}

// sameBits reports the first element whose bits differ.
func sameBits(name string, got, want []float32) error {
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) {
			return fmt.Errorf("%s: element %d is %v, was %v: not the same bits", name, i, got[i], w)
		}
	}
	return nil
}

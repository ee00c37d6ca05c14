// Package reference is the slow truth: a backend that runs every operation by
// its definition, in float64. Other backends are tested against it, and it is
// what gradient checks differentiate. It is not offered to users.
package reference

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"ddpm/internal/graph"
)

// Backend runs plans by definition. The zero value is ready to use.
type Backend struct{}

func (Backend) Name() string { return "reference: float64 definitions" }

func (Backend) Precision() graph.Precision { return graph.FP32 }

func (Backend) Workspace(graph.Op, graph.Shape, []graph.Shape, bool) (scratch, kept int) {
	return 0, 0
}

func (Backend) Close() error { return nil }

// NewState returns a *State.
func (Backend) NewState(l *graph.Layout, training bool) (graph.State, error) {
	s := &State{layout: l, training: training}
	arenas := s.Arenas[:graph.EMA+1]
	if training {
		arenas = s.Arenas[:]
		s.sum = make([]float64, l.Size)
	}
	for i := range arenas {
		arenas[i] = make([]float64, l.Size)
	}
	return s, nil
}

// State holds every arena in float64, open to tests.
type State struct {
	Arenas   [5][]float64 // by graph.Arena; those of training may be absent
	layout   *graph.Layout
	training bool
	sum      []float64
	summed   bool
}

func (s *State) Layout() *graph.Layout { return s.layout }

var errNoTraining = errors.New("reference: the state was made without training")

func (s *State) has(a graph.Arena) error {
	if !s.training && a > graph.EMA {
		return fmt.Errorf("%w: it has no %v", errNoTraining, a)
	}
	return nil
}

func (s *State) Read(a graph.Arena, dst []float32) error {
	if err := s.has(a); err != nil {
		return err
	}
	for i, v := range s.Arenas[a] {
		dst[i] = float32(v)
	}
	return nil
}

func (s *State) Write(a graph.Arena, src []float32) error {
	if err := s.has(a); err != nil {
		return err
	}
	for i, v := range src {
		s.Arenas[a][i] = float64(v)
	}
	return nil
}

func (s *State) Accumulate(first bool, scale float64) error {
	if !s.training {
		return errNoTraining
	}
	if first {
		clear(s.sum)
	}
	s.summed = true
	for i, g := range s.Arenas[graph.Grads] {
		s.sum[i] += scale * g
	}
	return nil
}

func (s *State) Update(u graph.Update) (float64, error) {
	if !s.training {
		return 0, errNoTraining
	}
	grads := s.Arenas[graph.Grads]
	if s.summed {
		grads, s.summed = s.sum, false
	}
	var norm float64
	for _, g := range grads {
		norm += g * g
	}
	norm = math.Sqrt(norm)
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return norm, nil
	}
	clip := 1.0
	if u.Clip > 0 {
		clip = min(1, u.Clip/(norm+1e-6))
	}
	rate := u.LR / (1 - math.Pow(u.Beta1, float64(u.Step)))
	correction := math.Sqrt(1 - math.Pow(u.Beta2, float64(u.Step)))
	p, ema := s.Arenas[graph.Params], s.Arenas[graph.EMA]
	m, v := s.Arenas[graph.AdamM], s.Arenas[graph.AdamV]
	for i, g := range grads {
		g *= clip
		m[i] = u.Beta1*m[i] + (1-u.Beta1)*g
		v[i] = u.Beta2*v[i] + (1-u.Beta2)*g*g
		p[i] -= rate * m[i] / (math.Sqrt(v[i])/correction + u.Eps)
		ema[i] = u.EMADecay*ema[i] + (1-u.EMADecay)*p[i]
	}
	return norm, nil
}

func (s *State) Close() error { return nil }

// Load returns a program that interprets the plan.
func (Backend) Load(p *graph.Plan, s graph.State, weights graph.Arena) (graph.Program, error) {
	state, ok := s.(*State)
	if !ok || !state.layout.Equal(p.Graph.Layout) {
		return nil, fmt.Errorf("reference: the plan was made for another network than the state")
	}
	if p.Graph.Trains() && !state.training {
		return nil, errNoTraining
	}
	return &program{plan: p, state: state, weights: weights, arena: make([]float64, p.Arena)}, nil
}

type program struct {
	plan    *graph.Plan
	state   *State
	weights graph.Arena
	arena   []float64
	feeds   [][]float64
}

func (p *program) Run(ctx context.Context, feeds graph.Feeds) error {
	p.feeds = p.feeds[:0]
	for _, in := range p.plan.Graph.Inputs {
		from, carried, err := p.plan.Carried(in, feeds)
		if err != nil {
			return err
		}
		if carried {
			p.feeds = append(p.feeds, slices.Clone(p.at(from)))
			continue
		}
		v, err := graph.Widen(in, feeds)
		if err != nil {
			return err
		}
		p.feeds = append(p.feeds, v)
	}
	for _, in := range p.plan.Instructions {
		if err := ctx.Err(); err != nil {
			return err
		}
		operands := make([]graph.Operand, len(in.In))
		for i, r := range in.In {
			operands[i] = graph.Operand{Shape: r.Shape, Data: p.at(r)}
		}
		// Definitions may not write over their operands; plans may.
		out := graph.Operand{Shape: in.Out.Shape, Data: make([]float64, in.Out.Len())}
		in.Op.Eval(out, operands)
		copy(p.at(in.Out), out.Data)
	}
	return nil
}

func (p *program) at(r graph.Ref) []float64 {
	memory := p.arena
	switch r.Space {
	case graph.Weights:
		memory = p.state.Arenas[p.weights]
	case graph.Gradients:
		memory = p.state.Arenas[graph.Grads]
	case graph.Fed:
		return p.feeds[r.Offset]
	case graph.Constant:
		return []float64{r.Value}
	}
	return memory[r.Offset : r.Offset+r.Len()]
}

func (p *program) Output(name string, dst []float32) error {
	data, err := p.Output64(name)
	if err != nil {
		return err
	}
	if len(dst) != len(data) {
		return fmt.Errorf("reference: output %q has %d values, not %d", name, len(data), len(dst))
	}
	for i, v := range data {
		dst[i] = float32(v)
	}
	return nil
}

// Output64 returns a named output of the last run unrounded.
func (p *program) Output64(name string) ([]float64, error) {
	r, ok := p.plan.Outputs[name]
	if !ok {
		return nil, fmt.Errorf("reference: no output %q", name)
	}
	return p.at(r), nil
}

func (p *program) Close() error { return nil }

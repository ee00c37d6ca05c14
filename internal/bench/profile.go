package bench

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"ddpm/internal/graph"
)

// profile adds up the time of operations, each the least it took in any step, for
// whatever else the machine did meanwhile is not theirs.
type profile struct {
	rows  []Op
	rowOf []int           // by instruction
	spent []time.Duration // by instruction, in one run of the program
	step  []time.Duration // by row, in the step so far
	rest  time.Duration   // what is left of a step, of that which has least left

	update, sum int // rows of the optimiser and of adding up gradients
}

// newProfile prepares the profile of steps that run a plan a number of times.
func newProfile(plan *graph.Plan, b graph.Backend, runs int) *profile {
	w := workOf(plan, b, runs)
	p := &profile{
		rows: w.rows, rowOf: w.rowOf, rest: math.MaxInt64, update: w.update, sum: w.sum,
		spent: make([]time.Duration, len(w.rowOf)), step: make([]time.Duration, len(w.rows)),
	}
	for i := range p.rows {
		p.rows[i].Time = math.MaxInt64
	}
	return p
}

// lap ends a step that took so long in all.
func (p *profile) lap(wall time.Duration) {
	if p == nil {
		return
	}
	for i := range p.rows {
		p.rows[i].Time = min(p.rows[i].Time, p.step[i])
		wall -= p.step[i]
	}
	p.rest = min(p.rest, max(wall, 0))
	p.forget()
}

// forget drops the step so far.
func (p *profile) forget() {
	if p != nil {
		clear(p.step)
	}
}

// ops are the rows, the longest first, and what is left of a step. Of steps without
// clocks between the operations the fastest took so long in all; where it leaves less
// than those with clocks, that counts.
func (p *profile) ops(fastest time.Duration) []Op {
	left := fastest
	for _, op := range p.rows {
		left -= op.Time
	}
	rest := Op{Group: restGroup, Kind: restGroup, Time: min(p.rest, max(left, 0))}
	rows := append(slices.Clone(p.rows), rest)
	var total time.Duration
	for _, op := range rows {
		total += op.Time
	}
	for i := range rows {
		rows[i].Share = rows[i].Time.Seconds() / total.Seconds()
	}
	slices.SortStableFunc(rows, func(a, b Op) int { return cmp.Compare(b.Time, a.Time) })
	return rows
}

// watchBackend is a backend whose programs report the time of their
// instructions. It is for loading alone: a plan is compiled for b itself.
func (p *profile) watchBackend(b graph.Backend) graph.Backend { return watchedBackend{b, p} }

// watchState is a state that reports the time of its own work.
func (p *profile) watchState(s graph.State) graph.State { return watchedState{s, p} }

type watchedBackend struct {
	graph.Backend
	profile *profile
}

func (b watchedBackend) Load(plan *graph.Plan, s graph.State, weights graph.Arena) (graph.Program, error) {
	if watched, ok := s.(watchedState); ok {
		s = watched.State
	}
	program, err := b.Backend.Load(plan, s, weights)
	if err != nil {
		return nil, err
	}
	timed, ok := program.(graph.Timed)
	if !ok {
		return nil, fmt.Errorf("%s does not time single operations", b.Name())
	}
	return watchedProgram{program, timed, b.profile}, nil
}

type watchedProgram struct {
	graph.Program
	timed   graph.Timed
	profile *profile
}

func (w watchedProgram) Run(ctx context.Context, feeds graph.Feeds) error {
	p := w.profile
	if err := w.timed.RunTimed(ctx, feeds, p.spent); err != nil {
		return err
	}
	for i, spent := range p.spent {
		p.step[p.rowOf[i]] += spent
	}
	return nil
}

type watchedState struct {
	graph.State
	profile *profile
}

func (s watchedState) Update(u graph.Update) (float64, error) {
	start := time.Now()
	norm, err := s.State.Update(u)
	s.profile.step[s.profile.update] += time.Since(start)
	return norm, err
}

func (s watchedState) Accumulate(first bool, scale float64) error {
	start := time.Now()
	err := s.State.Accumulate(first, scale)
	s.profile.step[s.profile.sum] += time.Since(start)
	return err
}

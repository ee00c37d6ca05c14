package cpu

import (
	"errors"
	"fmt"
	"math"

	"ddpm/internal/graph"
)

// state is a network's arenas in main memory.
type state struct {
	engine *engine
	layout *graph.Layout
	arenas [5][]float32 // by graph.Arena; nil where there is none
	sum    []float32    // of gradients; made when first needed
	summed bool         // since the last update
	// version changes whenever weights do.
	version int
	add     func(first bool, scale float32)

	update [2]update // from the gradients, and from their sum
}

var errNotTraining = errors.New("cpu: the state was made without training")

// update is an optimiser bound to one arena of gradients.
type update struct {
	norm func() float64
	step func(u graph.Update, clip float64)
}

// NewState allocates the arenas.
func (b *Backend) NewState(l *graph.Layout, training bool) (graph.State, error) {
	s := &state{engine: b.engine, layout: l}
	kinds := []graph.Arena{graph.Params, graph.EMA}
	if training {
		kinds = append(kinds, graph.Grads, graph.AdamM, graph.AdamV)
	}
	for _, a := range kinds {
		s.arenas[a] = make([]float32, l.Size)
	}
	if training {
		s.update[0] = s.bind(s.arenas[graph.Grads])
	}
	return s, nil
}

func (s *state) bind(grads []float32) update {
	a := &s.arenas
	return update{
		s.engine.gradNorm(grads),
		s.engine.adamStep(a[graph.Params], grads, a[graph.AdamM], a[graph.AdamV], a[graph.EMA]),
	}
}

func (s *state) Layout() *graph.Layout { return s.layout }

func (s *state) Read(a graph.Arena, dst []float32) error { return s.transfer(a, dst, true) }

func (s *state) Write(a graph.Arena, src []float32) error { return s.transfer(a, src, false) }

func (s *state) transfer(a graph.Arena, host []float32, read bool) error {
	arena := s.arenas[a]
	if len(arena) != len(host) {
		return fmt.Errorf("cpu: %v: %d values for an arena of %d", a, len(host), len(arena))
	}
	if read {
		copy(host, arena)
	} else {
		copy(arena, host)
		s.version++
	}
	return nil
}

func (s *state) Accumulate(first bool, scale float64) error {
	grads := s.arenas[graph.Grads]
	if grads == nil {
		return errNotTraining
	}
	if s.sum == nil {
		s.sum = make([]float32, s.layout.Size)
		s.update[1] = s.bind(s.sum)
		s.add = s.engine.addScaled(s.sum, grads)
	}
	s.summed = true
	s.add(first, float32(scale))
	return nil
}

// addScaled returns a function that computes sum += scale*x, or sum = scale*x
// where it is the first.
func (e *engine) addScaled(sum, x []float32) func(first bool, scale float32) {
	var factor float32
	run := forRange(e.pool, len(sum), grain, func(from, to int) {
		e.vec.AddScaled(sum[from:to], factor, x[from:to])
	})
	return func(first bool, scale float32) {
		if first {
			clear(sum)
		}
		factor = scale
		run()
	}
}

func (s *state) Update(u graph.Update) (float64, error) {
	optimiser := s.update[0]
	if s.summed {
		optimiser, s.summed = s.update[1], false
	}
	if optimiser.norm == nil {
		return 0, errNotTraining
	}
	norm := optimiser.norm()
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return norm, nil
	}
	clip := 1.0
	if u.Clip > 0 {
		clip = min(1, u.Clip/(norm+1e-6))
	}
	optimiser.step(u, clip)
	s.version++
	return norm, nil
}

func (s *state) Close() error { return nil }

package graphtest

import (
	"errors"
	"fmt"
	"math"

	"ddpm/internal/graph"
)

// updated is the tolerance of arenas after some steps of Adam, relative to
// their largest value: a few roundings a step.
var updated = tolerance{2e-6, 2e-6, 2e-6}

var arenas = []graph.Arena{graph.Params, graph.EMA, graph.Grads, graph.AdamM, graph.AdamV}

// states is a state of the backend under test and one of the reference.
type states struct {
	*pair
	layout *graph.Layout
}

// bag is a graph that trains parameters of awkward sizes.
func bag() (*graph.Graph, error) {
	b := graph.NewBuilder(graph.Float32)
	var all *graph.Node
	total := 0
	for i, n := range []int{1, 16, 17, 5003, 31, 40000, 3} {
		p := b.Param(fmt.Sprintf("p%d", i), graph.Vector, graph.Init{Bound: 1}, n)
		total += n
		if all == nil {
			all = p
		} else {
			all = b.Concat(all, p)
		}
	}
	loss := b.Mean(b.SquaredError(all, b.Input("target", graph.Float32, total)))
	return b.Finish(loss, nil)
}

// arena is the k-th of a sequence of normal arenas, zero between parameters.
func arena(l *graph.Layout, k int, std float32) []float32 {
	values := make([]float32, l.Size)
	for i, p := range l.Params {
		copy(values[p.Offset:], spread(0, std, p.Len).feed(1000*k+i).([]float32))
	}
	return values
}

func (s states) write(a graph.Arena, values []float32) error {
	return errors.Join(s.got.state.Write(a, values), s.want.state.Write(a, values))
}

// reset gives both states the same weights and moments; v is not negative.
func (s states) reset() error {
	m, v := arena(s.layout, 3, 0.1), arena(s.layout, 4, 0.1)
	for i := range v {
		v[i] *= v[i]
	}
	return errors.Join(
		s.write(graph.Params, arena(s.layout, 1, 1)), s.write(graph.EMA, arena(s.layout, 2, 1)),
		s.write(graph.AdamM, m), s.write(graph.AdamV, v),
	)
}

func (s states) accumulate(first bool, scale float64) error {
	return errors.Join(s.got.state.Accumulate(first, scale), s.want.state.Accumulate(first, scale))
}

// update makes one step on both and compares the norms.
func (s states) update(u graph.Update) error { return s.updateWithin(u, updated) }

func (s states) updateWithin(u graph.Update, t tolerance) error {
	want, err := s.want.state.Update(u)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	got, err := s.got.state.Update(u)
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	if !(math.Abs(got-want) <= t.of(s.got.backend)*want) {
		return fmt.Errorf("step %d: gradient norm %v, want %v", u.Step, got, want)
	}
	return nil
}

// compare compares everything that Update writes.
func (s states) compare() error {
	var wrong []error
	for _, a := range []graph.Arena{graph.Params, graph.EMA, graph.AdamM, graph.AdamV} {
		wrong = append(wrong, s.compareArena(a, updated, vanishing))
	}
	return errors.Join(wrong...)
}

func stateCases() []testCase {
	onStates := func(name string, f func(s states) error) testCase {
		return testCase{"states/" + name, func(b graph.Backend) error {
			g, err := bag()
			if err != nil {
				return err
			}
			return withPair(b, g, nil, func(p *pair) error { return f(states{p, g.Layout}) })
		}}
	}
	cases := []testCase{
		onStates("start_at_zero", startAtZero),
		onStates("read_what_was_written", readWhatWasWritten),
		onStates("ignore_a_gradient_that_is_not_finite", ignoreNotFinite),
		onStates("forget_a_sum_that_is_not_finite", forgetNotFinite),
		onStates("accumulate", accumulateParts),
		{"states/without_training", withoutTraining},
	}
	for _, clip := range []float64{0, 1, 1e6} {
		cases = append(cases, onStates(fmt.Sprintf("ten_updates_clipped_to_%g", clip), func(s states) error {
			return tenUpdates(s, clip)
		}))
	}
	return cases
}

func startAtZero(s states) error {
	var wrong []error
	for _, a := range arenas {
		values, err := s.got.read(a)
		if err != nil {
			return err
		}
		wrong = append(wrong, sameBits("new "+a.String(), values, make([]float32, s.layout.Size)))
	}
	return errors.Join(wrong...)
}

func readWhatWasWritten(s states) error {
	for k, a := range arenas {
		if err := s.got.state.Write(a, arena(s.layout, k, 1)); err != nil {
			return err
		}
	}
	var wrong []error
	for k, a := range arenas {
		values, err := s.got.read(a)
		if err != nil {
			return err
		}
		wrong = append(wrong, sameBits(a.String(), values, arena(s.layout, k, 1)))
	}
	return errors.Join(wrong...)
}

// tenUpdates takes gradients of norms from about 0.2 to 2000, so that a clip of
// 1 bites on some steps only, from moments of zero.
func tenUpdates(s states, clip float64) error {
	if err := s.write(graph.Params, arena(s.layout, 9, 1)); err != nil {
		return err
	}
	for step := 1; step <= 10; step++ {
		std := float32(math.Pow(10, float64(step%5-3)))
		if err := s.write(graph.Grads, arena(s.layout, 10+step, std)); err != nil {
			return err
		}
		u := graph.Update{
			Step: step, LR: 1e-2 / float64(step), Beta1: 0.9, Beta2: 0.99, Eps: 1e-8,
			Clip: clip, EMADecay: 0.9 * (1 - 1/float64(step)),
		}
		if err := s.update(u); err != nil {
			return err
		}
	}
	return s.compare()
}

// smoothAdam is a step whose result depends smoothly on the gradient: with the
// usual Eps the first step is almost its sign.
var smoothAdam = graph.Update{Step: 3, LR: 1e-2, Beta1: 0.9, Beta2: 0.99, Eps: 1e-2, Clip: 50, EMADecay: 0.5}

func ignoreNotFinite(s states) error {
	if err := s.reset(); err != nil {
		return err
	}
	written := []graph.Arena{graph.Params, graph.EMA, graph.AdamM, graph.AdamV}
	before := map[graph.Arena][]float32{}
	for _, a := range written {
		values, err := s.got.read(a)
		if err != nil {
			return err
		}
		before[a] = values
	}
	last := s.layout.Params[len(s.layout.Params)-1]
	var wrong []error
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, at := range []int{0, s.layout.Params[5].Offset + 20000, last.Offset + last.Len - 1} {
			grads := arena(s.layout, 5, 1)
			grads[at] = float32(bad)
			if err := s.write(graph.Grads, grads); err != nil {
				return err
			}
			norm, err := s.got.state.Update(smoothAdam)
			if err != nil {
				return fmt.Errorf("update with a gradient of %v: %w", bad, err)
			}
			if !math.IsNaN(norm) && !math.IsInf(norm, 0) {
				wrong = append(wrong, fmt.Errorf("a gradient of %v has norm %v", bad, norm))
			}
			for _, a := range written {
				after, err := s.got.read(a)
				if err != nil {
					return err
				}
				wrong = append(wrong, sameBits(fmt.Sprintf("%v after a gradient of %v at %d", a, bad, at), after, before[a]))
			}
		}
	}
	// Training goes on.
	if err := errors.Join(s.write(graph.Grads, arena(s.layout, 5, 1)), s.update(smoothAdam)); err != nil {
		return err
	}
	return errors.Join(append(wrong, s.compare())...)
}

func forgetNotFinite(s states) error {
	bad := arena(s.layout, 5, 1)
	bad[17] = float32(math.NaN())
	if err := errors.Join(s.reset(), s.write(graph.Grads, bad), s.accumulate(true, 1)); err != nil {
		return err
	}
	if norm, err := s.got.state.Update(smoothAdam); err != nil || !math.IsNaN(norm) {
		return fmt.Errorf("a sum with NaN has norm %v and error %v", norm, err)
	}
	if _, err := s.want.state.Update(smoothAdam); err != nil {
		return err
	}
	return errors.Join(s.write(graph.Grads, arena(s.layout, 6, 1)), s.update(smoothAdam), s.compare())
}

// accumulateParts checks that a sum of parts is used like a gradient equal to
// the sum, once, and that a first part starts anew.
func accumulateParts(s states) error {
	first, second := arena(s.layout, 5, 1), arena(s.layout, 6, 1)
	err := errors.Join(
		s.reset(),
		s.write(graph.Grads, second), s.accumulate(true, 5),
		s.write(graph.Grads, first), s.accumulate(true, 0.25),
		s.write(graph.Grads, second), s.accumulate(false, 0.75),
		s.update(smoothAdam),
		s.compare(),
	)
	if err != nil {
		return err
	}
	parts, err := s.got.read(graph.Params)
	if err != nil {
		return err
	}

	sum := make([]float32, len(first))
	for i := range sum {
		sum[i] = 0.25*first[i] + 0.75*second[i]
	}
	if err := errors.Join(s.reset(), s.write(graph.Grads, sum), s.update(smoothAdam), s.compare()); err != nil {
		return fmt.Errorf("their sum: %w", err)
	}
	whole, err := s.got.read(graph.Params)
	if err != nil {
		return err
	}
	alike := compare("weights after the parts and after their sum", graph.Shape{len(whole)}, parts, whole, updated.fp32, 0)
	return errors.Join(alike, s.write(graph.Grads, arena(s.layout, 7, 1)), s.update(smoothAdam), s.compare())
}

// withoutTraining checks a state that only samples: the arenas of training are
// refused, not imagined.
func withoutTraining(b graph.Backend) error {
	g, err := bag()
	if err != nil {
		return err
	}
	state, err := b.NewState(g.Layout, false)
	if err != nil {
		return err
	}
	var wrong []error
	for k, a := range arenas {
		written := arena(g.Layout, k, 1)
		writing := state.Write(a, written)
		values := make([]float32, g.Layout.Size)
		reading := state.Read(a, values)
		if a == graph.Params || a == graph.EMA {
			wrong = append(wrong, writing, reading, sameBits(a.String(), values, written))
		} else if writing == nil || reading == nil {
			wrong = append(wrong, fmt.Errorf("%v of a state without training can be written (%v) or read (%v)", a, writing, reading))
		}
	}
	if err := state.Accumulate(true, 1); err == nil {
		wrong = append(wrong, errors.New("a state without training accumulates"))
	}
	if _, err := state.Update(smoothAdam); err == nil {
		wrong = append(wrong, errors.New("a state without training updates"))
	}
	if _, err := openOn(b, g, state, graph.Params); err == nil {
		wrong = append(wrong, errors.New("a plan that trains loads on a state without training"))
	}
	return errors.Join(append(wrong, state.Close())...)
}

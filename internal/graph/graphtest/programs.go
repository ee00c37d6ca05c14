package graphtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"ddpm/internal/graph"
	"ddpm/internal/graph/reference"
)

func programCases() []testCase {
	cases := []testCase{
		{"repeat_bit_for_bit", repeatBitForBit},
		{"run_on_averaged_weights", runOnAveragedWeights},
		{"see_weights_change", seeWeightsChange},
		{"share_a_state", shareState},
		{"accumulate_halves_of_a_batch", accumulateHalves},
		{"refuse_wrong_feeds", refuseWrongFeeds},
		{"refuse_a_wrong_output", refuseWrongOutput},
		{"refuse_another_network", refuseAnotherNetwork},
		{"stop_when_cancelled", stopWhenCancelled},
		{"do_not_allocate", doNotAllocate},
	}
	for i := range cases {
		cases[i].name = "programs/" + cases[i].name
	}
	return cases
}

// first is the network that program cases run: it has every operation.
var first = networks[0].config

func trainingPair(b graph.Backend, batch int, f func(p *pair) error) error {
	g, err := trainingGraph(first, batch)
	if err != nil {
		return err
	}
	return withPair(b, g, weightsOf(g.Layout), f)
}

// results are the outputs of a run and its gradients.
func (s *loaded) results(feeds graph.Feeds) (map[string][]float32, error) {
	values, err := s.run(feeds)
	if err != nil {
		return nil, err
	}
	values["gradients"], err = s.read(graph.Grads)
	return values, err
}

func sameResults(got, want map[string][]float32) error {
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(want)) {
		wrong = append(wrong, sameBits(name, got[name], want[name]))
	}
	return errors.Join(wrong...)
}

func repeatBitForBit(b graph.Backend) error {
	return trainingPair(b, 3, func(p *pair) error {
		once, err := p.got.results(trainingFeeds(0, 3))
		if err != nil {
			return err
		}
		if _, err := p.got.results(trainingFeeds(3, 3)); err != nil {
			return err
		}
		again, err := p.got.results(trainingFeeds(0, 3))
		if err != nil {
			return err
		}
		other, err := openOn(b, p.got.graph, p.got.state, graph.Params)
		if err != nil {
			return err
		}
		elsewhere, err := other.results(trainingFeeds(0, 3))
		if err != nil {
			return err
		}
		return errors.Join(sameResults(again, once), sameResults(elsewhere, once), other.program.Close())
	})
}

// onEMA loads the pair's graph on the averaged weights of its states.
func (p *pair) onEMA(b graph.Backend) (*pair, error) {
	want, err := openOn(reference.Backend{}, p.want.graph, p.want.state, graph.EMA)
	if err != nil {
		return nil, err
	}
	got, err := openOn(b, p.got.graph, p.got.state, graph.EMA)
	if err != nil {
		return nil, err
	}
	return &pair{got, want}, nil
}

func (p *pair) write(a graph.Arena, values []float32) error {
	return errors.Join(p.got.state.Write(a, values), p.want.state.Write(a, values))
}

func runOnAveragedWeights(b graph.Backend) error {
	g, err := samplingGraph(first, 2)
	if err != nil {
		return err
	}
	return withPair(b, g, arena(g.Layout, 1, 0.1), func(p *pair) error {
		averaged, err := p.onEMA(b)
		if err != nil {
			return err
		}
		return errors.Join(
			p.write(graph.EMA, weightsOf(g.Layout)),
			averaged.compareRun(samplingFeeds(2), predicted),
			p.compareRun(samplingFeeds(2), predicted),
			averaged.got.program.Close(),
		)
	})
}

// seeWeightsChange checks that a program makes no use of old weights or values,
// packed for its kernels for example, whether or not it may keep some; with one
// image there is one sequence to attend to, whose packed keys are still there in
// the next run.
func seeWeightsChange(b graph.Backend) error {
	return errors.Join(
		weightsChange(b, 2, false), weightsChange(b, 2, true),
		weightsChange(b, 1, false), weightsChange(b, 1, true))
}

func weightsChange(b graph.Backend, batch int, keep bool) error {
	g, err := trainingGraph(first, batch)
	if err != nil {
		return err
	}
	g.KeepWeights = keep
	return withPair(b, g, weightsOf(g.Layout), func(p *pair) error {
		averaged, err := p.onEMA(b)
		if err != nil {
			return err
		}
		feeds := trainingFeeds(0, batch)
		both := func(when string) error {
			if err := errors.Join(p.compareRun(feeds, predicted), averaged.compareRun(feeds, predicted)); err != nil {
				return fmt.Errorf("%s: %w", when, err)
			}
			return nil
		}
		l := p.got.graph.Layout
		if err := errors.Join(p.write(graph.EMA, arena(l, 1, 0.1)), both("at first")); err != nil {
			return err
		}
		// An Eps of 1 keeps the sign of gradients that are zero but for rounding
		// out of the weights.
		u := graph.Update{Step: 1, LR: 1, Beta1: 0.9, Beta2: 0.99, Eps: 1, EMADecay: 0.5}
		if err := (states{p, l}).updateWithin(u, gradients); err != nil {
			return err
		}
		if err := both("after Update"); err != nil {
			return err
		}
		err = errors.Join(p.write(graph.Params, arena(l, 2, 0.1)), p.write(graph.EMA, arena(l, 3, 0.1)))
		return errors.Join(err, both("after Write"), averaged.got.program.Close())
	})
}

// shareState runs a training and a sampling program in turn on one state.
func shareState(b graph.Backend) error {
	return trainingPair(b, 2, func(p *pair) error {
		g, err := samplingGraph(first, 3)
		if err != nil {
			return err
		}
		got, err := openOn(b, g, p.got.state, graph.Params)
		if err != nil {
			return err
		}
		want, err := openOn(reference.Backend{}, g, p.want.state, graph.Params)
		if err != nil {
			return err
		}
		sampling := &pair{got, want}
		var wrong []error
		for range 2 {
			wrong = append(wrong,
				p.compareRun(trainingFeeds(0, 2), predicted),
				sampling.compareRun(samplingFeeds(3), predicted),
				p.compareArena(graph.Grads, gradients, vanishing),
			)
		}
		return errors.Join(append(wrong, got.program.Close())...)
	})
}

// accumulateHalves compares Adam's first moment, linear in the gradient, after
// a whole batch and after its halves, both on the backend under test.
func accumulateHalves(b graph.Backend) error {
	u := graph.Update{Step: 1, LR: 1e-3, Beta1: 0.5, Beta2: 0.99, Eps: 1}
	return trainingPair(b, 4, func(whole *pair) error {
		return trainingPair(b, 2, func(half *pair) error {
			if _, err := whole.got.run(trainingFeeds(0, 4)); err != nil {
				return err
			}
			if _, err := whole.got.state.Update(u); err != nil {
				return err
			}
			for i := range 2 {
				if _, err := half.got.run(trainingFeeds(2*i, 2)); err != nil {
					return err
				}
				if err := half.got.state.Accumulate(i == 0, 0.5); err != nil {
					return err
				}
			}
			if _, err := half.got.state.Update(u); err != nil {
				return err
			}
			return (&pair{got: half.got, want: whole.got}).compareArena(graph.AdamM, gradients, vanishing)
		})
	})
}

func refuseWrongFeeds(b graph.Backend) error {
	return trainingPair(b, 2, func(p *pair) error {
		var wrong []error
		for _, in := range p.got.graph.Inputs {
			good := trainingFeeds(0, 2)[in.Name]
			var long, short, other any
			switch v := good.(type) {
			case []float32:
				long, short, other = append(v[:len(v):len(v)], 0), v[1:], make([]float64, len(v)+1)
			case []uint8:
				long, short, other = append(v[:len(v):len(v)], 0), v[1:], make([]float32, len(v))
			case []uint32:
				long, short, other = append(v[:len(v):len(v)], 0), v[1:], make([]uint8, len(v))
			}
			for _, bad := range []struct {
				what, name string
				value      any
			}{
				{"missing", "not " + in.Name, good},
				{"too long", in.Name, long},
				{"too short", in.Name, short},
				{"of another type", in.Name, other},
			} {
				feeds := trainingFeeds(0, 2)
				delete(feeds, in.Name)
				feeds[bad.name] = bad.value
				if err := p.got.program.Run(context.Background(), feeds); err == nil {
					wrong = append(wrong, fmt.Errorf("input %q %s is not an error", in.Name, bad.what))
				} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", in.Name)) {
					wrong = append(wrong, fmt.Errorf("input %q %s: the error does not name it: %w", in.Name, bad.what, err))
				}
			}
		}
		return errors.Join(append(wrong, p.compareRun(trainingFeeds(0, 2), predicted))...)
	})
}

func refuseWrongOutput(b graph.Backend) error {
	return trainingPair(b, 1, func(p *pair) error {
		if _, err := p.got.run(trainingFeeds(0, 1)); err != nil {
			return err
		}
		if err := p.got.program.Output("nonesuch", make([]float32, 1)); err == nil {
			return errors.New("an output that the graph does not have is not an error")
		}
		if err := p.got.program.Output("loss", make([]float32, 2)); err == nil {
			return errors.New("an output read into a slice of another size is not an error")
		}
		return nil
	})
}

func refuseAnotherNetwork(b graph.Backend) error {
	return trainingPair(b, 1, func(p *pair) error {
		g, err := samplingGraph(networks[1].config, 1)
		if err != nil {
			return err
		}
		if _, err := openOn(b, g, p.got.state, graph.Params); err == nil {
			return errors.New("a plan loads on the state of another network")
		}
		return nil
	})
}

func stopWhenCancelled(b graph.Backend) error {
	return trainingPair(b, 1, func(p *pair) error {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := p.got.program.Run(ctx, trainingFeeds(0, 1)); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a run that was cancelled returns %v, want %w", err, context.Canceled)
		}
		return p.compareRun(trainingFeeds(0, 1), predicted)
	})
}

// doNotAllocate checks that a step allocates nothing but the first time. The
// reference is excused: it is not for use.
func doNotAllocate(b graph.Backend) error {
	if _, excused := b.(reference.Backend); excused {
		return nil
	}
	return trainingPair(b, 2, func(p *pair) error {
		feeds := trainingFeeds(0, 2)
		var wrong []error
		for _, part := range []struct {
			name string
			run  func() error
		}{
			{"Run", func() error { return p.got.program.Run(context.Background(), feeds) }},
			{"Accumulate", func() error { return p.got.state.Accumulate(true, 1) }},
			{"Update", func() error { _, err := p.got.state.Update(smoothAdam); return err }},
		} {
			n, err := allocations(part.run)
			if err == nil && n > 0 {
				err = fmt.Errorf("%d allocations", n)
			}
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", part.name, err))
			}
		}
		return errors.Join(wrong...)
	})
}

// allocations is how often a function allocates on each call after the first.
func allocations(f func() error) (int, error) {
	if err := f(); err != nil {
		return 0, err
	}
	const calls = 10
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		if err := f(); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	// Rounding down leaves out what the runtime itself allocates now and then.
	return int(after.Mallocs-before.Mallocs) / calls, nil
}

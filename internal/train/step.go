package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"ddpm/internal/data"
	"ddpm/internal/graph"
)

// stepper makes optimiser steps: it has a Feeder feed the device, which runs the network
// forward, backward and through Adam.
type stepper struct {
	cfg    Config
	feeder Feeder
	steps  graph.Step

	cycle  int // steps of a stage; 0 is the whole run
	part   int // images of a part
	values int // of an image
}

// newStepper loads a step's plan on a state.
func newStepper(s Setup, plan *graph.Plan, state graph.State) (*stepper, error) {
	feeder, err := s.objective().Open(s, state)
	if err != nil {
		return nil, err
	}
	steps, err := graph.LoadStep(s.Backend, plan, state, s.Train.Accumulate)
	if err != nil {
		return nil, errors.Join(err, feeder.Close())
	}
	cycle := 0
	if staged, ok := s.objective().(Staged); ok {
		cycle = staged.StageSteps()
	}
	return &stepper{
		cfg: s.Train, feeder: feeder, steps: steps, cycle: cycle,
		part: s.Train.Batch / s.Train.Accumulate, values: s.Size.Values(),
	}, nil
}

// errDiverged is wrapped by the error of a step whose loss or gradient is not
// finite.
var errDiverged = errors.New("training diverged")

// result is what one step reports.
type result struct {
	loss     float64
	gradNorm float64
	lr       float64
}

// stage hands the device what step k, from 0, needs. Where the feeder works ahead, a
// step in progress goes on beside it.
func (s *stepper) stage(ctx context.Context, k int, batch *data.Batch) error {
	if err := s.feeder.Begin(ctx, k); err != nil {
		return err
	}
	for i := range s.cfg.Accumulate {
		first, end := i*s.part, (i+1)*s.part
		feeds, err := s.feeder.Feed(ctx, k, first, batch.Images[first*s.values:end*s.values], batch.Labels[first:end])
		if err != nil {
			return err
		}
		if err := s.steps.Stage(i, feeds); err != nil {
			return err
		}
	}
	return nil
}

// start starts step k, which was staged.
func (s *stepper) start(ctx context.Context, k int) error { return s.steps.Start(ctx, s.update(k)) }

// wait ends step k. If the loss or the gradient is not finite, nothing has
// changed and it returns an error.
func (s *stepper) wait(k int) (result, error) {
	r, err := s.steps.Wait()
	if err != nil {
		return result{}, err
	}
	what, value := "the loss", r.Loss
	if r.Part < 0 {
		what, value, r.Part = "the gradient norm", r.GradNorm, s.cfg.Accumulate-1
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return result{}, fmt.Errorf("%w: %s is %v at step %d, with t = %s", errDiverged, what, value, k+1, s.timesteps(k, r.Part))
	}
	if r.Losses != nil {
		s.feeder.Observe(k, r.Losses)
	}
	return result{r.Loss, r.GradNorm, s.update(k).LR}, nil
}

// update is the optimiser's part of step k, as if each stage were a run.
func (s *stepper) update(k int) graph.Update {
	c := s.cfg
	if s.cycle > 0 {
		c.Steps, k = s.cycle, k%s.cycle
	}
	return c.update(k)
}

// timesteps lists the t of a part of step k.
func (s *stepper) timesteps(k, part int) string {
	const most = 16
	var words []string
	for i, t := range s.feeder.Timesteps(k, part*s.part, s.part) {
		if i == most {
			words = append(words, "...")
			break
		}
		words = append(words, strconv.Itoa(t))
	}
	return strings.Join(words, " ")
}

// close frees what the steps run in.
func (s *stepper) close() error { return errors.Join(s.steps.Close(), s.feeder.Close()) }

// update is the optimiser's part of step k, from 0.
func (c Config) update(k int) graph.Update {
	return graph.Update{
		Step: k + 1, LR: c.learningRate(k), Beta1: c.Beta1, Beta2: c.Beta2, Eps: c.AdamEps,
		Clip: c.Clip, EMADecay: c.emaDecay(k),
	}
}

// learningRate is that of step k, from 0: a linear warm-up times the decay.
func (c Config) learningRate(k int) float64 {
	lr := c.LR
	if k < c.Warmup {
		lr *= float64(k+1) / float64(c.Warmup)
	}
	if c.Decay == "cosine" {
		lr *= 0.5 * (1 + math.Cos(math.Pi*float64(k)/float64(c.Steps)))
	}
	return lr
}

// emaDecay is that of step k, from 0. It starts small, so that the average
// forgets the initial weights.
func (c Config) emaDecay(k int) float64 {
	return min(c.EMA, float64(1+k)/float64(10+k))
}

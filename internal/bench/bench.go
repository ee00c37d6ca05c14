// Package bench times what a run spends its time on: the training step and the
// sampling step, on made-up images, and each operation in them.
//
// The steps are those of package train and package generate; nothing but what
// they need is allocated, so that the peak memory of the process is that of a
// step.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"

	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// Modes are the steps there are. Where both are timed in one process, sampling
// comes first: it takes less memory, and the peak is that of the process.
var Modes = []string{"sample", "train"}

// Options are what to time.
type Options struct {
	// Setup is the run whose steps are timed: the training step on Train.Batch
	// images, the sampling step on Batch.
	train.Setup
	Warmup int // steps before those that are timed
	Steps  int // timed; 0 is as many as fit a few seconds
	Ops    bool
}

// Run times one of Modes.
func Run(ctx context.Context, mode string, o Options) (*Result, error) {
	if mode == "train" {
		return trainingStep(ctx, o)
	}
	return samplingStep(ctx, o)
}

// trainingStep times all that a run does in a step but reading data: draw t and
// noise, noise the images, forward and backward pass, and the optimiser's step
// with its clip and average.
func trainingStep(ctx context.Context, o Options) (r *Result, err error) {
	work, err := forwardFlops(o.Setup)
	if err != nil {
		return nil, err
	}
	plan, err := train.CompileStep(o.Setup)
	if err != nil {
		return nil, err
	}
	layout := plan.Graph.Layout
	if err := graph.CheckMemory(o.Backend, 4*int64(5*layout.Size+plan.Arena+plan.Kept)); err != nil {
		return nil, fmt.Errorf("a training step of %d images: %w", o.Train.Batch, err)
	}
	state, err := weighted(o, layout, graph.Params, graph.EMA)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()

	watch := newStopwatch(o)
	if o.Ops {
		if watch.profile, err = newProfile(plan, o.Train.Accumulate); err != nil {
			return nil, err
		}
		state = watch.profile.watchState(state)
		o.Backend = watch.profile.watchBackend(o.Backend)
	}
	stepper, err := train.NewStepper(o.Setup, plan, state)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stepper.Close()) }()

	images := make([]byte, o.Train.Batch*o.Size.Values())
	pixels := rand.New(rand.NewPCG(o.Seed, 0))
	for i := range images {
		images[i] = byte(pixels.Uint32())
	}
	watch.start()
	for k := 0; !watch.done(); k++ {
		if _, err := stepper.Step(ctx, k, images); err != nil {
			return nil, err
		}
		watch.lap()
	}
	watch.stop()
	const backward = 2 // times the work of the forward pass
	return watch.result("train", o.Train.Batch, work, (1+backward)*work), nil
}

// errTimed ends a sampler that has made enough steps.
var errTimed = errors.New("enough steps are timed")

// samplingStep times what drawing images does again and again: the network's
// forward pass on the averaged weights, and the sampler's update.
func samplingStep(ctx context.Context, o Options) (r *Result, err error) {
	work, err := forwardFlops(o.Setup)
	if err != nil {
		return nil, err
	}
	s := o.Setup
	schedule, err := sched.New(s.Diffusion)
	if err != nil {
		return nil, err
	}
	if schedule.T() < 2 {
		return nil, fmt.Errorf("diffusion.t %d: a sampling step leads from one t to another: want at least 2", schedule.T())
	}
	prediction, err := sched.ParsePrediction(s.Diffusion.Prediction)
	if err != nil {
		return nil, err
	}
	g, err := model.Reverse(s.Model, s.Size, s.Batch, s.Sample.Clip)
	if err != nil {
		return nil, err
	}
	plan, err := graph.Compile(g, s.Backend)
	if err != nil {
		return nil, err
	}
	if err := graph.CheckMemory(s.Backend, 4*int64(g.Layout.Size+plan.Arena+plan.Kept)); err != nil {
		return nil, fmt.Errorf("a sampling step of %d images: %w", s.Batch, err)
	}
	state, err := weighted(o, g.Layout, graph.EMA)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()

	watch := newStopwatch(o)
	if o.Ops {
		if watch.profile, err = newProfile(plan, 1); err != nil {
			return nil, err
		}
		s.Backend = watch.profile.watchBackend(s.Backend)
	}
	reverse, err := generate.LoadReverse(s.Backend, plan, state, graph.EMA)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, reverse.Close()) }()

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	sampler := s.Sample
	sampler.Steps = schedule.T() // no end before the steps are timed, if possible
	gen := generate.Generator{
		Reverse: reverse, Schedule: schedule, Prediction: prediction, Config: sampler, Seed: s.Seed,
		// From one call of the network to the next is a step; the last one of an
		// image has no other behind it.
		OnMoment: func(m generate.Moment) error {
			if m.Step == 1 {
				watch.start()
				return nil
			}
			watch.lap()
			if watch.done() {
				stop(errTimed)
			}
			if watch.done() || m.Step == m.Steps {
				watch.stop()
			}
			return nil
		},
	}
	x := make([]float32, s.Batch*s.Size.Values())
	for !watch.done() {
		gen.Prior(x, 0)
		if err := gen.Sample(ctx, x, 0); err != nil && context.Cause(ctx) != errTimed {
			return nil, err
		}
	}
	return watch.result("sample", s.Batch, work, work), nil
}

// forwardFlops is the work of the network's forward pass on an image.
func forwardFlops(s train.Setup) (int64, error) {
	g, err := model.Inference(s.Model, s.Size, 1)
	if err != nil {
		return 0, err
	}
	plan, err := graph.Compile(g, s.Backend)
	if err != nil {
		return 0, err
	}
	return plan.Flops(), nil
}

// weighted is a state with fresh weights in some of its arenas; one that trains
// if the weights themselves are among them.
func weighted(o Options, l *graph.Layout, arenas ...graph.Arena) (graph.State, error) {
	state, err := o.Backend.NewState(l, arenas[0] == graph.Params)
	if err != nil {
		return nil, err
	}
	weights := l.InitialWeights(o.Seed)
	for _, a := range arenas {
		if err := state.Write(a, weights); err != nil {
			return nil, errors.Join(err, state.Close())
		}
	}
	weights = nil
	debug.FreeOSMemory() // they are not part of a step
	return state, nil
}

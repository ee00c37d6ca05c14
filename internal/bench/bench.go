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
	"time"

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
	// Ops asks for the time of each operation too. It is taken in as many steps after
	// those that are timed, as clocks between operations take time themselves.
	Ops bool

	begun time.Time
}

// Run times one of Modes.
func Run(ctx context.Context, mode string, o Options) (*Result, error) {
	o.begun = time.Now()
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
	memory := memoryOf(plan, o.Backend, o.Train.Accumulate)
	if err := graph.CheckMemory(o.Backend, memory); err != nil {
		return nil, fmt.Errorf("a training step of %d images: %w", o.Train.Batch, err)
	}
	state, err := weighted(o, plan.Graph.Layout, graph.Params, graph.EMA)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()

	watch := newStopwatch(o)
	if err := trainingSteps(ctx, o, plan, state, watch); err != nil {
		return nil, err
	}
	const backward = 2 // times the work of the forward pass
	r = watch.result("train", o.Train.Batch, work, (1+backward)*work)
	r.setDeviceMemory(o.Backend, memory)
	if o.Ops {
		watch := o.profile(plan, o.Train.Accumulate)
		if err := trainingSteps(ctx, o, plan, watch.profile.watchState(state), watch); err != nil {
			return nil, err
		}
		r.Ops = watch.profile.ops(r.Step.Least)
	}
	return r, nil
}

// profile has the steps that follow run on a backend that times the operations of a
// plan, which runs so many times in a step.
func (o *Options) profile(plan *graph.Plan, runs int) *stopwatch {
	p := newProfile(plan, o.Backend, runs)
	o.Backend = p.watchBackend(o.Backend)
	debug.FreeOSMemory() // what the steps before took
	w := newStopwatch(*o)
	w.profile = p
	return w
}

// trainingSteps makes steps until enough are timed.
func trainingSteps(ctx context.Context, o Options, plan *graph.Plan, state graph.State, watch *stopwatch) (err error) {
	stepper, err := train.NewStepper(o.Setup, plan, state)
	if err != nil {
		return err
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
			return err
		}
		watch.lap(1)
	}
	watch.stop()
	return nil
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
	s.Sample = generate.Resolve(s.Sample, s.Diffusion, s.Model)
	schedule, err := sched.New(s.Diffusion)
	if err != nil {
		return nil, err
	}
	if schedule.T() < 2 {
		return nil, fmt.Errorf("diffusion.t %d: a sampling step leads from one t to another: want at least 2", schedule.T())
	}
	parametrization, err := s.Diffusion.Parametrization()
	if err != nil {
		return nil, err
	}
	plan, err := samplingPlan(s)
	if err != nil {
		return nil, err
	}
	memory := memoryOf(plan, s.Backend, 1)
	if err := graph.CheckMemory(s.Backend, memory); err != nil {
		return nil, fmt.Errorf("a sampling step of %d images: %w", s.Batch, err)
	}
	state, err := weighted(o, plan.Graph.Layout, graph.EMA)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()

	gen := generate.Generator{Schedule: schedule, Parametrization: parametrization, Config: s.Sample, Seed: s.Seed}
	gen.Config.Steps = schedule.T() // no end before the steps are timed, if possible
	watch := newStopwatch(o)
	if err := samplingSteps(ctx, o, plan, state, gen, watch); err != nil {
		return nil, err
	}
	calls := int64(1)
	if generate.Guided(s.Sample, s.Model) {
		calls = 2
	}
	r = watch.result("sample", s.Batch, work, calls*work)
	r.setDeviceMemory(s.Backend, memory)
	if o.Ops {
		watch := o.profile(plan, 1)
		if err := samplingSteps(ctx, o, plan, state, gen, watch); err != nil {
			return nil, err
		}
		r.Ops = watch.profile.ops(r.Step.Least)
	}
	return r, nil
}

// samplingSteps makes steps until enough are timed.
func samplingSteps(ctx context.Context, o Options, plan *graph.Plan, state graph.State, gen generate.Generator, watch *stopwatch) (err error) {
	gen.Reverse, err = generate.LoadReverse(o.Backend, plan, state, graph.EMA, o.Model)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.Reverse.Close()) }()

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	steps := 0 // since the last lap
	// From one call of the network to the next is a step; the last one of an image
	// has no other behind it. Where the device runs behind the host, what the host
	// sees is when a step was asked for, so a lap is of several steps and a wait.
	gen.OnMoment = func(m generate.Moment) error {
		if m.Step > 1 {
			steps++
		}
		last := m.Step == m.Steps
		if m.Step > 1 && steps < watch.stride() && !last {
			return nil
		}
		if err := wait(o.Backend); err != nil {
			return err
		}
		if m.Step == 1 {
			watch.finished()
			watch.start()
			return nil
		}
		watch.lap(steps)
		steps = 0
		if watch.done() {
			stop(errTimed)
		}
		if watch.done() || last {
			watch.stop()
		}
		return nil
	}
	x := make([]float32, o.Batch*o.Size.Values())
	for !watch.done() {
		gen.Prior(x, 0)
		if err := gen.Sample(ctx, x, 0); err != nil && context.Cause(ctx) != errTimed {
			return err
		}
	}
	return nil
}

// wait waits for a device that runs behind the host.
func wait(b graph.Backend) error {
	if ahead, ok := b.(graph.Ahead); ok {
		return ahead.Wait()
	}
	return nil
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

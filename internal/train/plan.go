package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ddpm/internal/data"
	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/sched"
)

// Plan is a run worked out on paper: both of its networks are compiled, so that
// every byte and every operation is known, and nothing is allocated.
type Plan struct {
	Setup
	Layout *graph.Layout
	// Step is the forward and backward pass of a part of a batch; Preview is the
	// step of the reverse process that draws sample grids.
	Step, Preview *graph.Plan

	schedule        *sched.Schedule
	parametrization sched.Parametrization
	besides         []Memory // of the objective
}

// NewPlan compiles the networks of a run for its backend.
func NewPlan(s Setup) (*Plan, error) {
	s.Sample = generate.Resolve(s.Sample, s.Diffusion, s.Model)
	p := &Plan{Setup: s}
	var err error
	if p.schedule, err = sched.New(s.Diffusion); err != nil {
		return nil, err
	}
	if p.parametrization, err = s.Diffusion.Parametrization(); err != nil {
		return nil, err
	}
	if p.Step, err = CompileStep(s); err != nil {
		return nil, err
	}
	p.Layout = p.Step.Graph.Layout
	if p.besides, err = s.objective().Memory(s); err != nil {
		return nil, err
	}
	g, err := generate.Graph(s.Sample, s.Model, s.Size, p.previewBatch())
	if err != nil {
		return nil, err
	}
	// Transformed weights are several times the weights, too much to keep beside a
	// run for the few grids it draws.
	g.KeepWeights = false
	if p.Preview, err = graph.Compile(g, s.Backend); err != nil {
		return nil, err
	}
	return p, nil
}

// Split returns train.accumulate of a run that fits the device: the configured
// number of parts, or if they are too large for its memory the fewest smaller ones
// that are not. If none fit, it is the configured number.
func Split(s Setup) (parts int, err error) {
	for parts := s.Train.Accumulate; parts <= s.Train.Batch; parts++ {
		if s.Train.Batch%parts != 0 {
			continue
		}
		split := s
		split.Train.Accumulate = parts
		p, err := NewPlan(split)
		if err != nil {
			return 0, err
		}
		if p.CheckMemory() == nil {
			return parts, nil
		}
	}
	return s.Train.Accumulate, nil
}

// CompileStep compiles the forward and backward pass of a part of a batch.
func CompileStep(s Setup) (*graph.Plan, error) {
	g, err := s.objective().Graph(s, s.Train.Batch/s.Train.Accumulate)
	if err != nil {
		return nil, err
	}
	g.KeepWeights = s.Train.Accumulate > 1
	g.Recompute = s.Train.Recompute
	return graph.Compile(g, s.Backend)
}

// previewBatch is the number of images drawn at a time for sample grids.
func (s *Setup) previewBatch() int { return min(s.Batch, s.Train.Samples) }

// Flops is the number of floating-point operations of an optimiser step, forward
// and backward and those of the objective's forward passes, without the optimiser's own.
func (p *Plan) Flops() int64 {
	flops := p.Step.Flops() * int64(p.Train.Accumulate)
	if o, ok := p.objective().(Teaching); ok {
		flops += int64(o.Forwards(p.Setup)) * int64(p.Train.Batch) * p.ForwardFlops()
	}
	return flops
}

// ForwardFlops is the number of floating-point operations of the network on one
// image.
func (p *Plan) ForwardFlops() int64 {
	if generate.Guided(p.Sample, p.Model) { // it runs with the class and without
		return p.callFlops() / 2
	}
	return p.callFlops()
}

// callFlops is the number of floating-point operations of a step of sampling, for one image.
func (p *Plan) callFlops() int64 { return p.Preview.Flops() / int64(p.previewBatch()) }

// CheckpointBytes is the size of a checkpoint, but for its header.
func (p *Plan) CheckpointBytes() int64 {
	values := 4 * int64(p.Layout.Count)
	if o, ok := p.objective().(Remembering); ok {
		values += int64(o.Remembers(p.Layout))
	}
	return 4 * values
}

// Memory is an amount of one kind of memory.
type Memory struct {
	Kind  string
	Bytes int64
	// Host says that it is the host's, where the device is another.
	Host bool
}

// Memory lists all large memory of the run, by kind.
func (p *Plan) Memory() []Memory {
	arena := 4 * int64(p.Layout.Size)
	_, isHost := p.Backend.(graph.Processor)
	var rounded int64 // weights and averaged weights as products read them
	if !isHost && p.Backend.Precision() == graph.BF16 {
		rounded = arena
	}
	image := int64(p.Size.Values())
	batch := int64(p.Train.Batch)
	kinds := []Memory{
		{"weights", arena, false},
		{"averaged weights", arena, false},
		{"both in bf16", rounded, false},
		{"gradients", arena, false},
		{"gradient sum", arena, false},
		{"Adam moments", 2 * arena, false},
		{"activations and scratch", 4 * int64(p.Step.Arena), false},
		{"weights as kernels want them", 4 * int64(p.Step.Kept), false},
		{"sample grids", 4*int64(p.Preview.Arena) + 4*image*int64(p.Train.Samples), false},
		{"inputs", p.inputBytes(), false},
		{"checkpoint in the making", arena, !isHost},
		{"images read ahead", image * batch * int64(p.Data.Prefetch+1), !isHost},
	}
	kinds = append(kinds, p.besides...)
	return slices.DeleteFunc(kinds, func(m Memory) bool {
		return m.Bytes == 0 || m.Kind == "gradient sum" && p.Train.Accumulate == 1
	})
}

// inputBytes is the memory of what is fed: to a part and to a step of sampling, and
// twice to all parts, as the next step is staged while one runs.
func (p *Plan) inputBytes() int64 {
	bytes := func(g *graph.Plan) (total int64) {
		for _, in := range g.Graph.Inputs {
			total += int64(in.DType.Size()) * int64(in.Shape.TotalSize())
		}
		return total
	}
	return bytes(p.Step)*int64(1+2*p.Train.Accumulate) + bytes(p.Preview)
}

// TotalMemory is the sum of Memory on the device, in bytes.
func (p *Plan) TotalMemory() int64 {
	var total int64
	for _, m := range p.Memory() {
		if !m.Host {
			total += m.Bytes
		}
	}
	return total
}

// CheckMemory says what to change if the device has less memory than the run
// needs.
func (p *Plan) CheckMemory() error {
	err := graph.CheckMemory(p.Backend, p.TotalMemory())
	switch {
	case err == nil:
		return nil
	case p.Train.Batch > p.Train.Accumulate:
		advice := "lower train.batch or model.channels"
		split := p.Setup
		split.Train.Accumulate = split.Train.Batch
		if finest, planning := NewPlan(split); planning == nil && finest.CheckMemory() == nil {
			advice = "raise train.accumulate, which splits the batch, or " + advice
		}
		return fmt.Errorf("train.batch %d, train.accumulate %d: %w: %s", p.Train.Batch, p.Train.Accumulate, err, advice)
	}
	return fmt.Errorf("model.channels %d: %w: lower it", p.Model.Channels, err)
}

// Timing is how long parts of a run take.
type Timing struct {
	Step  time.Duration // an optimiser step
	Grid  time.Duration // a sample grid
	Flops float64       // a second, forward and backward
}

// Total is the time of the steps and sample grids of a run.
func (p *Plan) Total(t Timing) time.Duration {
	grids := 1
	if every := p.Train.PlotEvery; every > 0 {
		grids = (p.Train.Steps + every - 1) / every
	}
	return time.Duration(p.Train.Steps)*t.Step + time.Duration(grids)*t.Grid
}

// Probe measures how fast the device makes steps like those of the run, for
// about the time given, on weights that are all zero. It starts with a network
// that sees small images and goes on to the run's own, as far as the time
// allows; the speed of the largest stands for the run.
func (p *Plan) Probe(ctx context.Context, limit time.Duration) (t Timing, err error) {
	state, err := p.Backend.NewState(p.Layout, true)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	update, err := fastest(func() error {
		_, err := state.Update(p.Train.update(0))
		return err
	})
	if err != nil {
		return t, err
	}
	// What the objective computes besides is about the same share of any step.
	share := float64(p.Flops()) / float64(p.Step.Flops()*int64(p.Train.Accumulate))
	left := limit
	for _, s := range p.trials() {
		plan, err := CompileStep(s)
		if err != nil {
			return t, err
		}
		// Two calls at the least; but small networks are slow for their size, and
		// larger ones may be twice as fast.
		work := share * float64(plan.Flops())
		if t.Flops > 0 && work/t.Flops > left.Seconds() {
			break
		}
		elapsed, err := p.try(ctx, s, plan, state)
		if err != nil {
			return t, err
		}
		left -= 2 * elapsed
		t.Flops = work / max(elapsed-update, elapsed/10).Seconds()
	}
	seconds := func(flops int64) time.Duration {
		return time.Duration(float64(flops) / t.Flops * float64(time.Second))
	}
	t.Step = seconds(p.Flops()) + update
	t.Grid = seconds(p.callFlops() * int64(p.Train.Samples) * int64(p.Sample.Steps))
	return t, nil
}

// trials are runs of rising cost: first of a single, smaller image, then of
// more and more images of the run's size.
func (p *Plan) trials() []Setup {
	s := p.Setup
	s.Train.Batch, s.Train.Accumulate = 1, 1
	trials := []Setup{s}
	for small := s; ; {
		small.Size.Height /= 2
		small.Size.Width /= 2
		small.Model.Attention = slices.Clone(small.Model.Attention)
		for i := range small.Model.Attention {
			small.Model.Attention[i] /= 2
		}
		if small.Model.Validate(small.Size.Width, small.Size.Height, small.Size.Channels) != nil {
			break
		}
		trials = append(trials, small)
	}
	slices.Reverse(trials)
	part := p.Train.Batch / p.Train.Accumulate
	for n := 4; n < part; n *= 4 {
		s.Train.Batch = n
		trials = append(trials, s)
	}
	if part > 1 {
		s.Train.Batch = part
		trials = append(trials, s)
	}
	return trials
}

// try times a step on a batch of black images. The layout of the plan is that
// of the run: it does not depend on the size of the images.
func (p *Plan) try(ctx context.Context, s Setup, plan *graph.Plan, state graph.State) (elapsed time.Duration, err error) {
	stepper, err := newStepper(s, plan, state)
	if err != nil {
		return 0, err
	}
	steps := Stepper{steps: stepper, batch: data.Batch{Labels: make([]int32, s.Train.Batch)}}
	defer func() { err = errors.Join(err, steps.Close()) }()
	images := make([]byte, s.Train.Batch*s.Size.Values())
	return fastest(func() error {
		_, err := steps.Step(ctx, 0, images)
		return err
	})
}

// fastest times the fastest of a few calls. There are at least two, because the
// first one also pays for memory that has not been used before.
func fastest(f func() error) (time.Duration, error) {
	const calls, enough = 5, 200 * time.Millisecond
	best := time.Duration(math.MaxInt64)
	for spent, i := time.Duration(0), 0; i < 2 || i < calls && spent < enough; i++ {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		elapsed := max(time.Since(start), time.Microsecond)
		spent += elapsed
		best = min(best, elapsed)
	}
	return best, nil
}

package graph

import (
	"context"
	"fmt"
	"math"
)

// Stepping is a Backend on which a whole optimiser step runs without the host.
type Stepping interface {
	LoadStep(p *Plan, s State, parts int) (Step, error)
}

// Step makes optimiser steps on a state: forward and backward of each part of a
// batch, the mean of their gradients, and the update. It is used in the order
// Stage, Start, Stage, Wait, Start, Stage, Wait: what the next step needs may be
// staged while a step runs. It does not allocate after the first step.
type Step interface {
	// Stage takes the feeds of one part of the next step, which may change once
	// it returns.
	Stage(part int, feeds Feeds) error
	// Start starts the step whose parts were staged.
	Start(ctx context.Context, u Update) error
	// Wait waits for the step that was started. A gradient that is not finite
	// changes neither weights nor optimiser state; nor does a loss that is not, as
	// its gradient is none either, but for an overflow in the loss alone.
	Wait() (StepResult, error)
	Close() error
}

// StepResult is what a step reports.
type StepResult struct {
	Loss     float64 // mean over the parts
	GradNorm float64 // before clipping; NaN where the loss is not finite
	// Part is the first part whose loss is not finite, or -1.
	Part int
	// Losses is the output "losses" of all parts, one after the other; nil if there is
	// none. It stays as it is until the next Wait, and means nothing unless Part is -1.
	Losses []float32
}

// The outputs that a Step reports: a scalar, and if there are any those of each image.
const (
	lossOutput   = "loss"
	lossesOutput = "losses"
)

// LoadStep makes a plan that trains, with an output "loss", ready to make steps
// of so many parts.
func LoadStep(b Backend, p *Plan, s State, parts int) (Step, error) {
	if r, ok := p.Outputs[lossOutput]; !ok || r.Len() != 1 {
		return nil, fmt.Errorf("graph: a step needs a scalar output %q", lossOutput)
	}
	if stepping, ok := b.(Stepping); ok {
		return stepping.LoadStep(p, s, parts)
	}
	program, err := b.Load(p, s, Params)
	if err != nil {
		return nil, err
	}
	h := &hostStep{state: s, program: program, feeds: make([]Feeds, parts)}
	for i := range h.feeds {
		h.feeds[i] = Feeds{}
		for _, in := range p.Graph.Inputs {
			h.feeds[i][in.Name] = room(in)
		}
	}
	if r, ok := p.Outputs[lossesOutput]; ok {
		h.losses, h.reported = make([]float32, parts*r.Len()), make([]float32, parts*r.Len())
	}
	return h, nil
}

// hostStep is a Step of a Program that runs where the host does: Start makes the
// step.
type hostStep struct {
	state   State
	program Program
	feeds   []Feeds // by part
	loss    [1]float32
	result  StepResult
	// losses are those of the step that was started, reported those of the last Wait; nil
	// without an output of them.
	losses, reported []float32
}

// room is memory for the value of an input.
func room(in Input) any {
	n := elements(in.Shape)
	switch in.DType {
	case Uint8:
		return make([]uint8, n)
	case Uint32:
		return make([]uint32, n)
	}
	return make([]float32, n)
}

func (h *hostStep) Stage(part int, feeds Feeds) error {
	for name, to := range h.feeds[part] {
		var ok bool
		switch to := to.(type) {
		case []uint8:
			ok = take(to, feeds[name])
		case []uint32:
			ok = take(to, feeds[name])
		case []float32:
			ok = take(to, feeds[name])
		}
		if !ok {
			return fmt.Errorf("graph: input %q: %T does not fit", name, feeds[name])
		}
	}
	return nil
}

// take copies a feed of the same type and length.
func take[T any](to []T, feed any) bool {
	from, ok := feed.([]T)
	return ok && len(from) == len(to) && copy(to, from) == len(to)
}

func (h *hostStep) Start(ctx context.Context, u Update) error {
	parts := len(h.feeds)
	h.result = StepResult{Part: -1}
	for i, feeds := range h.feeds {
		if err := h.program.Run(ctx, feeds); err != nil {
			return err
		}
		if err := h.program.Output(lossOutput, h.loss[:]); err != nil {
			return err
		}
		h.result.Loss += float64(h.loss[0]) / float64(parts)
		if !finite(float64(h.loss[0])) {
			h.result.Part, h.result.GradNorm = i, math.NaN()
			return nil
		}
		if h.losses != nil {
			each := len(h.losses) / parts
			if err := h.program.Output(lossesOutput, h.losses[i*each:(i+1)*each]); err != nil {
				return err
			}
		}
		if parts > 1 {
			if err := h.state.Accumulate(i == 0, 1/float64(parts)); err != nil {
				return err
			}
		}
	}
	norm, err := h.state.Update(u)
	h.result.GradNorm = norm
	return err
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func (h *hostStep) Wait() (StepResult, error) {
	copy(h.reported, h.losses)
	h.result.Losses = h.reported
	return h.result, nil
}

func (h *hostStep) Close() error { return h.program.Close() }

package train

import (
	"context"

	"ddpm/internal/data"
	"ddpm/internal/graph"
)

// Stepper makes the optimiser steps of a run on images that it is handed, and
// nothing else: it reads no data and writes neither metrics, checkpoints nor
// pictures. Benchmarks time it.
type Stepper struct {
	steps *stepper
	batch data.Batch
}

// NewStepper loads the plan of CompileStep on a state with weights.
func NewStepper(s Setup, plan *graph.Plan, state graph.State) (*Stepper, error) {
	steps, err := newStepper(s, plan, state)
	if err != nil {
		return nil, err
	}
	return &Stepper{steps: steps, batch: data.Batch{Labels: make([]int32, s.Train.Batch)}}, nil
}

// Step makes step k, from 0, on Train.Batch images [H,W,C], and returns its
// loss. It does not allocate after the first step.
func (s *Stepper) Step(ctx context.Context, k int, images []byte) (loss float64, err error) {
	s.batch.Images = images
	if err := s.steps.stage(ctx, k, &s.batch); err != nil {
		return 0, err
	}
	if err := s.steps.start(ctx, k); err != nil {
		return 0, err
	}
	r, err := s.steps.wait(k)
	return r.loss, err
}

// Close frees what the steps run in.
func (s *Stepper) Close() error { return s.steps.close() }

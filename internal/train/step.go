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
	"ddpm/internal/model"
	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// stepper makes optimiser steps: it draws t, noises the images, and runs the
// network forward, backward and through Adam.
type stepper struct {
	cfg        Config
	seed       uint64
	flip       bool
	schedule   *sched.Schedule
	prediction sched.Prediction
	state      graph.State
	program    graph.Program

	part   int // images the program takes at once
	values int // of an image
	feeds  graph.Feeds
	images []byte // of a part, fed
	in     inputs
	loss   [1]float32
}

// inputs are the values fed to the program, one for each image of a part.
type inputs struct {
	flip, t                []float32
	signal, noise          []float32 // x_t = signal x_0 + noise eps
	targetSignal, targetEp []float32 // target = targetSignal x_0 + targetEp eps
	keys                   []uint32
}

// lossGraph is a training step's forward and backward pass on n images:
//
//	x_t  = sqrt(abar_t) x_0 + sqrt(1-abar_t) eps
//	loss = mean (UNet(x_t, t) - target)²
//
// Only bytes and a few numbers for each image are fed; noise is drawn on the
// device from keys.
func lossGraph(c model.Config, s model.Size, n int) (*graph.Graph, error) {
	b := graph.NewBuilder(graph.Float32)
	perImage := func(name string) *graph.Node { return b.Input(name, graph.Float32, n) }
	images := b.Input("images", graph.Uint8, n, s.Height, s.Width, s.Channels)
	keys := b.Input("keys", graph.Uint32, n, 4)

	x0 := b.Normalize(images, perImage("flip"))
	eps := b.Noise(keys, rng.Noise, s.Height, s.Width, s.Channels)
	xt := b.Mix(perImage("signal"), x0, perImage("noise"), eps)
	target := b.Mix(perImage("target_signal"), x0, perImage("target_eps"), eps)
	out := model.UNet(b, c, xt, perImage("t"), keys, s.Channels)
	loss := b.Mean(b.SquaredError(out, target))
	return b.Finish(loss, map[string]*graph.Node{"loss": loss})
}

// newStepper loads a step's plan on a state.
func newStepper(s Setup, plan *graph.Plan, schedule *sched.Schedule, prediction sched.Prediction, state graph.State) (*stepper, error) {
	part := s.Train.Batch / s.Train.Accumulate
	program, err := s.Backend.Load(plan, state, graph.Params)
	if err != nil {
		return nil, err
	}
	floats := func() []float32 { return make([]float32, part) }
	images := make([]byte, part*s.Size.Values())
	in := inputs{floats(), floats(), floats(), floats(), floats(), floats(), make([]uint32, 4*part)}
	return &stepper{
		cfg: s.Train, seed: s.Seed, flip: s.Data.Flip,
		schedule: schedule, prediction: prediction, state: state, program: program,
		part: part, values: s.Size.Values(), images: images, in: in,
		feeds: graph.Feeds{
			"images": images, "keys": in.keys, "flip": in.flip, "t": in.t, "signal": in.signal, "noise": in.noise,
			"target_signal": in.targetSignal, "target_eps": in.targetEp,
		},
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

// step makes optimiser step k, from 0, on a batch. If the loss or the gradient
// is not finite it changes nothing and returns an error.
func (s *stepper) step(ctx context.Context, k int, batch *data.Batch) (result, error) {
	loss, err := s.gradient(ctx, k, batch)
	if err != nil {
		return result{}, err
	}
	u := s.cfg.update(k)
	norm, err := s.state.Update(u)
	if err != nil {
		return result{}, err
	}
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return result{}, fmt.Errorf("%w: the gradient norm is %v at step %d, with t = %s", errDiverged, norm, k+1, s.timesteps())
	}
	return result{loss, norm, u.LR}, nil
}

// gradient leaves the gradient of a batch in the state and returns its loss.
func (s *stepper) gradient(ctx context.Context, k int, batch *data.Batch) (loss float64, err error) {
	parts := s.cfg.Accumulate
	for i := range parts {
		first := i * s.part
		s.draw(k, first)
		copy(s.images, batch.Images[first*s.values:(first+s.part)*s.values])
		if err := s.program.Run(ctx, s.feeds); err != nil {
			return 0, err
		}
		if err := s.program.Output("loss", s.loss[:]); err != nil {
			return 0, err
		}
		part := float64(s.loss[0])
		if math.IsNaN(part) || math.IsInf(part, 0) {
			return 0, fmt.Errorf("%w: the loss is %v at step %d, with t = %s", errDiverged, part, k+1, s.timesteps())
		}
		loss += part / float64(parts)
		if parts > 1 {
			if err := s.state.Accumulate(i == 0, 1/float64(parts)); err != nil {
				return 0, err
			}
		}
	}
	return loss, nil
}

// timesteps lists the t of the part run last.
func (s *stepper) timesteps() string {
	const most = 16
	words := make([]string, 0, most+1)
	for i, t := range s.in.t {
		if i == most {
			words = append(words, "...")
			break
		}
		words = append(words, strconv.Itoa(int(t)))
	}
	return strings.Join(words, " ")
}

// update is the optimiser's part of step k, from 0.
func (c Config) update(k int) graph.Update {
	return graph.Update{
		Step: k + 1, LR: c.learningRate(k), Beta1: c.Beta1, Beta2: c.Beta2, Eps: c.AdamEps,
		Clip: c.Clip, EMADecay: c.emaDecay(k),
	}
}

// draw fills the inputs for images first, first+1, ... of step k.
func (s *stepper) draw(k, first int) {
	for i := range s.part {
		key := rng.Key{Seed: s.seed, Step: uint32(k), Sample: uint32(first + i)}
		copy(s.in.keys[4*i:], []uint32{uint32(s.seed), uint32(s.seed >> 32), key.Step, key.Sample})

		key.Stream = rng.Timestep
		t := key.IntN(s.schedule.T())
		s.in.t[i] = float32(t)
		s.in.signal[i] = float32(s.schedule.SqrtAlphasCumprod[t])
		s.in.noise[i] = float32(s.schedule.SqrtOneMinusAlphasCumprod[t])
		onX0, onEps := s.prediction.Target(s.schedule, t)
		s.in.targetSignal[i], s.in.targetEp[i] = float32(onX0), float32(onEps)

		s.in.flip[i] = 0
		key.Stream = rng.Flip
		if s.flip && key.IntN(2) == 1 {
			s.in.flip[i] = 1
		}
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

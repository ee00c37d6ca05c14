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

// stepper makes optimiser steps: it draws t, and has the device noise the
// images and run the network forward, backward and through Adam.
type stepper struct {
	cfg        Config
	seed       uint64
	flip       bool
	schedule   *sched.Schedule
	prediction sched.Prediction
	steps      graph.Step

	part   int // images of a part
	values int // of an image
	feeds  graph.Feeds
	images []byte // of a part, fed
	in     inputs
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

	xt, target := b.QSample(rng.Noise, images, perImage("flip"), keys,
		perImage("signal"), perImage("noise"), perImage("target_signal"), perImage("target_eps"))
	out := model.UNet(b, c, xt, perImage("t"), keys, s.Channels)
	loss := b.Mean(b.SquaredError(out, target))
	return b.Finish(loss, map[string]*graph.Node{"loss": loss})
}

// newStepper loads a step's plan on a state.
func newStepper(s Setup, plan *graph.Plan, schedule *sched.Schedule, prediction sched.Prediction, state graph.State) (*stepper, error) {
	part := s.Train.Batch / s.Train.Accumulate
	steps, err := graph.LoadStep(s.Backend, plan, state, s.Train.Accumulate)
	if err != nil {
		return nil, err
	}
	floats := func() []float32 { return make([]float32, part) }
	images := make([]byte, part*s.Size.Values())
	in := inputs{floats(), floats(), floats(), floats(), floats(), floats(), make([]uint32, 4*part)}
	return &stepper{
		cfg: s.Train, seed: s.Seed, flip: s.Data.Flip,
		schedule: schedule, prediction: prediction, steps: steps,
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

// stage hands the device what step k, from 0, needs. A step in progress goes on
// beside it.
func (s *stepper) stage(k int, batch *data.Batch) error {
	for i := range s.cfg.Accumulate {
		first := i * s.part
		s.draw(k, first)
		copy(s.images, batch.Images[first*s.values:(first+s.part)*s.values])
		if err := s.steps.Stage(i, s.feeds); err != nil {
			return err
		}
	}
	return nil
}

// start starts step k, which was staged.
func (s *stepper) start(ctx context.Context, k int) error { return s.steps.Start(ctx, s.cfg.update(k)) }

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
	return result{r.Loss, r.GradNorm, s.cfg.learningRate(k)}, nil
}

// timesteps lists the t of a part of step k.
func (s *stepper) timesteps(k, part int) string {
	const most = 16
	words := make([]string, 0, most+1)
	for i := range s.part {
		if i == most {
			words = append(words, "...")
			break
		}
		words = append(words, strconv.Itoa(s.timestep(k, part*s.part+i)))
	}
	return strings.Join(words, " ")
}

// timestep draws t of an image of step k.
func (s *stepper) timestep(k, image int) int {
	return s.key(k, image, rng.Timestep).IntN(s.schedule.T())
}

func (s *stepper) key(k, image int, stream rng.Stream) rng.Key {
	return rng.Key{Seed: s.seed, Stream: stream, Step: uint32(k), Sample: uint32(image)}
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
		image := first + i
		copy(s.in.keys[4*i:], []uint32{uint32(s.seed), uint32(s.seed >> 32), uint32(k), uint32(image)})

		t := s.timestep(k, image)
		s.in.t[i] = float32(t)
		s.in.signal[i] = float32(s.schedule.SqrtAlphasCumprod[t])
		s.in.noise[i] = float32(s.schedule.SqrtOneMinusAlphasCumprod[t])
		onX0, onEps := s.prediction.Target(s.schedule, t)
		s.in.targetSignal[i], s.in.targetEp[i] = float32(onX0), float32(onEps)

		s.in.flip[i] = 0
		if s.flip && s.key(k, image, rng.Flip).IntN(2) == 1 {
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

package generate

import (
	"context"

	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// Generator draws images from a network.
type Generator struct {
	Network    *Network
	Schedule   *sched.Schedule
	Prediction sched.Prediction
	Config     sched.SamplerConfig
	Seed       uint64

	// OnMoment, if not nil, is told of every step of every batch.
	OnMoment func(Moment)
}

// Moment is a batch of images in the making.
type Moment struct {
	First, Count int // of its images
	Step, Steps  int // steps made, of how many
	T            int // the timestep the last of them was at
	// X0 is the prediction of x_0 there, [Count,H,W,C]. It is valid until OnMoment
	// returns and must not be changed.
	X0 []float32
}

// Prior fills x with the noise that images first, first+1, ... start from.
func (g *Generator) Prior(x []float32, first int) {
	values := g.Network.size.Values()
	for i := range len(x) / values {
		rng.Key{Seed: g.Seed, Stream: rng.Prior, Sample: uint32(first + i)}.Normals(x[i*values : (i+1)*values])
	}
}

// Draw draws images 0 to n-1, in batches of the network's size. They start from
// noise, [n,H,W,C], or if that is nil from Prior. Each batch is handed to take,
// which may keep nothing of it.
func (g *Generator) Draw(ctx context.Context, n int, noise []float32, take func(first int, images []float32) error) error {
	values := g.Network.size.Values()
	batch := make([]float32, min(n, g.Network.batch)*values)
	for first := 0; first < n; first += g.Network.batch {
		x := batch[:min(g.Network.batch, n-first)*values]
		if noise == nil {
			g.Prior(x, first)
		} else {
			copy(x, noise[first*values:])
		}
		if err := g.Sample(ctx, x, first); err != nil {
			return err
		}
		if err := take(first, x); err != nil {
			return err
		}
	}
	return nil
}

// Sample turns x, the noise that images first, first+1, ... start from, into
// images, in place. Image i depends on the seed and its number, not on the
// batch it is in.
func (g *Generator) Sample(ctx context.Context, x []float32, first int) error {
	sampler, err := sched.SamplerByName(g.Config.Sampler)
	if err != nil {
		return err
	}
	opt, err := g.Config.Options(g.Schedule)
	if err != nil {
		return err
	}
	values := g.Network.size.Values()
	n := len(x) / values
	opt.Noise = func(step int, dst []float32) {
		for i := range n {
			rng.Key{Seed: g.Seed, Stream: rng.Ancestral, Step: uint32(step), Sample: uint32(first + i)}.
				Normals(dst[i*values : (i+1)*values])
		}
	}
	if g.OnMoment != nil {
		opt.OnStep = func(k, t int, x0 []float32) {
			g.OnMoment(Moment{First: first, Count: n, Step: k + 1, Steps: len(opt.Timesteps), T: t, X0: x0})
		}
	}
	steps := make([]int, n)
	network := func(ctx context.Context, x []float32, t int, out []float32) error {
		for i := range steps {
			steps[i] = t
		}
		return g.Network.Predict(ctx, x, steps, out)
	}
	return sampler(ctx, &sched.Denoiser{Schedule: g.Schedule, Prediction: g.Prediction, Network: network}, x, opt)
}

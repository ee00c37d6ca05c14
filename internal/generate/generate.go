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

	// OnStep, if not nil, sees the prediction of x_0, [n,H,W,C], after step k of
	// steps at timestep t.
	OnStep func(k, steps, t int, x0 []float32)
}

// Prior fills x with the noise that images first, first+1, ... start from.
func (g *Generator) Prior(x []float32, first int) {
	values := g.Network.size.Values()
	for i := range len(x) / values {
		rng.Key{Seed: g.Seed, Stream: rng.Prior, Sample: uint32(first + i)}.Normals(x[i*values : (i+1)*values])
	}
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
	if g.OnStep != nil {
		opt.OnStep = func(k, t int, x0 []float32) { g.OnStep(k, len(opt.Timesteps), t, x0) }
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

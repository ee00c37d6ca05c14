package sched

import (
	"context"
	"math"
)

func init() { RegisterSampler("ddpm", DDPM) }

// DDPM is ancestral sampling, Algorithm 2 of Ho et al. (2020), written with the
// posterior of eq. 6 and 7 at the predicted x_0 so that the prediction can be
// clipped, as their code does:
//
//	x_{t-1} = coef1 x_0 + coef2 x_t + std z,   z ~ N(0, I), and z = 0 in the last step
//
// std^2 is PosteriorVariance (FixedSmall) or Betas (FixedLarge). Any subset of
// the timesteps will do: its steps have the betas of the process seen at that
// subset only (Nichol & Dhariwal 2021, section 4), and the last one ends at x_0
// whatever its t.
func DDPM(ctx context.Context, d *Denoiser, x []float32, opt Options) error {
	last := len(opt.Timesteps) - 1
	if err := opt.check("ddpm", d, x, last > 0); err != nil {
		return err
	}
	s, err := d.Schedule.Respace(opt.Timesteps)
	if err != nil {
		return err
	}
	x0, eps, noise := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))

	for k := range opt.Timesteps {
		if err := opt.denoise(ctx, d, k, x, x0, eps); err != nil {
			return err
		}
		i := last - k // the respaced tables run upwards
		onX0, onXt := float32(s.PosteriorMeanCoef1[i]), float32(s.PosteriorMeanCoef2[i])
		for j := range x {
			x[j] = onX0*x0[j] + onXt*x[j]
		}
		if k == last {
			break
		}
		opt.Noise(k, noise)
		std := float32(math.Exp(0.5 * s.LogVariance(opt.Variance, i)))
		for j := range x {
			x[j] += std * noise[j]
		}
	}
	return nil
}

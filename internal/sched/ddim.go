package sched

import (
	"context"
	"fmt"
	"math"
)

func init() { RegisterSampler("ddim", DDIM) }

// DDIM is the sampler of Song, Meng & Ermon, "Denoising Diffusion Implicit
// Models" (2021), eq. 12 and 16. With a and aPrev the AlphasCumprod of this
// timestep and of the next one listed (1 after the last):
//
//	sigma  = eta sqrt((1 - aPrev) / (1 - a)) sqrt(1 - a / aPrev)
//	x_prev = sqrt(aPrev) x_0 + sqrt(1 - aPrev - sigma^2) eps + sigma z,   z ~ N(0, I)
//
// eta = 0 is deterministic: an Euler step of the diffusion ODE. eta = 1 is DDPM
// with FixedSmall on the same timesteps. Where x_0 is clipped, eps stays as the
// network gave it.
func DDIM(ctx context.Context, d *Denoiser, x []float32, opt Options) error {
	if !(opt.Eta >= 0 && opt.Eta <= 1) {
		return fmt.Errorf("sched: ddim: eta %g: want 0 to 1", opt.Eta)
	}
	last := len(opt.Timesteps) - 1
	if err := opt.check("ddim", d, x, opt.Eta > 0 && last > 0); err != nil {
		return err
	}
	alphasCumprod := d.Schedule.AlphasCumprod
	x0, eps, noise := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))

	for k, t := range opt.Timesteps {
		if err := opt.denoise(ctx, d, k, x, x0, eps); err != nil {
			return err
		}
		a, aPrev := alphasCumprod[t], 1.0
		if k < last {
			aPrev = alphasCumprod[opt.Timesteps[k+1]]
		}
		sigma := opt.Eta * math.Sqrt((1-aPrev)/(1-a)*(1-a/aPrev))
		// At eta = 1 rounding can take the difference just below 0.
		onX0, onEps := float32(math.Sqrt(aPrev)), float32(math.Sqrt(max(1-aPrev-sigma*sigma, 0)))
		for j := range x {
			x[j] = onX0*x0[j] + onEps*eps[j]
		}
		if sigma == 0 {
			continue
		}
		opt.Noise(k, noise)
		onNoise := float32(sigma)
		for j := range x {
			x[j] += onNoise * noise[j]
		}
	}
	return nil
}

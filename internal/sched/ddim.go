package sched

import (
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
func DDIM(s *Schedule, opt Options) ([]Step, error) {
	if !(opt.Eta >= 0 && opt.Eta <= 1) {
		return nil, fmt.Errorf("sched: ddim: eta %g: want 0 to 1", opt.Eta)
	}
	if err := opt.check("ddim", s); err != nil {
		return nil, err
	}
	steps := make([]Step, len(opt.Timesteps))
	for k, t := range opt.Timesteps {
		a, aPrev := s.AlphasCumprod[t], 1.0
		if k < len(opt.Timesteps)-1 {
			aPrev = s.AlphasCumprod[opt.Timesteps[k+1]]
		}
		sigma := opt.Eta * math.Sqrt((1-aPrev)/(1-a)*(1-a/aPrev))
		// At eta = 1 rounding can take the difference just below 0.
		onEps := math.Sqrt(max(1-aPrev-sigma*sigma, 0))
		steps[k] = Step{T: t, OnX0: math.Sqrt(aPrev), OnEps: onEps, OnNoise: sigma}
	}
	return steps, nil
}

package sched

import "math"

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
func DDPM(s *Schedule, opt Options) ([]Step, error) {
	if err := opt.check("ddpm", s); err != nil {
		return nil, err
	}
	respaced, err := s.Respace(opt.Timesteps)
	if err != nil {
		return nil, err
	}
	last := len(opt.Timesteps) - 1
	steps := make([]Step, len(opt.Timesteps))
	for k, t := range opt.Timesteps {
		i := last - k // the respaced tables run upwards
		steps[k] = Step{T: t, OnX0: respaced.PosteriorMeanCoef1[i], OnXt: respaced.PosteriorMeanCoef2[i]}
		if k < last {
			steps[k].OnNoise = math.Exp(0.5 * respaced.LogVariance(opt.Variance, i))
		}
	}
	return steps, nil
}

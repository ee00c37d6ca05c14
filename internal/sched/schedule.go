// Package sched is the diffusion process: noise schedules, the algebra between
// x_0, x_t and the noise, the variational bound, timestep spacings and samplers.
//
// The forward process adds Gaussian noise in T steps (Ho, Jain & Abbeel,
// "Denoising Diffusion Probabilistic Models", 2020), with t = 0..T-1 here where
// the paper writes 1..T. x_t is the image after step t, and x_{t-1} of t = 0 is
// the clean image x_0, for which alphas_cumprod_prev = 1:
//
//	q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I)        (2)   alpha_t = 1 - beta_t
//	q(x_t | x_0)     = N(sqrt(a_t) x_0, (1 - a_t) I)             (4)   a_t = alpha_0 ... alpha_t = alphas_cumprod
//	q(x_{t-1} | x_t, x_0) = N(mean, variance I)                  (6), (7)
//	  mean     = beta_t sqrt(a_{t-1}) / (1 - a_t) x_0  +  (1 - a_{t-1}) sqrt(alpha_t) / (1 - a_t) x_t
//	  variance = beta_t (1 - a_{t-1}) / (1 - a_t)
//
// Scalars are float64 and rounded to float32 once, where they multiply images.
// Images are flat float32 slices in any layout; nothing here looks at pixels'
// neighbours.
//
// A schedule, a spacing or a sampler is one file that registers itself from
// init; the tests range over the names and so cover it without an edit.
package sched

import (
	"fmt"
	"math"
)

// Schedule holds the tables of one diffusion process, each of length T and
// indexed by t. They are read only. Where AlphasCumprod ends at 0, with zero terminal SNR,
// the two Recip tables end at +Inf: eps says nothing about x_0 there.
type Schedule struct {
	Betas             []float64
	Alphas            []float64 // 1 - Betas
	AlphasCumprod     []float64 // product of Alphas up to and with t
	AlphasCumprodPrev []float64 // AlphasCumprod one step earlier; 1 at t = 0

	SqrtAlphasCumprod         []float64
	SqrtOneMinusAlphasCumprod []float64
	SqrtRecipAlphasCumprod    []float64 // sqrt(1 / AlphasCumprod)
	SqrtRecipm1AlphasCumprod  []float64 // sqrt(1 / AlphasCumprod - 1)

	PosteriorVariance []float64 // variance of q(x_{t-1} | x_t, x_0); 0 at t = 0
	// PosteriorLogVarianceClipped is log(PosteriorVariance) with the value of
	// t = 1 at t = 0, where the logarithm is -Inf. (T = 1 has no t = 1: log(Betas).)
	PosteriorLogVarianceClipped []float64
	// FixedLargeLogVariance is log(Betas) with that same value at t = 0, where Ho
	// et al. found it to decode images better than Betas[0].
	FixedLargeLogVariance []float64
	PosteriorMeanCoef1    []float64 // of x_0 in the mean of q(x_{t-1} | x_t, x_0)
	PosteriorMeanCoef2    []float64 // of x_t
}

var schedules = newRegistry[func(Config) ([]float64, error)]("diffusion.schedule")

// Register adds a noise schedule: betas returns the T = cfg.T values of beta_t,
// each above 0 and below 1, or an error that names the config key at fault.
func Register(name string, betas func(cfg Config) ([]float64, error)) {
	schedules.register(name, betas)
}

// registerRange adds a schedule whose betas run from diffusion.beta_start to
// diffusion.beta_end; the only one of T = 1 is at the start.
func registerRange(name string, betas func(T int, start, end float64) []float64) {
	Register(name, func(cfg Config) ([]float64, error) {
		if !(cfg.BetaEnd > 0 && cfg.BetaEnd < 1) {
			return nil, fmt.Errorf("diffusion.beta_end %g: want a number above 0 and below 1", cfg.BetaEnd)
		}
		if !(cfg.BetaStart > 0 && cfg.BetaStart <= cfg.BetaEnd) {
			return nil, fmt.Errorf("diffusion.beta_start %g: want a number above 0 and at most diffusion.beta_end (%g)", cfg.BetaStart, cfg.BetaEnd)
		}
		return betas(cfg.T, cfg.BetaStart, cfg.BetaEnd), nil
	})
}

// Names lists the noise schedules, sorted.
func Names() []string { return schedules.names() }

// New computes the tables of the schedule that cfg names.
func New(cfg Config) (*Schedule, error) {
	if cfg.T < 1 || cfg.T > maxT {
		return nil, fmt.Errorf("diffusion.t %d: want 1 to %d", cfg.T, maxT)
	}
	compute, err := schedules.find(cfg.Schedule)
	if err != nil {
		return nil, err
	}
	betas, err := compute(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.ZeroTerminalSNR {
		if cfg.T < 2 {
			return nil, fmt.Errorf("diffusion.zero_terminal_snr true: the only step of diffusion.t 1 is the first, which keeps its noise: want diffusion.t 2 or more")
		}
		betas = ZeroTerminalSNR(betas)
	}
	s, err := FromBetas(betas)
	if err != nil {
		return nil, fmt.Errorf("diffusion.schedule %q with diffusion.t %d: %w", cfg.Schedule, cfg.T, err)
	}
	return s, nil
}

// FromBetas computes the tables of any list of betas, such as the
// trained_betas of an imported model. It fails on an empty list, a beta outside
// (0, 1), but for a last one of 1, and betas so large that float32 cannot undo them.
func FromBetas(betas []float64) (*Schedule, error) {
	T := len(betas)
	if T == 0 {
		return nil, fmt.Errorf("the list of betas is empty: want one for each diffusion step")
	}
	table := func() []float64 { return make([]float64, T) }
	s := &Schedule{
		Betas: append([]float64(nil), betas...), Alphas: table(), AlphasCumprod: table(), AlphasCumprodPrev: table(),
		SqrtAlphasCumprod: table(), SqrtOneMinusAlphasCumprod: table(),
		SqrtRecipAlphasCumprod: table(), SqrtRecipm1AlphasCumprod: table(),
		PosteriorVariance: table(), PosteriorLogVarianceClipped: table(), FixedLargeLogVariance: table(),
		PosteriorMeanCoef1: table(), PosteriorMeanCoef2: table(),
	}
	a := 1.0
	for t, beta := range betas {
		prev, alpha := a, 1-beta
		noSignal := alpha == 0 && t == T-1
		if !(alpha > 0 && alpha < 1) && !noSignal {
			return nil, fmt.Errorf("beta at t=%d is %g: want a number above 1e-16 and below 1", t, beta)
		}
		a *= alpha
		if recip := math.Sqrt(1 / a); recip > math.MaxFloat32 && !noSignal {
			return nil, fmt.Errorf("alphas_cumprod at t=%d is %g, which float32 cannot invert: lower the betas or the number of diffusion steps", t, a)
		}
		s.Alphas[t], s.AlphasCumprod[t], s.AlphasCumprodPrev[t] = alpha, a, prev
		s.SqrtAlphasCumprod[t] = math.Sqrt(a)
		s.SqrtOneMinusAlphasCumprod[t] = math.Sqrt(1 - a)
		s.SqrtRecipAlphasCumprod[t] = math.Sqrt(1 / a)
		s.SqrtRecipm1AlphasCumprod[t] = math.Sqrt(1/a - 1)
		s.PosteriorVariance[t] = beta * (1 - prev) / (1 - a)
		s.PosteriorLogVarianceClipped[t] = math.Log(s.PosteriorVariance[t])
		s.FixedLargeLogVariance[t] = math.Log(beta)
		s.PosteriorMeanCoef1[t] = beta * math.Sqrt(prev) / (1 - a)
		s.PosteriorMeanCoef2[t] = (1 - prev) * math.Sqrt(alpha) / (1 - a)
	}
	first := s.FixedLargeLogVariance[0]
	if T > 1 {
		first = s.PosteriorLogVarianceClipped[1]
	}
	s.PosteriorLogVarianceClipped[0], s.FixedLargeLogVariance[0] = first, first
	return s, nil
}

// T is the number of diffusion steps.
func (s *Schedule) T() int { return len(s.Betas) }

// HalfLogSNR is log(a / (1 - a)) / 2 with a = AlphasCumprod[t]: the time in
// which the diffusion ODE is nearly linear (Lu et al., "DPM-Solver", 2022,
// where it is lambda_t). It is -Inf where AlphasCumprod is 0.
func (s *Schedule) HalfLogSNR(t int) float64 {
	a := s.AlphasCumprod[t]
	return 0.5 * math.Log(a/(1-a))
}

// Respace is the process seen only at the listed timesteps, which fall strictly
// as a sampler visits them (Nichol & Dhariwal 2021, eq. 19). Index i of the
// result is the i-th smallest timestep. Listing every t gives the same tables.
func (s *Schedule) Respace(timesteps []int) (*Schedule, error) {
	if err := checkTimesteps(timesteps, s.T()); err != nil {
		return nil, err
	}
	n := len(timesteps)
	betas := make([]float64, n)
	next := 0 // first t not yet merged
	for i := range betas {
		// Two steps in one keep alpha_1 alpha_2 of the signal, so their beta is
		// beta_1 + beta_2 (1 - beta_1): free of the cancellation in 1 - a/a_prev.
		for ; next <= timesteps[n-1-i]; next++ {
			betas[i] += s.Betas[next] * (1 - betas[i])
		}
	}
	return FromBetas(betas)
}

package sched

import "math"

func init() {
	Register("cosine", func(cfg Config) ([]float64, error) { return Cosine(cfg.T), nil })
}

// Cosine is the schedule of Nichol & Dhariwal, "Improved Denoising Diffusion
// Probabilistic Models" (2021), eq. 17:
//
//	alphas_cumprod(u) = f(u) / f(0),  f(u) = cos^2((u + s) / (1 + s) pi / 2),  s = 0.008
//	beta_t = min(1 - f((t+1)/T) / f(t/T), 0.999)
//
// f(1) = 0, so the last beta would be 1: hence the cap. AlphasCumprod is the
// product of the capped 1 - beta_t, which departs from f at the last step only.
func Cosine(T int) []float64 {
	const s, largest = 0.008, 0.999
	f := func(step int) float64 {
		c := math.Cos((float64(step)/float64(T) + s) / (1 + s) * math.Pi / 2)
		return c * c
	}
	betas := make([]float64, T)
	for t := range betas {
		betas[t] = min(1-f(t+1)/f(t), largest)
	}
	return betas
}

package sched

import "math"

// ZeroTerminalSNR changes betas so that nothing of x_0 is left in the last x_t (Lin et
// al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024, Algorithm 1):
// with s_t = sqrt(alphas_cumprod),
//
//	s'_t = (s_t - s_{T-1}) s_0 / (s_0 - s_{T-1})
//
// which keeps the first and makes the last 0, and with it the last beta 1. It takes two
// betas or more. The new betas are computed from the differences of s, which are
// s_{t-1} - s_t = s_{t-1} beta_t / (1 + sqrt(1 - beta_t)), so that small ones keep their digits:
//
//	beta'_t = 1 - (s'_t / s'_{t-1})^2 = d (2 - d),   d = (s_{t-1} - s_t) / (s_{t-1} - s_{T-1})
func ZeroTerminalSNR(betas []float64) []float64 {
	last := len(betas) - 1
	s := make([]float64, len(betas))
	a := 1.0
	for t, beta := range betas {
		a *= 1 - beta
		s[t] = math.Sqrt(a)
	}
	rescaled := make([]float64, len(betas))
	rescaled[0], rescaled[last] = betas[0], 1
	for t := 1; t < last; t++ {
		d := s[t-1] * betas[t] / (1 + math.Sqrt(1-betas[t])) / (s[t-1] - s[last])
		rescaled[t] = d * (2 - d)
	}
	return rescaled
}

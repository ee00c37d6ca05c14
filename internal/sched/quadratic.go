package sched

import "math"

func init() { registerRange("quadratic", Quadratic) }

// Quadratic has betas whose roots rise in even steps, from that of start to that of
// end, so that more of them are small than in Linear. It is the "quad" of the code of Song,
// Meng & Ermon, "Denoising Diffusion Implicit Models" (2021).
func Quadratic(T int, start, end float64) []float64 {
	betas := Linear(T, math.Sqrt(start), math.Sqrt(end))
	for t, root := range betas {
		betas[t] = root * root
	}
	return betas
}

package sched

import "math"

func init() { registerRange("sigmoid", Sigmoid) }

// Sigmoid has betas on a logistic curve (GeoDiff, Xu et al. 2022): slow at both ends,
// which it meets but for 1/404 of the way,
//
//	beta_t = start + (end - start) / (1 + exp(-u_t)),   u_t even from -6 to 6
//
// A single step has u = -6.
func Sigmoid(T int, start, end float64) []float64 {
	betas := Linear(T, -6, 6)
	for t, u := range betas {
		betas[t] = start + (end-start)/(1+math.Exp(-u))
	}
	return betas
}

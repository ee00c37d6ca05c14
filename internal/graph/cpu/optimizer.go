package cpu

import (
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/vector"
)

// gradNorm returns a function that returns the L2 norm of g. The norm is NaN or
// Inf exactly if an element is: no sum of float32 squares overflows float64.
func (e *engine) gradNorm(g []float32) func() float64 {
	partial := make([]float64, ceil(len(g), grain))
	squares := forRange(e.pool, len(g), grain, func(from, to int) {
		partial[from/grain] = e.vec.SumSquares(g[from:to])
	})
	return func() float64 {
		squares()
		var sum float64
		for _, v := range partial {
			sum += v
		}
		return math.Sqrt(sum)
	}
}

// adamStep returns a function that takes one step of Adam (Kingma & Ba, 2015)
// and of the weights' exponential moving average, in one pass over five slices
// of the same length; clip is the factor of every gradient. See vector.Step.
func (e *engine) adamStep(params, grads, m, v, ema []float32) func(u graph.Update, clip float64) {
	var s vector.Step
	update := forRange(e.pool, len(params), grain, func(from, to int) {
		e.vec.Adam(&s, params[from:to], grads[from:to], m[from:to], v[from:to], ema[from:to])
	})
	return func(u graph.Update, clip float64) {
		s = vector.Step{
			Clip: clip, Beta1: u.Beta1, Beta2: u.Beta2, Epsilon: u.Eps, Decay: u.EMADecay,
			Rate:       u.LR / (1 - math.Pow(u.Beta1, float64(u.Step))),
			Correction: 1 / math.Sqrt(1-math.Pow(u.Beta2, float64(u.Step))),
		}
		update()
	}
}

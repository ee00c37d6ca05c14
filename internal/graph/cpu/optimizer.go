package cpu

import (
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/worker"
)

// gradNorm returns a function that returns the L2 norm of g. The norm is NaN or
// Inf exactly if an element is: no sum of float32 squares overflows float64.
func gradNorm(p *worker.Pool, g []float32) func() float64 {
	partial := make([]float64, ceil(len(g), grain))
	squares := forRange(p, len(g), grain, func(from, to int) {
		partial[from/grain] = sumSquares(g[from:to])
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

func sumSquares(x []float32) float64 {
	var s0, s1, s2, s3 float64
	for len(x) >= 4 {
		d0, d1, d2, d3 := float64(x[0]), float64(x[1]), float64(x[2]), float64(x[3])
		s0 += d0 * d0
		s1 += d1 * d1
		s2 += d2 * d2
		s3 += d3 * d3
		x = x[4:]
	}
	for _, v := range x {
		s0 += float64(v) * float64(v)
	}
	return (s0 + s1) + (s2 + s3)
}

// adamStep returns a function that takes one step of Adam (Kingma & Ba, 2015)
// and of the weights' exponential moving average, in one pass over five slices
// of the same length; clip is the factor of every gradient:
//
//	g = clip grad   m = Beta1 m + (1 - Beta1) g   v = Beta2 v + (1 - Beta2) g^2
//	p = p - LR/(1 - Beta1^Step) m / (sqrt(v / (1 - Beta2^Step)) + Eps)
//	e = EMADecay e + (1 - EMADecay) p
//
// Each line is computed in float64 and rounded once: in float32, a decay near 1
// and its complement do not add up to 1, and the average would drift.
func adamStep(p *worker.Pool, params, grads, m, v, ema []float32) func(u graph.Update, clip float64) {
	var u graph.Update
	var factor, rate, correction float64
	update := forRange(p, len(params), grain/4, func(from, to int) {
		params := params[from:to]
		grads, m, v, ema := grads[from:to][:len(params)], m[from:to][:len(params)], v[from:to][:len(params)], ema[from:to][:len(params)]
		clip, beta1, beta2, epsilon, decay := factor, u.Beta1, u.Beta2, u.Eps, u.EMADecay
		rate, correction := rate, correction
		for i, w := range params {
			g := float64(grads[i]) * clip
			m1 := beta1*float64(m[i]) + (1-beta1)*g
			m2 := beta2*float64(v[i]) + (1-beta2)*g*g
			w = float32(float64(w) - rate*m1/(math.Sqrt(m2)*correction+epsilon))
			params[i], m[i], v[i] = w, float32(m1), float32(m2)
			ema[i] = float32(decay*float64(ema[i]) + (1-decay)*float64(w))
		}
	})
	return func(step graph.Update, clip float64) {
		u, factor = step, clip
		rate = u.LR / (1 - math.Pow(u.Beta1, float64(u.Step)))
		correction = 1 / math.Sqrt(1-math.Pow(u.Beta2, float64(u.Step)))
		update()
	}
}

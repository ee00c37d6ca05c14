package cpu

import (
	"math"

	"ddpm/internal/graph/cpu/worker"
)

// expGrain is the number of elements a task takes where each costs an exponential.
const expGrain = 2048

// exp64 is e^x for a float32 argument, with a relative error below 8.4e-10:
//
//	e^x = 2^(k/128) e^(w r),   w = ln(2)/128,   k = round(x/w),   |r| <= 1/2
//	e^u = 1 + (1 + w^2/32) u + u^2/2
//
// The second line is the Taylor polynomial of degree 3 with u^3 replaced by the
// multiple of u that is nearest to it on |u| <= w/2 (Chebyshev).
//
// The work is done in float64: on one lane it costs what float32 would, and a
// result anywhere in float32's range, subnormal or not, is a normal float64.
// Arguments are clamped to +-708, where e^x and its reciprocal still are normal;
// NaN stays NaN. The function is small enough to be inlined.
func exp64(x float32) float64 {
	const (
		w  = math.Ln2 / 128
		c1 = w * (1 + w*w/32)
		c2 = w * w / 2

		// Adding 1.5 * 2^52 rounds to an integer and leaves that integer in
		// the low bits of the sum.
		rounder = 3 << 51
	)
	if x > 708 {
		x = 708
	} else if x < -708 {
		x = -708
	}
	scaled := float64(x) * (1 / w)
	t := scaled + rounder
	r := scaled - (t - rounder)
	k := math.Float64bits(t)
	return (1 + r*(c1+r*c2)) * math.Float64frombits(exp2Table[k%128]+k<<45)
}

// exp2Table[i] holds the bits of 2^(i/128) less i<<45, so that adding k<<45 for
// any k with k mod 128 = i gives the bits of 2^(k/128).
var exp2Table = func() (table [128]uint64) {
	for i := range table {
		table[i] = math.Float64bits(math.Exp2(float64(i)/128)) - uint64(i)<<45
	}
	return table
}()

// exp32 is e^x within 0.52 units in the last place: +Inf from 88.73 on, 0
// below -103.98, NaN for NaN.
func exp32(x float32) float32 { return float32(exp64(x)) }

// The loops over silu and its derivative spell out 1 / (1 + e^-x), so that the
// compiler inlines exp64 into them.

// silu computes y = x sigmoid(x) for n elements, within 0.52 units in the last
// place. y may be x.
func silu(p *worker.Pool, n int, y, x []float32) func() {
	return forRange(p, n, expGrain, func(from, to int) {
		x := x[from:to]
		y := y[from:to][:len(x)]
		for i, v := range x {
			y[i] = float32(float64(v) / (1 + exp64(-v)))
		}
	})
}

// siluGrad computes dx = dy silu'(x) for n elements, where silu'(x) is
// sigmoid(x) (1 + x (1 - sigmoid(x))). dx may be x or dy.
func siluGrad(p *worker.Pool, n int, dx, x, dy []float32) func() {
	return forRange(p, n, expGrain, func(from, to int) {
		x := x[from:to]
		dx, dy := dx[from:to][:len(x)], dy[from:to][:len(x)]
		for i, v := range x {
			sigmoid := 1 / (1 + exp64(-v))
			dx[i] = float32(float64(dy[i]) * sigmoid * (1 + float64(v)*(1-sigmoid)))
		}
	})
}

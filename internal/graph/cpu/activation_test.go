package cpu

import (
	"math"
	"testing"
)

func siluOracle(x float64) (y, slope float64) {
	sigmoid := 1 / (1 + math.Exp(-x))
	return x * sigmoid, sigmoid * (1 + x*(1-sigmoid))
}

func TestSiLU(t *testing.T) {
	for _, n := range lengths {
		x, dy := gaussian(n, 1), gaussian(n, 2)
		y, dx := make([]float64, n), make([]float64, n)
		for i := range x {
			x[i] *= 4
			var slope float64
			y[i], slope = siluOracle(float64(x[i]))
			dx[i] = float64(dy[i]) * slope
		}
		checkKernel(t, [][]float64{y, dx}, 3e-7, func(e *engine) bound {
			gotY, gotDx := poison(n), poison(n)
			forward, backward := e.silu(n, gotY, x), e.siluGrad(n, gotDx, x, dy)
			return bound{[][]float32{gotY, gotDx}, func() {
				forward()
				backward()
			}}
		})
		checkInPlace(t, n, func(e *engine, y, x []float32) func() { return e.silu(n, y, x) })
		checkInPlace(t, n, func(e *engine, dx, x []float32) func() { return e.siluGrad(n, dx, x, dy) })
		checkInPlace(t, n, func(e *engine, dx, dy []float32) func() { return e.siluGrad(n, dx, x, dy) })
	}
}

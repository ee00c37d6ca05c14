package cpu

import (
	"math"
	"testing"

	"ddpm/internal/graph/cpu/worker"
)

// ulps is the distance of got from want in units of float32's last place at
// want; from the largest float32 on, only +Inf is right.
func ulps(got float32, want float64) float64 {
	rounded := float32(want)
	if math.IsInf(float64(rounded), 0) || math.IsInf(float64(got), 0) {
		if got == rounded {
			return 0
		}
		return math.Inf(1)
	}
	_, exponent := math.Frexp(want)
	return math.Abs(float64(got)-want) / math.Ldexp(1, max(exponent-24, -149))
}

// everyFloat calls fn with a sample of all float32 numbers, denser where e^x is
// neither 0 nor Inf nor 1.
func everyFloat(fn func(x float32)) {
	for bits := uint64(0); bits < 1<<32; bits += 9973 {
		if x := math.Float32frombits(uint32(bits)); !math.IsNaN(float64(x)) {
			fn(x)
		}
	}
	for x := float32(-106); x < 106; x += 0.00037 {
		fn(x)
	}
}

func TestExp32(t *testing.T) {
	worst, at := 0.0, float32(0)
	everyFloat(func(x float32) {
		if d := ulps(exp32(x), math.Exp(float64(x))); !(d <= worst) {
			worst, at = d, x
		}
	})
	if !(worst <= 0.52) {
		t.Errorf("exp32(%g) = %g is off by %.3f units in the last place", at, exp32(at), worst)
	}

	inf := float32(math.Inf(1))
	for _, c := range []struct{ x, want float32 }{
		{0, 1}, {float32(math.Copysign(0, -1)), 1}, {inf, inf}, {-inf, 0},
		{math.MaxFloat32, inf}, {-math.MaxFloat32, 0}, {88.73, inf},
		{-103.97, math.SmallestNonzeroFloat32}, {-103.98, 0}, {math.SmallestNonzeroFloat32, 1},
	} {
		if got := exp32(c.x); got != c.want {
			t.Errorf("exp32(%g) = %g, want %g", c.x, got, c.want)
		}
	}
	if got := exp32(float32(math.NaN())); got == got {
		t.Errorf("exp32(NaN) = %g", got)
	}
	if got := exp32(88.72); math.IsInf(float64(got), 0) {
		t.Error("exp32(88.72) overflows")
	}
}

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
		checkKernel(t, [][]float64{y, dx}, 1e-7, func(p *worker.Pool) bound {
			gotY, gotDx := poison(n), poison(n)
			forward, backward := silu(p, n, gotY, x), siluGrad(p, n, gotDx, x, dy)
			return bound{[][]float32{gotY, gotDx}, func() {
				forward()
				backward()
			}}
		})
		checkInPlace(t, n, func(p *worker.Pool, y, x []float32) func() { return silu(p, n, y, x) })
		checkInPlace(t, n, func(p *worker.Pool, dx, x []float32) func() { return siluGrad(p, n, dx, x, dy) })
		checkInPlace(t, n, func(p *worker.Pool, dx, dy []float32) func() { return siluGrad(p, n, dx, x, dy) })
	}
}

// Over all of float32, where 1/(1+e^-x) underflows and overflows.
func TestSiLUOfExtremes(t *testing.T) {
	p := worker.New(1)
	var x []float32
	everyFloat(func(v float32) {
		if !math.IsInf(float64(v), 0) {
			x = append(x, v)
		}
	})
	y, dx, ones := poison(len(x)), poison(len(x)), make([]float32, len(x))
	for i := range ones {
		ones[i] = 1
	}
	silu(p, len(x), y, x)()
	siluGrad(p, len(x), dx, x, ones)()
	for i, v := range x {
		want, slope := siluOracle(float64(v))
		if d := ulps(y[i], want); !(d <= 0.52) {
			t.Fatalf("silu(%g) = %g, want %g: off by %.3f units in the last place", v, y[i], want, d)
		}
		if d := math.Abs(float64(dx[i]) - slope); !(d <= 1e-7) {
			t.Fatalf("silu'(%g) = %g, want %g", v, dx[i], slope)
		}
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		silu(p, 1, y, []float32{float32(v)})()
		if got := float64(y[0]); !math.IsNaN(got) && !math.IsInf(got, 0) {
			t.Errorf("silu(%g) = %g hides a number that is not finite", v, got)
		}
	}
}

package cpu

// expGrain is the number of elements a task takes where each costs an exponential.
const expGrain = 4096

// silu computes y = x sigmoid(x) for n elements. y may be x.
func (e *engine) silu(n int, y, x []float32) func() {
	return forRange(e.pool, n, expGrain, func(from, to int) { e.vec.SiLU(y[from:to], x[from:to]) })
}

// siluGrad computes dx = dy silu'(x) for n elements. dx may be x or dy.
func (e *engine) siluGrad(n int, dx, x, dy []float32) func() {
	return forRange(e.pool, n, expGrain, func(from, to int) { e.vec.SiLUGrad(dx[from:to], x[from:to], dy[from:to]) })
}

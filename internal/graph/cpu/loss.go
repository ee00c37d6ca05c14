package cpu

import (
	"math"

	"ddpm/internal/graph/cpu/worker"
)

// squaredError computes per[n], the mean over i of (pred[n,i] - target[n,i])^2:
// per [N], pred and target [N, D].
func (e *engine) squaredError(N, D int, per, pred, target []float32) func() {
	return forRange(e.pool, N, 1, func(n, _ int) {
		per[n] = float32(e.vec.SumSquaredDifferences(pred[n*D:(n+1)*D], target[n*D:(n+1)*D]) / float64(D))
	})
}

// squaredErrorGrad computes dpred[n,:] = dper[n] 2/D (pred[n,:] - target[n,:]).
// dpred may be pred or target.
func (e *engine) squaredErrorGrad(N, D int, dpred, pred, target, dper []float32) func() {
	return forSamples(e.pool, N, D, grain, func(n, from, to int) {
		from, to = n*D+from, n*D+to
		e.vec.Difference(dpred[from:to], float32(float64(dper[n])*2/float64(D)), pred[from:to], target[from:to])
	})
}

// squaredErrorWide is squaredError where pred has variances, which it passes over.
func (e *engine) squaredErrorWide(w wide, per, pred, target []float32) func() {
	return forRange(e.pool, w.N, 1, func(n, _ int) {
		var sum float64
		at := w.at(n, 0)
		for i, t := range target[n*w.D : (n+1)*w.D] {
			d := float64(pred[at]) - float64(t)
			sum += d * d
			at += w.next(i)
		}
		per[n] = float32(sum / float64(w.D))
	})
}

// squaredErrorWideGrad is squaredErrorGrad where pred and dpred have variances, whose
// gradient is 0.
func (e *engine) squaredErrorWideGrad(w wide, dpred, pred, target, dper []float32) func() {
	return forSamples(e.pool, w.N, w.D/w.C, rowsPerTask(w.K), func(n, from, to int) {
		scale := float32(float64(dper[n]) * 2 / float64(w.D))
		for pixel := n*w.D/w.C + from; pixel < n*w.D/w.C+to; pixel++ {
			dpred, pred, target := dpred[pixel*w.K:(pixel+1)*w.K], pred[pixel*w.K:], target[pixel*w.C:(pixel+1)*w.C]
			clear(dpred[copy(dpred, pred[:w.C]):])
			for i, t := range target {
				dpred[i] = scale * (dpred[i] - t)
			}
		}
	})
}

// weigh computes y[n] = x[n] w[n] for N values. y may be x.
func weigh(p *worker.Pool, N int, y, x, w []float32) func() {
	return forRange(p, N, grain, func(from, to int) {
		for n := from; n < to; n++ {
			y[n] = x[n] * w[n]
		}
	})
}

// pseudoHuber computes y[n] = sqrt(x[n] + c^2) - c for N values.
func pseudoHuber(p *worker.Pool, N int, c float64, y, x []float32) func() {
	return forRange(p, N, expGrain, func(from, to int) {
		for n := from; n < to; n++ {
			// The difference of the roots without the loss of digits.
			v := float64(x[n])
			y[n] = float32(v / (math.Sqrt(v+c*c) + c))
		}
	})
}

// pseudoHuberGrad computes dx[n] = dy[n] / (2 sqrt(x[n] + c^2)) for N values.
func pseudoHuberGrad(p *worker.Pool, N int, c float64, dx, x, dy []float32) func() {
	return forRange(p, N, expGrain, func(from, to int) {
		for n := from; n < to; n++ {
			dx[n] = float32(float64(dy[n]) / (2 * math.Sqrt(float64(x[n])+c*c)))
		}
	})
}

// mean computes out[0], the mean of per [N].
func mean(p *worker.Pool, N int, out, per []float32) func() {
	return forRange(p, 1, 1, func(_, _ int) {
		var sum float64
		for _, v := range per[:N] {
			sum += float64(v)
		}
		out[0] = float32(sum / float64(N))
	})
}

// meanGrad computes dper[n] = dout[0]/N.
func meanGrad(p *worker.Pool, N int, dper, dout []float32) func() {
	return forRange(p, N, grain, func(from, to int) {
		v := float32(float64(dout[0]) / float64(N))
		for n := from; n < to; n++ {
			dper[n] = v
		}
	})
}

package cpu

import "ddpm/internal/graph/cpu/worker"

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

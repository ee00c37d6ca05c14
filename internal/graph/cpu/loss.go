package cpu

import "ddpm/internal/graph/cpu/worker"

// squaredError computes per[n], the mean over i of (pred[n,i] - target[n,i])^2:
// per [N], pred and target [N, D].
func squaredError(p *worker.Pool, N, D int, per, pred, target []float32) func() {
	return forRange(p, N, 1, func(n, _ int) {
		per[n] = float32(sumSquaredDifferences(pred[n*D:(n+1)*D], target[n*D:(n+1)*D]) / float64(D))
	})
}

func sumSquaredDifferences(x, y []float32) float64 {
	var s0, s1, s2, s3 float64
	y = y[:len(x)]
	for len(x) >= 4 && len(y) >= 4 {
		d0, d1 := float64(x[0])-float64(y[0]), float64(x[1])-float64(y[1])
		d2, d3 := float64(x[2])-float64(y[2]), float64(x[3])-float64(y[3])
		s0 += d0 * d0
		s1 += d1 * d1
		s2 += d2 * d2
		s3 += d3 * d3
		x, y = x[4:], y[4:]
	}
	for i, v := range x {
		d := float64(v) - float64(y[i])
		s0 += d * d
	}
	return (s0 + s1) + (s2 + s3)
}

// squaredErrorGrad computes dpred[n,:] = dper[n] 2/D (pred[n,:] - target[n,:]).
// dpred may be pred or target.
func squaredErrorGrad(p *worker.Pool, N, D int, dpred, pred, target, dper []float32) func() {
	return forSamples(p, N, D, grain, func(n, from, to int) {
		slope := float32(float64(dper[n]) * 2 / float64(D))
		pred := pred[n*D+from : n*D+to]
		target, dpred := target[n*D+from : n*D+to][:len(pred)], dpred[n*D+from : n*D+to][:len(pred)]
		for i, v := range pred {
			dpred[i] = slope * (v - target[i])
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

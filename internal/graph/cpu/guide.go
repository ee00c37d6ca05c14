package cpu

import (
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/worker"
)

// twice computes y [2, n] of x [n] and x again.
func twice(p *worker.Pool, n int, y, x []float32) func() {
	return forRange(p, n, grain, func(from, to int) {
		copy(y[from:to], x[from:to])
		copy(y[n+from:n+to], x[from:to])
	})
}

// guidance computes graph.Guidance for N images of P pixels with K channels: g
// [N, P, K] from out [2, N, P, K] and the weight w [1].
func (e *engine) guidance(N, P, K int, g, out, w []float32, op graph.Guidance) func() {
	with, without := halves(out)
	guide := func(n, from, to int) {
		weight := w[0]
		for first := (n*P + from) * K; first < (n*P+to)*K; first += K {
			for i := first; i < first+op.Channels; i++ {
				g[i] = without[i] + weight*(with[i]-without[i])
			}
			copy(g[first+op.Channels:first+K], with[first+op.Channels:first+K])
		}
	}
	if op.Rescale == 0 {
		return forSamples(e.pool, N, P, rowsPerTask(K), guide)
	}
	return forRange(e.pool, N, 1, func(n, _ int) {
		guide(n, 0, P)
		image := g[n*P*K : (n+1)*P*K]
		std := deviation(image, op.Channels, K)
		if std == 0 {
			return
		}
		scale := float32(op.Rescale*deviation(with[n*P*K:(n+1)*P*K], op.Channels, K)/std + 1 - op.Rescale)
		for first := 0; first < len(image); first += K {
			for i := range image[first : first+op.Channels] {
				image[first+i] *= scale
			}
		}
	})
}

// deviation is the standard deviation of the first channels of an image [P, K].
func deviation(image []float32, channels, K int) float64 {
	var sum, squares float64
	for first := 0; first < len(image); first += K {
		for _, v := range image[first : first+channels] {
			sum += float64(v)
		}
	}
	count := float64(len(image) / K * channels)
	mean := sum / count
	for first := 0; first < len(image); first += K {
		for _, v := range image[first : first+channels] {
			d := float64(v) - mean
			squares += d * d
		}
	}
	return math.Sqrt(squares / count)
}

package cpu

import (
	"testing"

	"ddpm/internal/graph/cpu/worker"
)

func TestSquaredError(t *testing.T) {
	for _, s := range nd {
		N, D := s[0], s[1]
		pred, target, dper := gaussian(N*D, 1), gaussian(N*D, 2), gaussian(N, 3)
		per, dpred := make([]float64, N), make([]float64, N*D)
		for i := range pred {
			d := float64(pred[i]) - float64(target[i])
			per[i/D] += d * d / float64(D)
			dpred[i] = float64(dper[i/D]) * 2 / float64(D) * d
		}
		checkKernel(t, [][]float64{per, dpred}, 2e-7, func(p *worker.Pool) bound {
			gotPer, gotDpred := poison(N), poison(N*D)
			forward := squaredError(p, N, D, gotPer, pred, target)
			backward := squaredErrorGrad(p, N, D, gotDpred, pred, target, dper)
			return bound{[][]float32{gotPer, gotDpred}, func() {
				forward()
				backward()
			}}
		})
		checkInPlace(t, N*D, func(p *worker.Pool, dpred, pred []float32) func() {
			return squaredErrorGrad(p, N, D, dpred, pred, target, dper)
		})
	}
}

func TestMean(t *testing.T) {
	for _, N := range []int{1, 3, 16, grain + 1} {
		per, dout := gaussian(N, 1), []float32{1.5}
		var sum float64
		dper := make([]float64, N)
		for i, v := range per {
			sum += float64(v)
			dper[i] = float64(float32(1.5 / float64(N)))
		}
		checkKernel(t, [][]float64{{float64(float32(sum / float64(N)))}, dper}, 0, func(p *worker.Pool) bound {
			out, gotDper := poison(1), poison(N)
			forward, backward := mean(p, N, out, per), meanGrad(p, N, gotDper, dout)
			return bound{[][]float32{out, gotDper}, func() {
				forward()
				backward()
			}}
		})
	}
}

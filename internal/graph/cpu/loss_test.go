package cpu

import (
	"testing"

	"ddpm/internal/graph"
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
		checkKernel(t, [][]float64{per, dpred}, 2e-7, func(e *engine) bound {
			gotPer, gotDpred := poison(N), poison(N*D)
			forward := e.squaredError(N, D, gotPer, pred, target)
			backward := e.squaredErrorGrad(N, D, gotDpred, pred, target, dper)
			return bound{[][]float32{gotPer, gotDpred}, func() {
				forward()
				backward()
			}}
		})
		checkInPlace(t, N*D, func(e *engine, dpred, pred []float32) func() {
			return e.squaredErrorGrad(N, D, dpred, pred, target, dper)
		})
	}
}

// The channels beyond those of the target cost nothing.
func TestSquaredErrorWithVariances(t *testing.T) {
	for _, s := range []graph.Shape{{1, 1}, {3, 5, 7, 2}, {2, 50, 60, 3}} {
		outputs := s.Clone()
		outputs[len(s)-1] *= 2
		n, size := s[0], s.TotalSize()
		pred, target := gaussian(2*size, 1), gaussian(size, 2)
		checkOperation(t, graph.SquaredError{}, 2e-7, []graph.Shape{outputs, s}, pred, target)
		checkOperation(t, graph.SquaredErrorGrad{}, 2e-7, []graph.Shape{outputs, s, {n}}, pred, target, gaussian(n, 3))
	}
}

func TestPerImageLosses(t *testing.T) {
	n := graph.Shape{grain + 1}
	x, w := gaussian(grain+1, 1), gaussian(grain+1, 2)
	checkOperation(t, graph.Weigh{}, 1e-7, []graph.Shape{n, n}, x, w)
	for i := range x {
		x[i] *= 1e-4 * x[i]
	}
	checkOperation(t, graph.PseudoHuber{C: 0.5}, 1e-7, []graph.Shape{n}, x)
	checkOperation(t, graph.PseudoHuberGrad{C: 0.5}, 1e-7, []graph.Shape{n, n}, x, w)
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
		checkKernel(t, [][]float64{{float64(float32(sum / float64(N)))}, dper}, 0, func(e *engine) bound {
			out, gotDper := poison(1), poison(N)
			forward, backward := mean(e.pool, N, out, per), meanGrad(e.pool, N, gotDper, dout)
			return bound{[][]float32{out, gotDper}, func() {
				forward()
				backward()
			}}
		})
	}
}

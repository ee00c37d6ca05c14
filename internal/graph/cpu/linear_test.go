package cpu

import (
	"fmt"
	"testing"

	"ddpm/internal/graph"
)

func TestLinear(t *testing.T) {
	for _, s := range []struct{ m, in, out int }{
		{1, 1, 1}, {2, 3, 5}, {16, 96, 24}, {16, 24, 96}, {3, 48, 48}, {65, 5, 3}, {1100, 24, 33},
	} {
		x, w := gaussian(s.m*s.in, 1), gaussian(s.in*s.out, 2)
		bias, dy := gaussian(s.out, 3), gaussian(s.m*s.out, 4)
		y, dx, dw := make([]float64, len(dy)), make([]float64, len(x)), make([]float64, len(w))
		for i := range s.m {
			for j := range s.out {
				y[i*s.out+j] = float64(bias[j])
				for k := range s.in {
					y[i*s.out+j] += float64(x[i*s.in+k]) * float64(w[k*s.out+j])
					dx[i*s.in+k] += float64(dy[i*s.out+j]) * float64(w[k*s.out+j])
					dw[k*s.out+j] += float64(dy[i*s.out+j]) * float64(x[i*s.in+k])
				}
			}
		}
		residual, addend := gaussian(len(dy), 5), gaussian(len(x), 6)
		for i, v := range residual {
			y[i] += float64(v)
		}
		for i, v := range addend {
			dx[i] += float64(v)
		}
		lead := leading{fusion: graph.Fusion{Residual: true}, ca: s.in, count: 1}
		t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
			checkMatrixKernel(t, [][]float64{y}, func(e *engine) bound {
				return bindWeights(e.linearKernel(s.m, s.in, s.out, lead), 1, len(y), x, w, bias, residual)
			})
			checkMatrixKernel(t, [][]float64{dx}, func(e *engine) bound {
				return bindWeights(e.linearGradDataKernel(s.m, s.in, s.out), 0, len(dx), w, dy, addend)
			})
			checkMatrixKernel(t, [][]float64{dw}, func(e *engine) bound {
				return bindKernel(e.linearGradWeightKernel(s.m, s.out, lead), len(dw), x, dy)
			})
		})
	}
}

package cpu

import (
	"fmt"
	"testing"
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
		t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
			checkMatrixKernel(t, [][]float64{y}, func(e *engine) bound {
				y := poison(len(y))
				return bound{[][]float32{y}, e.linear(s.m, s.in, s.out, y, x, w, bias, poison(e.linearWorkspace(s.m, s.in, s.out)))}
			})
			checkMatrixKernel(t, [][]float64{dx}, func(e *engine) bound {
				dx := poison(len(dx))
				return bound{[][]float32{dx}, e.linearGradData(s.m, s.in, s.out, dx, w, dy, poison(e.linearGradDataWorkspace(s.m, s.in, s.out)))}
			})
			checkMatrixKernel(t, [][]float64{dw}, func(e *engine) bound {
				dw := poison(len(dw))
				return bound{[][]float32{dw}, e.linearGradWeight(s.m, s.in, s.out, dw, x, dy, poison(e.linearGradWeightWorkspace(s.m, s.in, s.out)))}
			})
		})
	}
}

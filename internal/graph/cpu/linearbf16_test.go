package cpu

import (
	"fmt"
	"testing"
)

func TestLinearBF16(t *testing.T) {
	for _, s := range []struct{ m, in, out int }{
		{1, 1, 1}, {2, 3, 5}, {16, 96, 24}, {16, 24, 96}, {3, 48, 48}, {65, 5, 3}, {1100, 24, 33}, {5001, 3, 2},
	} {
		t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
			x, w := gaussian(s.m*s.in, 1), gaussian(s.in*s.out, 2)
			bias, dy := gaussian(s.out, 3), gaussian(s.m*s.out, 4)
			residual, addend := gaussian(s.m*s.out, 5), gaussian(s.m*s.in, 6)
			g := pointwise(1, s.m, s.in, s.out)
			y, dx, dw := convOracle(g, roundBF16(x), roundBF16(w), bias, roundBF16(dy))
			for i, v := range residual {
				y[i] += float64(v)
			}
			for i, v := range addend {
				dx[i] += float64(v)
			}
			src := source{a: x, ca: s.in}
			checkBF16Kernel(t, y, func(e *engine) bound {
				y, packed := poison(len(y)), poison(e.linearBF16WeightsSize(s.in, s.out))
				run := e.linearBF16(s.m, s.in, s.out, y, src, packed, epilogue{bias: bias, residual: residual}, poison(e.linearBF16Workspace(s.m, s.in, s.out)))
				return bound{[][]float32{y}, together(e.linearBF16Weights(s.in, s.out, packed, w), run)}
			})
			checkBF16Kernel(t, dx, func(e *engine) bound {
				dx, packed := poison(len(dx)), poison(e.linearBF16GradDataWeightsSize(s.in, s.out))
				run := e.linearBF16GradData(s.m, s.in, s.out, dx, packed, dy, addend, poison(e.linearBF16GradDataWorkspace(s.m, s.in, s.out)))
				return bound{[][]float32{dx}, together(e.linearBF16GradDataWeights(s.in, s.out, packed, w), run)}
			})
			checkBF16Kernel(t, dw, func(e *engine) bound {
				dw := poison(len(dw))
				return bound{[][]float32{dw}, e.linearBF16GradWeight(s.m, s.in, s.out, dw, src, dy, poison(e.linearBF16GradWeightWorkspace(s.m, s.in, s.out)))}
			})
		})
	}
}

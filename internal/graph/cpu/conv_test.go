package cpu

import (
	"fmt"
	"testing"
)

// convOracle is y, dx and dw of a convolution in float64 by plain loops.
func convOracle(g convGeometry, x, w, bias, dy []float32) (y, dx, dw []float64) {
	y = make([]float64, g.N*g.OH*g.OW*g.K)
	dx, dw = make([]float64, len(x)), make([]float64, len(w))
	for n := range g.N {
		for i := range g.OH {
			for j := range g.OW {
				out := ((n*g.OH+i)*g.OW + j) * g.K
				for k := range g.K {
					if bias != nil {
						y[out+k] = float64(bias[k])
					}
				}
				for r := range g.R {
					for s := range g.S {
						h, v := i*g.Stride+r-g.PadTop, j*g.Stride+s-g.PadLeft
						if h < 0 || h >= g.H || v < 0 || v >= g.W {
							continue
						}
						for c := range g.C {
							in, tap := ((n*g.H+h)*g.W+v)*g.C+c, ((r*g.S+s)*g.C+c)*g.K
							for k := range g.K {
								y[out+k] += float64(x[in]) * float64(w[tap+k])
								dx[in] += float64(dy[out+k]) * float64(w[tap+k])
								dw[tap+k] += float64(dy[out+k]) * float64(x[in])
							}
						}
					}
				}
			}
		}
	}
	return y, dx, dw
}

func TestConv2D(t *testing.T) {
	for _, g := range []convGeometry{
		// The layers of U-Nets: 3x3, 1x1, and 3x3 with stride 2 and both paddings.
		{N: 3, H: 16, W: 16, C: 24, OH: 16, OW: 16, K: 24, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 2, H: 8, W: 8, C: 48, OH: 8, OW: 8, K: 48, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 2, H: 16, W: 16, C: 3, OH: 16, OW: 16, K: 24, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 2, H: 16, W: 16, C: 24, OH: 16, OW: 16, K: 3, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 2, H: 8, W: 8, C: 72, OH: 8, OW: 8, K: 24, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 9, H: 4, W: 4, C: 33, OH: 4, OW: 4, K: 40, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 3, H: 9, W: 7, C: 24, OH: 9, OW: 7, K: 48, R: 1, S: 1, Stride: 1},
		{N: 2, H: 16, W: 16, C: 24, OH: 8, OW: 8, K: 24, R: 3, S: 3, Stride: 2},
		{N: 2, H: 16, W: 16, C: 24, OH: 8, OW: 8, K: 24, R: 3, S: 3, Stride: 2, PadTop: 1, PadLeft: 1},
		// Tiny, odd, large kernels, asymmetric padding, pixels that no tap sees.
		{N: 1, H: 1, W: 1, C: 1, OH: 1, OW: 1, K: 1, R: 1, S: 1, Stride: 1},
		{N: 1, H: 1, W: 1, C: 5, OH: 1, OW: 1, K: 3, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 1, H: 2, W: 3, C: 5, OH: 2, OW: 3, K: 3, R: 5, S: 5, Stride: 1, PadTop: 2, PadLeft: 2},
		{N: 3, H: 7, W: 5, C: 5, OH: 7, OW: 5, K: 24, R: 5, S: 5, Stride: 1, PadTop: 2, PadLeft: 2},
		{N: 2, H: 11, W: 13, C: 5, OH: 6, OW: 7, K: 7, R: 5, S: 3, Stride: 2, PadTop: 2, PadLeft: 1},
		{N: 2, H: 9, W: 9, C: 4, OH: 3, OW: 3, K: 5, R: 3, S: 3, Stride: 3},
		{N: 2, H: 9, W: 8, C: 4, OH: 5, OW: 4, K: 5, R: 1, S: 1, Stride: 2},
		{N: 2, H: 10, W: 10, C: 4, OH: 8, OW: 8, K: 5, R: 3, S: 3, Stride: 1},
		{N: 1, H: 6, W: 6, C: 2, OH: 7, OW: 9, K: 3, R: 3, S: 3, Stride: 1, PadTop: 2, PadLeft: 3},
		{N: 1, H: 3, W: 40, C: 3, OH: 3, OW: 40, K: 17, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 2, H: 28, W: 28, C: 6, OH: 14, OW: 14, K: 33, R: 3, S: 3, Stride: 2},
		{N: 1, H: 5, W: 5, C: 3, OH: 2, OW: 2, K: 2, R: 2, S: 2, Stride: 4},
	} {
		x, w := gaussian(g.N*g.H*g.W*g.C, 1), gaussian(g.R*g.S*g.C*g.K, 2)
		bias, dy := gaussian(g.K, 3), gaussian(g.N*g.OH*g.OW*g.K, 4)
		y, dx, dw := convOracle(g, x, w, bias, dy)
		t.Run(fmt.Sprintf("%+v", g), func(t *testing.T) {
			t.Run("forward", func(t *testing.T) {
				checkMatrixKernel(t, [][]float64{y}, func(e *engine) bound {
					y := poison(len(y))
					return bound{[][]float32{y}, e.conv2D(g, y, x, w, bias, poison(e.conv2DWorkspace(g)))}
				})
			})
			t.Run("data", func(t *testing.T) {
				checkMatrixKernel(t, [][]float64{dx}, func(e *engine) bound {
					dx := poison(len(dx))
					return bound{[][]float32{dx}, e.conv2DGradData(g, dx, w, dy, poison(e.conv2DGradDataWorkspace(g)))}
				})
			})
			t.Run("weight", func(t *testing.T) {
				checkMatrixKernel(t, [][]float64{dw}, func(e *engine) bound {
					dw := poison(len(dw))
					return bound{[][]float32{dw}, e.conv2DGradWeight(g, dw, x, dy, poison(e.conv2DGradWeightWorkspace(g)))}
				})
			})
		})
	}
}

func TestConv2DWithoutBias(t *testing.T) {
	for _, r := range []int{1, 3} {
		g := convGeometry{N: 2, H: 5, W: 5, C: 3, OH: 5, OW: 5, K: 5, R: r, S: r, Stride: 1, PadTop: r / 2, PadLeft: r / 2}
		x, w, dy := gaussian(g.N*g.H*g.W*g.C, 1), gaussian(r*r*g.C*g.K, 2), make([]float32, g.N*g.OH*g.OW*g.K)
		y, _, _ := convOracle(g, x, w, nil, dy)
		checkMatrixKernel(t, [][]float64{y}, func(e *engine) bound {
			y := poison(len(y))
			return bound{[][]float32{y}, e.conv2D(g, y, x, w, nil, poison(e.conv2DWorkspace(g)))}
		})
	}
}

func BenchmarkConv2D(b *testing.B) {
	for _, s := range []struct{ n, size, c, k int }{
		{16, 16, 24, 24}, {16, 8, 48, 48}, {16, 16, 72, 24}, {16, 16, 3, 24}, {16, 16, 24, 3},
		{4, 32, 128, 128}, {4, 16, 256, 256}, {16, 4, 256, 256},
	} {
		g := convGeometry{
			N: s.n, H: s.size, W: s.size, C: s.c, OH: s.size, OW: s.size, K: s.k,
			R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1,
		}
		x, w := gaussian(g.N*g.H*g.W*g.C, 1), gaussian(g.R*g.S*g.C*g.K, 2)
		y, dx, dw := gaussian(g.N*g.OH*g.OW*g.K, 3), make([]float32, len(x)), make([]float32, len(w))
		flops := 2 * g.pixels() * g.R * g.S * g.C * g.K
		name := fmt.Sprintf("%dx%dx%dto%d/", s.size, s.size, s.c, s.k)
		b.Run(name+"forward", func(b *testing.B) {
			benchmarkMatrixKernel(b, flops, func(e *engine) func() {
				return e.conv2D(g, y, x, w, nil, make([]float32, e.conv2DWorkspace(g)))
			})
		})
		b.Run(name+"data", func(b *testing.B) {
			benchmarkMatrixKernel(b, flops, func(e *engine) func() {
				return e.conv2DGradData(g, dx, w, y, make([]float32, e.conv2DGradDataWorkspace(g)))
			})
		})
		b.Run(name+"weight", func(b *testing.B) {
			benchmarkMatrixKernel(b, flops, func(e *engine) func() {
				return e.conv2DGradWeight(g, dw, x, y, make([]float32, e.conv2DGradWeightWorkspace(g)))
			})
		})
	}
}

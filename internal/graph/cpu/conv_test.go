package cpu

import (
	"fmt"
	"slices"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/isa"
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
		t.Run(fmt.Sprintf("%+v", g), func(t *testing.T) {
			for _, f := range []graph.Fusion{
				{}, {PerSample: true}, {Residual: true}, {Joined: true}, {Doubled: true},
				{Joined: true, PerSample: true, Residual: true}, {Doubled: true, Residual: true},
			} {
				if f.Doubled && (g.H%2 == 1 || g.W%2 == 1 || g.pointwise()) || f.Joined && g.C == 1 || f.PerSample && g.pointwise() {
					continue
				}
				t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) { checkConvolution(t, g, f, graph.DirectConv, false) })
				if g.winogradFits() && (f == graph.Fusion{} || f.Joined && f.Residual) {
					for _, keep := range []bool{false, true} {
						t.Run(fmt.Sprintf("%+v/winograd/keep=%v", f, keep), func(t *testing.T) {
							checkConvolution(t, g, f, graph.WinogradConv, keep)
						})
					}
				}
			}
		})
	}
}

// checkConvolution checks a fused convolution and its gradients on every
// instruction set.
func checkConvolution(t *testing.T, g convGeometry, f graph.Fusion, algorithm graph.ConvAlgorithm, keep bool) {
	x, w := gaussian(g.N*g.H*g.W*g.C, 1), gaussian(g.R*g.S*g.C*g.K, 2)
	bias, dy := gaussian(g.K, 3), gaussian(g.N*g.OH*g.OW*g.K, 4)
	perSample, residual, addend := gaussian(g.N*g.K, 5), gaussian(len(dy), 6), gaussian(len(x), 7)

	lead := leading{fusion: f, ca: g.C, count: 1}
	sources := [][]float32{x}
	switch {
	case f.Joined:
		lead.ca, lead.count = g.C/3+1, 2
		lead.cb = g.C - lead.ca
		a, b := make([]float32, 0, len(x)), make([]float32, 0, len(x))
		for i := 0; i < len(x); i += g.C {
			a, b = append(a, x[i:i+lead.ca]...), append(b, x[i+lead.ca:i+g.C]...)
		}
		sources = [][]float32{a, b}
	case f.Doubled:
		small := gaussian(len(x)/4, 8)
		for i := range x {
			n, h, v, c := i/(g.H*g.W*g.C), i/(g.W*g.C)%g.H, i/g.C%g.W, i%g.C
			x[i] = small[((n*g.H/2+h/2)*g.W/2+v/2)*g.C+c]
		}
		sources = [][]float32{small}
	}
	y, dx, dw := convOracle(g, x, w, bias, dy)
	in := append(slices.Clip(sources), w, bias)
	if f.PerSample {
		in = append(in, perSample)
		for i := range y {
			y[i] += float64(perSample[i/(g.OH*g.OW*g.K)*g.K+i%g.K])
		}
	}
	if f.Residual {
		in = append(in, residual)
		for i, v := range residual {
			y[i] += float64(v)
		}
	}
	checkMatrixKernel(t, [][]float64{y}, func(e *engine) bound {
		return bindWeights(e.forwardKernel(g, lead, algorithm, keep), lead.count, len(y), in...)
	})
	checkMatrixKernel(t, [][]float64{dw}, func(e *engine) bound {
		return bindKernel(e.gradWeightKernel(g, lead, algorithm), len(dw), append(slices.Clip(sources), dy)...)
	})
	if f.Joined || f.Doubled {
		return // the gradient of x does not depend on how x is read
	}
	gradient := [][]float32{w, dy}
	if f.Residual {
		gradient = append(gradient, addend)
		for i, v := range addend {
			dx[i] += float64(v)
		}
	}
	checkMatrixKernel(t, [][]float64{dx}, func(e *engine) bound {
		return bindWeights(e.gradDataKernel(g, algorithm, keep), 0, len(dx), gradient...)
	})
}

// TestConvAlgorithm checks that an algorithm that is asked for is the one that
// runs: Winograd's rounds otherwise than the direct one.
func TestConvAlgorithm(t *testing.T) {
	g := same3x3(1, 8, 8, 32, 32)
	x, w, bias, dy := gaussian(g.pixels()*g.C, 1), gaussian(9*g.C*g.K, 2), gaussian(g.K, 3), gaussian(g.pixels()*g.K, 4)
	lead := leading{ca: g.C, count: 1}
	e := newEngine(1, isa.Detect())
	defer e.pool.Close()
	outputs := func(algorithm graph.ConvAlgorithm, keep bool) [][]float32 {
		bounds := []bound{
			bindWeights(e.forwardKernel(g, lead, algorithm, keep), 1, len(dy), x, w, bias),
			bindWeights(e.gradDataKernel(g, algorithm, keep), 0, len(x), w, dy),
			bindKernel(e.gradWeightKernel(g, lead, algorithm), len(w), x, dy),
		}
		var all [][]float32
		for _, b := range bounds {
			b.run()
			all = append(all, b.outputs[0])
		}
		return all
	}
	for _, keep := range []bool{false, true} {
		direct, winograd := outputs(graph.DirectConv, keep), outputs(graph.WinogradConv, keep)
		auto, unnamed := outputs(graph.AutoConv, keep), outputs("", keep)
		for i := range direct {
			if slices.Equal(direct[i], winograd[i]) {
				t.Errorf("pass %d: direct and Winograd's convolution give the same bits", i)
			}
			if !slices.Equal(auto[i], winograd[i]) || !slices.Equal(unnamed[i], auto[i]) {
				t.Errorf("pass %d: auto is not Winograd's where that pays", i)
			}
		}
	}
}

func BenchmarkConv2D(b *testing.B) {
	const algorithm, keep = graph.DirectConv, false
	for _, s := range []struct{ n, size, c, k int }{
		{16, 16, 24, 24}, {16, 8, 48, 48}, {16, 16, 72, 24}, {16, 16, 3, 24}, {16, 16, 24, 3},
		{4, 32, 128, 128}, {4, 16, 256, 256}, {16, 4, 256, 256},
	} {
		g := convGeometry{
			N: s.n, H: s.size, W: s.size, C: s.c, OH: s.size, OW: s.size, K: s.k,
			R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1,
		}
		x, w := gaussian(g.N*g.H*g.W*g.C, 1), gaussian(g.R*g.S*g.C*g.K, 2)
		bias, dy := gaussian(g.K, 3), gaussian(g.N*g.OH*g.OW*g.K, 4)
		lead := leading{ca: g.C, count: 1}
		flops := 2 * g.pixels() * g.R * g.S * g.C * g.K
		name := fmt.Sprintf("%dx%dx%dto%d/", s.size, s.size, s.c, s.k)
		b.Run(name+"forward", func(b *testing.B) {
			benchmarkMatrixKernel(b, flops, func(e *engine) func() {
				return bindWeights(e.forwardKernel(g, lead, algorithm, keep), 1, len(dy), x, w, bias).run
			})
		})
		b.Run(name+"data", func(b *testing.B) {
			benchmarkMatrixKernel(b, flops, func(e *engine) func() {
				return bindWeights(e.gradDataKernel(g, algorithm, keep), 0, len(x), w, dy).run
			})
		})
		b.Run(name+"weight", func(b *testing.B) {
			benchmarkMatrixKernel(b, flops, func(e *engine) func() {
				return bindKernel(e.gradWeightKernel(g, lead, algorithm), len(w), x, dy).run
			})
		})
	}
}

package cpu

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph/cpu/bf16"
	"ddpm/internal/graph/cpu/isa"
)

// checkBF16Kernel is checkMatrixKernel for each family of bfloat16
// instructions of this machine, and for the cuts of the others.
func checkBF16Kernel(t *testing.T, want []float64, bind func(e *engine) bound) {
	t.Helper()
	families := []*bf16.Engine{bf16.Portable(isa.BF16AVX512), bf16.Portable(isa.BF16AMX)}
	for _, kind := range isa.SupportedBF16() {
		families = append(families, bf16.New(kind))
	}
	for i, family := range families {
		name := fmt.Sprintf("family %d (%v)", i, family.Kind())
		var first []float32
		counts := []int{1, 2, 3, 5}
		if i < 2 {
			counts = counts[:1] // the cuts do not know the workers, and plain Go is slow
		}
		for _, workers := range counts {
			e := newEngine(workers, isa.Detect())
			e.bf16 = family
			b := bind(e)
			b.run()
			got := b.outputs[0]
			if first == nil {
				first = got
				if worst, at := furthest(got, want); !(worst <= 1e-5) {
					t.Errorf("%s: element %d is %g, want %g: off by %.2g of the greatest", name, at, got[at], want[at], worst)
				}
			}
			if !slices.Equal(got, first) {
				t.Errorf("%s: output with %d workers differs from that with 1", name, workers)
			}
			if workers == 2 {
				if n := testing.AllocsPerRun(2, b.run); n != 0 {
					t.Errorf("%s: %v allocations a run", name, n)
				}
			}
			e.pool.Close()
		}
	}
}

// roundBF16 is x as the kernels see it.
func roundBF16(x []float32) []float32 {
	r := make([]float32, len(x))
	for i, v := range x {
		r[i] = bf16.Float32(bf16.Round(v))
	}
	return r
}

// together are two steps of one run.
func together(first, second func()) func() {
	return func() {
		first()
		second()
	}
}

// bf16Fusion says how a test's convolution reads its input and what it adds.
type bf16Fusion struct{ joined, doubled, perSample, residual bool }

func TestConvBF16(t *testing.T) {
	for _, g := range []convGeometry{
		// The layers of U-Nets: 3x3, 1x1, and 3x3 with stride 2 and both paddings.
		{N: 2, H: 16, W: 16, C: 24, OH: 16, OW: 16, K: 24, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 1, H: 8, W: 8, C: 48, OH: 8, OW: 8, K: 48, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 2, H: 16, W: 16, C: 3, OH: 16, OW: 16, K: 24, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 2, H: 16, W: 16, C: 24, OH: 16, OW: 16, K: 3, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 9, H: 4, W: 4, C: 33, OH: 4, OW: 4, K: 40, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 1, H: 13, W: 32, C: 17, OH: 13, OW: 32, K: 36, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 3, H: 9, W: 7, C: 24, OH: 9, OW: 7, K: 48, R: 1, S: 1, Stride: 1},
		{N: 2, H: 32, W: 32, C: 24, OH: 32, OW: 32, K: 20, R: 1, S: 1, Stride: 1},
		{N: 2, H: 16, W: 16, C: 24, OH: 8, OW: 8, K: 24, R: 3, S: 3, Stride: 2},
		{N: 1, H: 36, W: 36, C: 5, OH: 18, OW: 18, K: 24, R: 3, S: 3, Stride: 2, PadTop: 1, PadLeft: 1},
		// Tiny, odd, large kernels, asymmetric padding, pixels that no tap sees.
		{N: 1, H: 1, W: 1, C: 1, OH: 1, OW: 1, K: 1, R: 1, S: 1, Stride: 1},
		{N: 1, H: 1, W: 1, C: 5, OH: 1, OW: 1, K: 3, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 1, H: 2, W: 3, C: 5, OH: 2, OW: 3, K: 3, R: 5, S: 5, Stride: 1, PadTop: 2, PadLeft: 2},
		{N: 3, H: 7, W: 5, C: 5, OH: 7, OW: 5, K: 24, R: 5, S: 5, Stride: 1, PadTop: 2, PadLeft: 2},
		{N: 2, H: 11, W: 13, C: 5, OH: 6, OW: 7, K: 7, R: 5, S: 3, Stride: 2, PadTop: 2, PadLeft: 1},
		{N: 2, H: 9, W: 9, C: 4, OH: 3, OW: 3, K: 5, R: 3, S: 3, Stride: 3},
		{N: 2, H: 9, W: 8, C: 4, OH: 5, OW: 4, K: 5, R: 1, S: 1, Stride: 2},
		{N: 1, H: 6, W: 6, C: 2, OH: 7, OW: 9, K: 3, R: 3, S: 3, Stride: 1, PadTop: 2, PadLeft: 3},
		{N: 1, H: 3, W: 40, C: 3, OH: 3, OW: 40, K: 17, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 1, H: 40, W: 28, C: 3, OH: 40, OW: 28, K: 2, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
		{N: 1, H: 5, W: 5, C: 3, OH: 2, OW: 2, K: 2, R: 2, S: 2, Stride: 4},
		// Channels that are a multiple of a page of a cache.
		{N: 1, H: 2, W: 2, C: 1024, OH: 2, OW: 2, K: 3, R: 2, S: 2, Stride: 1, PadTop: 1, PadLeft: 0},
		// Enough images for several sums of the weights.
		{N: 70, H: 8, W: 8, C: 3, OH: 8, OW: 8, K: 3, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1},
	} {
		t.Run(fmt.Sprintf("%+v", g), func(t *testing.T) {
			for _, f := range []bf16Fusion{
				{}, {perSample: true}, {residual: true}, {joined: true, perSample: true, residual: true}, {doubled: true, residual: true},
			} {
				if f.doubled && (g.H%2 == 1 || g.W%2 == 1 || g.pointwise()) || f.joined && g.C == 1 {
					continue
				}
				t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) { checkConvBF16(t, g, f) })
			}
		})
	}
}

func checkConvBF16(t *testing.T, g convGeometry, f bf16Fusion) {
	x, w := gaussian(g.N*g.H*g.W*g.C, 1), gaussian(g.R*g.S*g.C*g.K, 2)
	dy, residual, addend := gaussian(g.N*g.OH*g.OW*g.K, 4), gaussian(g.N*g.OH*g.OW*g.K, 6), gaussian(len(x), 7)
	epi := epilogue{bias: gaussian(g.K, 3)}
	src := source{a: x, ca: g.C}
	switch {
	case f.joined:
		src = source{ca: g.C/3 + 1}
		src.cb = g.C - src.ca
		for i := 0; i < len(x); i += g.C {
			src.a, src.b = append(src.a, x[i:i+src.ca]...), append(src.b, x[i+src.ca:i+g.C]...)
		}
	case f.doubled:
		src = source{a: gaussian(len(x)/4, 8), ca: g.C, doubled: true}
		for i := range x {
			n, h, v, c := i/(g.H*g.W*g.C), i/(g.W*g.C)%g.H, i/g.C%g.W, i%g.C
			x[i] = src.a[((n*g.H/2+h/2)*g.W/2+v/2)*g.C+c]
		}
	}
	y, dx, dw := convOracle(g, roundBF16(x), roundBF16(w), epi.bias, roundBF16(dy))
	if f.perSample {
		epi.perSample = gaussian(g.N*g.K, 5)
		for i := range y {
			y[i] += float64(epi.perSample[i/(g.OH*g.OW*g.K)*g.K+i%g.K])
		}
	}
	if f.residual {
		epi.residual = residual
		for i, v := range residual {
			y[i] += float64(v)
		}
	}
	checkBF16Kernel(t, y, func(e *engine) bound {
		y, packed := poison(len(y)), poison(e.convBF16WeightsSize(g))
		run := e.convBF16(g, y, src, packed, epi, poison(e.convBF16Workspace(g)))
		return bound{[][]float32{y}, together(e.convBF16Weights(g, packed, w), run)}
	})
	checkBF16Kernel(t, dw, func(e *engine) bound {
		dw := poison(len(dw))
		return bound{[][]float32{dw}, e.convBF16GradWeight(g, dw, src, dy, poison(e.convBF16GradWeightWorkspace(g)))}
	})
	if f.joined || f.doubled || f.perSample {
		return // the gradient of x does not depend on these
	}
	if !f.residual {
		addend = nil
	}
	for i, v := range addend {
		dx[i] += float64(v)
	}
	checkBF16Kernel(t, dx, func(e *engine) bound {
		dx, packed := poison(len(dx)), poison(e.convBF16GradDataWeightsSize(g))
		run := e.convBF16GradData(g, dx, packed, dy, addend, poison(e.convBF16GradDataWorkspace(g)))
		return bound{[][]float32{dx}, together(e.convBF16GradDataWeights(g, packed, w), run)}
	})
}

// TestConvBF16Rounding bounds what rounding the operands costs: each by half of
// its last of 8 digits, so each product by 2^-8.
func TestConvBF16Rounding(t *testing.T) {
	g := convGeometry{N: 2, H: 8, W: 8, C: 48, OH: 8, OW: 8, K: 48, R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1}
	x, w, dy := gaussian(g.N*g.H*g.W*g.C, 1), gaussian(g.R*g.S*g.C*g.K, 2), gaussian(g.N*g.OH*g.OW*g.K, 4)
	abs := func(x []float32) []float32 {
		a := make([]float32, len(x))
		for i, v := range x {
			a[i] = float32(math.Abs(float64(v)))
		}
		return a
	}
	y, dx, dw := convOracle(g, x, w, nil, dy)
	yAbs, dxAbs, dwAbs := convOracle(g, abs(x), abs(w), nil, abs(dy))
	for _, kind := range isa.SupportedBF16() {
		e := newEngine(1, isa.Detect())
		e.bf16 = bf16.New(kind)
		check := func(name string, n int, want, sum []float64, run func(out []float32)) {
			out := poison(n)
			run(out)
			var total, square float64
			for i, v := range out {
				d := math.Abs(float64(v) - want[i])
				if !(d <= 0x1.1p-8*sum[i]) {
					t.Fatalf("%v: %s: element %d is %g, want %g: the sum's terms allow %g", kind, name, i, v, want[i], 0x1p-8*sum[i])
				}
				total += d * d
				square += want[i] * want[i]
			}
			// Errors of many terms cancel, as the terms do.
			if r := math.Sqrt(total / square); !(r < 0x1p-8) || r < 0x1p-11 {
				t.Errorf("%v: %s: relative error %g, want about 2^-9", kind, name, r)
			}
		}
		check("forward", len(y), y, yAbs, func(out []float32) {
			packed := poison(e.convBF16WeightsSize(g))
			e.convBF16Weights(g, packed, w)()
			e.convBF16(g, out, source{a: x, ca: g.C}, packed, epilogue{}, poison(e.convBF16Workspace(g)))()
		})
		check("data", len(dx), dx, dxAbs, func(out []float32) {
			packed := poison(e.convBF16GradDataWeightsSize(g))
			e.convBF16GradDataWeights(g, packed, w)()
			e.convBF16GradData(g, out, packed, dy, nil, poison(e.convBF16GradDataWorkspace(g)))()
		})
		check("weight", len(dw), dw, dwAbs, func(out []float32) {
			e.convBF16GradWeight(g, out, source{a: x, ca: g.C}, dy, poison(e.convBF16GradWeightWorkspace(g)))()
		})
		e.pool.Close()
	}
}

func BenchmarkConvBF16(b *testing.B) {
	for _, s := range []struct{ n, size, c, k int }{
		{16, 16, 24, 24}, {16, 8, 48, 48}, {4, 32, 128, 128}, {4, 16, 256, 256}, {16, 4, 256, 256},
	} {
		g := convGeometry{
			N: s.n, H: s.size, W: s.size, C: s.c, OH: s.size, OW: s.size, K: s.k,
			R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1,
		}
		x, w, dy := gaussian(g.N*g.H*g.W*g.C, 1), gaussian(g.R*g.S*g.C*g.K, 2), gaussian(g.N*g.OH*g.OW*g.K, 3)
		y, dx, dw := make([]float32, len(dy)), make([]float32, len(x)), make([]float32, len(w))
		src := source{a: x, ca: g.C}
		for _, kind := range isa.SupportedBF16()[1:] {
			for _, pass := range []struct {
				name string
				bind func(e *engine) func()
			}{
				{"forward", func(e *engine) func() {
					packed := make([]float32, e.convBF16WeightsSize(g))
					e.convBF16Weights(g, packed, w)()
					return e.convBF16(g, y, src, packed, epilogue{}, make([]float32, e.convBF16Workspace(g)))
				}},
				{"data", func(e *engine) func() {
					packed := make([]float32, e.convBF16GradDataWeightsSize(g))
					e.convBF16GradDataWeights(g, packed, w)()
					return e.convBF16GradData(g, dx, packed, dy, nil, make([]float32, e.convBF16GradDataWorkspace(g)))
				}},
				{"weight", func(e *engine) func() {
					return e.convBF16GradWeight(g, dw, src, dy, make([]float32, e.convBF16GradWeightWorkspace(g)))
				}},
			} {
				b.Run(fmt.Sprintf("%dx%dx%dto%d/%s/%v", s.size, s.size, s.c, s.k, pass.name, kind), func(b *testing.B) {
					benchmarkMatrixKernel(b, 2*g.pixels()*g.R*g.S*g.C*g.K, func(e *engine) func() {
						e.bf16 = bf16.New(kind)
						return pass.bind(e)
					})
				})
			}
		}
	}
}

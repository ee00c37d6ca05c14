package cpu

import (
	"fmt"
	"slices"
	"testing"

	"ddpm/internal/graph/cpu/isa"
)

// same3x3 is a 3x3 convolution that keeps the size of its image.
func same3x3(n, h, w, c, k int) convGeometry {
	return convGeometry{
		N: n, H: h, W: w, C: c, OH: h, OW: w, K: k,
		R: 3, S: 3, Stride: 1, PadTop: 1, PadLeft: 1,
	}
}

// whole is the image that a convolution reads.
func (g convGeometry) whole(src source) []float32 {
	x := make([]float32, 0, g.N*g.H*g.W*g.C)
	for n := range g.N {
		for i := range g.H {
			for j := range g.W {
				pixel := (n*g.H+i)*g.W + j
				if src.doubled {
					pixel = (n*g.H/2+i/2)*(g.W/2) + j/2
				}
				x = append(x, src.a[pixel*src.ca:][:src.ca]...)
				x = append(x, src.b[pixel*src.cb:][:src.cb]...)
			}
		}
	}
	return x
}

// plus is y with everything of an epilogue added.
func (g convGeometry) plus(y []float64, epi epilogue) []float64 {
	sum := slices.Clone(y)
	for i := range sum {
		k, n := i%g.K, i/(g.H*g.W*g.K)
		if epi.bias != nil {
			sum[i] += float64(epi.bias[k])
		}
		if epi.perSample != nil {
			sum[i] += float64(epi.perSample[n*g.K+k])
		}
		if epi.residual != nil {
			sum[i] += float64(epi.residual[i])
		}
	}
	return sum
}

func TestWinograd(t *testing.T) {
	for i, test := range []struct {
		convGeometry
		cb      int // channels that come from a second image
		doubled bool
	}{
		// From one block of tiles that panels share to many blocks, and sums over
		// tiles in one chunk and in several.
		{convGeometry: same3x3(2, 8, 8, 24, 40)},
		{convGeometry: same3x3(5, 4, 4, 33, 65)},
		{convGeometry: same3x3(40, 8, 8, 9, 12)},
		{convGeometry: same3x3(16, 16, 16, 8, 8)},
		{convGeometry: same3x3(28, 13, 14, 9, 10)},
		{convGeometry: same3x3(1, 5, 7, 265, 33)},
		{convGeometry: same3x3(1, 4, 4, 8, 8)},
		{convGeometry: same3x3(3, 1, 2, 1, 1)},
		{convGeometry: same3x3(2, 9, 6, 20, 100)},
		{convGeometry: same3x3(1, 8, 8, 72, 24), cb: 24},
		{convGeometry: same3x3(2, 7, 9, 30, 20), cb: 13},
		{convGeometry: same3x3(1, 6, 5, 11, 9), cb: 10},
		{convGeometry: same3x3(2, 8, 12, 24, 17), doubled: true},
		{convGeometry: same3x3(2, 6, 10, 19, 20), doubled: true},
	} {
		g := test.convGeometry
		src := source{ca: g.C - test.cb, cb: test.cb, doubled: test.doubled}
		pixels := g.pixels()
		if test.doubled {
			pixels /= 4
		}
		src.a, src.b = gaussian(pixels*src.ca, 1), gaussian(pixels*src.cb, 2)
		w, dy := gaussian(9*g.C*g.K, 3), gaussian(g.pixels()*g.K, 4)
		y, dx, dw := convOracle(g, g.whole(src), w, nil, dy)
		all := epilogue{gaussian(g.K, 5), gaussian(g.N*g.K, 6), gaussian(len(y), 7)}
		some := epilogue{} // one of the three
		switch i % 3 {
		case 0:
			some.bias = all.bias
		case 1:
			some.perSample = all.perSample
		default:
			some.residual = all.residual
		}
		addend := gaussian(len(dx), 8)
		dxSum := g.adjoint().plus(dx, epilogue{residual: addend})

		check := func(name string, want []float64, bind func(e *engine, out []float32) func()) {
			t.Run(fmt.Sprintf("%+v/%s", test, name), func(t *testing.T) {
				checkMatrixKernel(t, [][]float64{want}, func(e *engine) bound {
					out := poison(len(want))
					return bound{[][]float32{out}, bind(e, out)}
				})
			})
		}
		check("forward", g.plus(y, all), func(e *engine, y []float32) func() {
			u := poison(e.winogradWeightsSize(g))
			weights := e.winogradWeights(g, u, w)
			run := e.winograd(g, y, src, u, all, poison(e.winogradWorkspace(g)))
			return func() { weights(); run() }
		})
		check("once", g.plus(y, some), func(e *engine, y []float32) func() {
			return e.winogradOnce(g, y, src, w, some, poison(e.winogradOnceWorkspace(g)))
		})
		check("data", dx, func(e *engine, dx []float32) func() {
			u := poison(e.winogradGradDataWeightsSize(g))
			weights := e.winogradGradDataWeights(g, u, w)
			run := e.winogradGradData(g, dx, u, dy, nil, poison(e.winogradGradDataWorkspace(g)))
			return func() { weights(); run() }
		})
		check("data once", dxSum, func(e *engine, dx []float32) func() {
			return e.winogradGradDataOnce(g, dx, w, dy, addend, poison(e.winogradGradDataOnceWorkspace(g)))
		})
		check("data in place", dxSum, func(e *engine, dx []float32) func() {
			run := e.winogradGradDataOnce(g, dx, w, dy, dx, poison(e.winogradGradDataOnceWorkspace(g)))
			return func() {
				copy(dx, addend)
				run()
			}
		})
		check("weight", dw, func(e *engine, dw []float32) func() {
			return e.winogradGradWeight(g, dw, src, dy, poison(e.winogradGradWeightWorkspace(g)))
		})
	}
}

// TestWinogradErrors holds the rounding errors of long sums to what package
// winograd says of them, relative to the greatest element of the result.
func TestWinogradErrors(t *testing.T) {
	wide, narrow, many := same3x3(1, 8, 8, 512, 24), same3x3(1, 8, 8, 24, 512), same3x3(64, 8, 8, 8, 8)
	type kernel func(e *engine, g convGeometry, out, x, w, dy []float32) func()
	for _, test := range []struct {
		name   string
		g      convGeometry
		limit  float64
		result int // of convOracle
		bind   kernel
	}{
		{"forward with weights kept, 512 channels", wide, 3e-6, 0, func(e *engine, g convGeometry, out, x, w, _ []float32) func() {
			u := poison(e.winogradWeightsSize(g))
			e.winogradWeights(g, u, w)()
			return e.winograd(g, out, plain(x, g.C), u, epilogue{}, poison(e.winogradWorkspace(g)))
		}},
		{"forward, 512 channels", wide, 3e-6, 0, func(e *engine, g convGeometry, out, x, w, _ []float32) func() {
			return e.winogradOnce(g, out, plain(x, g.C), w, epilogue{}, poison(e.winogradOnceWorkspace(g)))
		}},
		{"data, 512 channels", narrow, 3e-6, 1, func(e *engine, g convGeometry, out, _, w, dy []float32) func() {
			return e.winogradGradDataOnce(g, out, w, dy, nil, poison(e.winogradGradDataOnceWorkspace(g)))
		}},
		{"weight, 4096 pixels", many, 3e-6, 2, func(e *engine, g convGeometry, out, x, _, dy []float32) func() {
			return e.winogradGradWeight(g, out, plain(x, g.C), dy, poison(e.winogradGradWeightWorkspace(g)))
		}},
	} {
		g := test.g
		x, w, dy := gaussian(g.pixels()*g.C, 1), gaussian(9*g.C*g.K, 2), gaussian(g.pixels()*g.K, 3)
		y, dx, dw := convOracle(g, x, w, nil, dy)
		want := [][]float64{y, dx, dw}[test.result]
		for _, set := range isa.Supported() {
			e := newEngine(1, set)
			out := poison(len(want))
			test.bind(e, g, out, x, w, dy)()
			worst, _ := furthest(out, want)
			t.Logf("%s, %v: %.2g", test.name, set, worst)
			if !(worst <= test.limit) {
				t.Errorf("%s, %v: off by %.2g of the greatest element, want at most %g", test.name, set, worst, test.limit)
			}
			e.pool.Close()
		}
	}
}

func TestWinogradRule(t *testing.T) {
	for _, test := range []struct {
		g             convGeometry
		fits          bool
		forward       bool
		data, weights bool
	}{
		{same3x3(16, 32, 32, 128, 128), true, true, true, true},
		{same3x3(16, 4, 4, 512, 256), true, true, true, true},
		{same3x3(16, 16, 16, 24, 24), true, true, true, true},
		{same3x3(16, 7, 7, 64, 64), true, true, true, true},
		{same3x3(16, 32, 32, 3, 128), true, false, true, false},
		{same3x3(16, 32, 32, 128, 3), true, true, false, true},
		{same3x3(16, 16, 16, 16, 16), true, true, true, false},
		{same3x3(16, 8, 8, 8, 8), true, false, false, false},
		{same3x3(16, 5, 5, 128, 128), true, false, false, false}, // most of each tile is outside
		{same3x3(1, 8, 8, 256, 256), true, true, true, true},     // whatever the batch
		{convGeometry{N: 16, H: 16, W: 16, C: 64, OH: 8, OW: 8, K: 64, R: 3, S: 3, Stride: 2, PadTop: 1, PadLeft: 1}, false, false, false, false},
		{convGeometry{N: 16, H: 16, W: 16, C: 64, OH: 14, OW: 14, K: 64, R: 3, S: 3, Stride: 1}, false, false, false, false},
		{convGeometry{N: 16, H: 16, W: 16, C: 64, OH: 16, OW: 16, K: 64, R: 1, S: 1, Stride: 1}, false, false, false, false},
	} {
		if got := test.g.winogradFits(); got != test.fits {
			t.Errorf("%+v: fits is %v, want %v", test.g, got, test.fits)
		}
		for pass, want := range map[convPass]bool{forwardPass: test.forward, gradDataPass: test.data, gradWeightPass: test.weights} {
			if got := test.g.winogradPays(pass); got != want {
				t.Errorf("%+v: pass %d pays is %v, want %v", test.g, pass, got, want)
			}
		}
	}
}

func BenchmarkWinograd(b *testing.B) {
	for _, s := range []struct{ size, c, k int }{
		{32, 128, 128}, {32, 384, 128}, {16, 256, 256}, {8, 256, 256}, {4, 256, 256}, {16, 24, 24}, {8, 48, 48},
	} {
		g := same3x3(16, s.size, s.size, s.c, s.k)
		src, w := source{a: gaussian(g.pixels()*g.C, 1), ca: g.C}, gaussian(9*g.C*g.K, 2)
		dy, dw := gaussian(g.pixels()*g.K, 3), make([]float32, len(w))
		y, dx := make([]float32, len(dy)), make([]float32, len(src.a))
		flops := 2 * 9 * g.pixels() * g.C * g.K
		for _, kernel := range []struct {
			name string
			bind func(e *engine) func()
		}{
			{"forward", func(e *engine) func() {
				u := make([]float32, e.winogradWeightsSize(g))
				e.winogradWeights(g, u, w)()
				return e.winograd(g, y, src, u, epilogue{}, make([]float32, e.winogradWorkspace(g)))
			}},
			{"once", func(e *engine) func() {
				return e.winogradOnce(g, y, src, w, epilogue{}, make([]float32, e.winogradOnceWorkspace(g)))
			}},
			{"data", func(e *engine) func() {
				return e.winogradGradDataOnce(g, dx, w, dy, nil, make([]float32, e.winogradGradDataOnceWorkspace(g)))
			}},
			{"weight", func(e *engine) func() {
				return e.winogradGradWeight(g, dw, src, dy, make([]float32, e.winogradGradWeightWorkspace(g)))
			}},
		} {
			b.Run(fmt.Sprintf("%dx%dx%dto%d/%s", s.size, s.size, s.c, s.k, kernel.name), func(b *testing.B) {
				benchmarkMatrixKernel(b, flops, kernel.bind)
			})
		}
	}
}

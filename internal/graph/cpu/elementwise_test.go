package cpu

import (
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph/cpu/isa"
)

// checkKernel runs a kernel with every instruction set and several numbers of
// workers, twice each. Every output must be within tolerance of want, relative
// to want's greatest element (0 asks for equality), must be the same bits for
// any number of workers, and running must not allocate. bind makes fresh outputs
// and workspace, poisoned.
func checkKernel(t *testing.T, want [][]float64, tolerance float64, bind func(e *engine) bound) {
	t.Helper()
	for _, set := range isa.Supported() {
		var first [][]float32
		for _, workers := range []int{1, 2, 3, 5} {
			e := newEngine(workers, set)
			b := bind(e)
			b.run()
			b.run()
			if first == nil {
				first = b.outputs
				for i := range want {
					checkNear(t, b.outputs[i], want[i], tolerance)
				}
			}
			for i := range b.outputs {
				if !slices.Equal(b.outputs[i], first[i]) {
					t.Errorf("%v: output %d with %d workers differs from that with 1", set, i, workers)
				}
			}
			if n := testing.AllocsPerRun(4, b.run); n != 0 {
				t.Errorf("%v: %v allocations a run with %d workers", set, n, workers)
			}
			e.pool.Close()
		}
	}
}

func checkNear(t *testing.T, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d elements, want %d", len(got), len(want))
	}
	greatest, worst, at := 0.0, -1.0, 0
	for i, w := range want {
		greatest = max(greatest, math.Abs(w))
		d := math.Abs(float64(got[i]) - w)
		if math.IsNaN(d) {
			t.Fatalf("element %d is %g, want %g", i, got[i], w)
		}
		if d > worst {
			worst, at = d, i
		}
	}
	if worst > tolerance*greatest {
		t.Errorf("element %d is %g, want %g: off by %.2g of the greatest", at, got[at], want[at], worst/greatest)
	}
}

// checkInPlace requires that a kernel gives the same bits when its output is its
// input. bind binds it from x to y, of n elements each.
func checkInPlace(t *testing.T, n int, bind func(e *engine, y, x []float32) func()) {
	t.Helper()
	for _, set := range isa.Supported() {
		e := newEngine(2, set)
		x, y := gaussian(n, 77), poison(n)
		bind(e, y, x)()
		bind(e, x, x)()
		if !slices.Equal(x, y) {
			t.Errorf("%v: the result in place differs", set)
		}
		e.pool.Close()
	}
}

func widen(x []float32) []float64 {
	wide := make([]float64, len(x))
	for i, v := range x {
		wide[i] = float64(v)
	}
	return wide
}

var lengths = []int{1, 3, 7, expGrain + 1, 3*grain + 5}

func TestAdd(t *testing.T) {
	for _, n := range lengths {
		a, b := gaussian(n, 1), gaussian(n, 2)
		want := make([]float64, n)
		for i := range want {
			want[i] = float64(a[i] + b[i])
		}
		checkKernel(t, [][]float64{want}, 0, func(e *engine) bound {
			y := poison(n)
			return bound{[][]float32{y}, e.add(n, y, a, b)}
		})
	}
}

func TestAccumulateAndCopyInto(t *testing.T) {
	for _, n := range lengths {
		src := gaussian(n, 1)
		want := widen(src)
		for i := range want {
			want[i] *= 2
		}
		checkKernel(t, [][]float64{want, widen(src)}, 0, func(e *engine) bound {
			sum, dst := poison(n), poison(n)
			fill, start, twice := copyInto(e.pool, n, dst, src), copyInto(e.pool, n, sum, src), e.add(n, sum, sum, src)
			return bound{[][]float32{sum, dst}, func() {
				fill()
				start()
				twice()
			}}
		})
	}
}

// npc are shapes [N, P, C]: one pixel, odd channels, tiles that do not divide,
// more than one task a sample.
var npc = [][3]int{{1, 1, 5}, {3, 1, 5}, {3, 7, 5}, {2, 64, 24}, {2, 9, 130}, {3, 401, 65}}

func TestAddPerSample(t *testing.T) {
	for _, s := range npc {
		N, P, C := s[0], s[1], s[2]
		x, v := gaussian(N*P*C, 1), gaussian(N*C, 2)
		want := make([]float64, N*P*C)
		for i := range want {
			want[i] = float64(x[i] + v[i/(P*C)*C+i%C])
		}
		checkKernel(t, [][]float64{want}, 0, func(e *engine) bound {
			y := poison(N * P * C)
			return bound{[][]float32{y}, e.addPerSample(N, P, C, y, x, v)}
		})
		checkInPlace(t, N*P*C, func(e *engine, y, x []float32) func() { return e.addPerSample(N, P, C, y, x, v) })
	}
}

func TestSumPixels(t *testing.T) {
	for _, s := range npc {
		N, P, C := s[0], s[1], s[2]
		dy := gaussian(N*P*C, 1)
		want := make([]float64, N*C)
		for i, v := range dy {
			want[i/(P*C)*C+i%C] += float64(v)
		}
		checkKernel(t, [][]float64{want}, 1e-7, func(e *engine) bound {
			dv := poison(N * C)
			return bound{[][]float32{dv}, e.sumPixels(N, P, C, dv, dy)}
		})
	}
}

func TestSumRows(t *testing.T) {
	for _, s := range [][2]int{{1, 1}, {1, 5}, {7, 5}, {9, 130}, {2*grain + 3, 3}, {1111, 65}, {70, grain + 1}} {
		M, C := s[0], s[1]
		dy := gaussian(M*C, 1)
		want := make([]float64, C)
		for i, v := range dy {
			want[i%C] += float64(v)
		}
		checkKernel(t, [][]float64{want}, 2e-7, func(e *engine) bound {
			db := poison(C)
			return bound{[][]float32{db}, e.sumRows(M, C, db, dy, poison(sumRowsWorkspace(M, C)))}
		})
	}
}

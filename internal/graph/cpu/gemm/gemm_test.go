package gemm

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"unsafe"

	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/graph/cpu/worker"
	"ddpm/internal/rng"
)

func normal(n int, sample uint32) []float32 {
	x := make([]float32, n)
	rng.Key{Stream: rng.Noise, Sample: sample}.Normals(x)
	return x
}

// poison is memory that nothing may be read from before it is written.
func poison(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.NaN())
	}
	return x
}

// engines runs a test for each instruction set of this machine.
func engines(t *testing.T, workers int, test func(t *testing.T, e *Engine)) {
	for _, set := range isa.Supported() {
		t.Run(set.String(), func(t *testing.T) {
			pool := worker.New(workers)
			defer pool.Close()
			test(t, New(pool, set))
		})
	}
}

// compare fails if got is further from want than tolerance times the greatest
// element of want.
func compare(t *testing.T, got []float32, want []float64, tolerance float64) {
	t.Helper()
	var scale, worst float64
	at := 0
	for i, w := range want {
		scale = max(scale, math.Abs(w))
		if d := math.Abs(float64(got[i]) - w); !(d <= worst) {
			worst, at = d, i
		}
	}
	if !(worst <= tolerance*scale) {
		t.Errorf("element %d of %d is %g, want %g: off by %.2g of the greatest", at, len(want), got[at], want[at], worst/scale)
	}
}

func (m Matrix) element(i, j int) float64 { return float64(m.from(i, j)[0]) }

// product is the oracle.
func product(p Product) []float64 {
	c := make([]float64, p.M*p.N)
	for i := range p.M {
		for j := range p.N {
			if p.Bias != nil {
				c[i*p.N+j] = float64(p.Bias[j])
			}
			if p.Addend != nil {
				c[i*p.N+j] += float64(p.Addend[i*p.N+j])
			}
			for k := range p.K {
				a := p.A.element
				if p.Beside.Data != nil && k >= p.Split {
					a = func(i, k int) float64 { return p.Beside.element(i, k-p.Split) }
				}
				c[i*p.N+j] += a(i, k) * p.B.element(k, j)
			}
		}
	}
	return c
}

// matrix is a random matrix with a gap after each row in memory.
func matrix(rows, columns int, transposed bool, sample uint32) Matrix {
	if transposed {
		rows, columns = columns, rows
	}
	stride := columns + 3
	return Matrix{normal(rows*stride-3, sample), stride, transposed}
}

func TestMultiply(t *testing.T) {
	shapes := [][3]int{
		{1, 1, 1}, {1, 3, 2}, {5, 7, 3}, {13, 17, 19}, {16, 96, 24}, {29, 24, 27}, {113, 48, 40},
		{250, 72, 9}, {3, 130, 513}, {7, 33, 2050}, {24, 48, 4100}, {16, 8, 1031},
	}
	engines(t, 2, func(t *testing.T, e *Engine) {
		for _, s := range shapes {
			for variant := range 64 {
				if s[0]*s[1]*s[2] > 1<<17 && variant%9 != 0 {
					continue // every option is in some of the eight that are left
				}
				p := Product{M: s[0], N: s[1], K: s[2], C: poison(s[0] * s[1])}
				p.A = matrix(p.M, p.K, variant&1 != 0, 1)
				p.B = matrix(p.K, p.N, variant&2 != 0, 2)
				if variant&4 != 0 {
					p.Bias = normal(p.N, 3)
				}
				if variant&8 != 0 {
					p.Addend = normal(p.M*p.N, 4)
				}
				if variant&16 != 0 && p.K > 1 {
					p.Split = p.K/3 + 1
					p.A = matrix(p.M, p.Split, variant&1 != 0, 1)
					p.Beside = matrix(p.M, p.K-p.Split, variant&1 != 0, 5)
				}
				packed := variant&32 != 0
				if packed {
					p.Packed = poison(e.PackedSize(p.K, p.N))
					e.Packer(p.Packed, p.N, p.K, p.B)()
				}
				t.Run(fmt.Sprint(s, variant), func(t *testing.T) {
					run := e.Multiply(p, poison(e.MultiplyWorkspace(p.M, p.N, p.K, packed)))
					want := product(p)
					for range 2 {
						run()
						compare(t, p.C, want, 1e-5)
					}
				})
			}
		}
	})
}

// TestRowsDoNotDependOnTheirNumber checks that a row of a product with packed
// weights has the same bits among few rows as among many.
func TestRowsDoNotDependOnTheirNumber(t *testing.T) {
	engines(t, 2, func(t *testing.T, e *Engine) {
		const n, k, few, many = 40, 1536, 5, 700
		p := Product{N: n, K: k, A: matrix(many, k, false, 1), B: matrix(k, n, false, 2), Packed: poison(e.PackedSize(k, n))}
		e.Packer(p.Packed, n, k, p.B)()
		rows := func(m int) []float32 {
			p.M, p.C = m, poison(m*n)
			e.Multiply(p, poison(e.MultiplyWorkspace(m, n, k, true)))()
			return p.C
		}
		if !slices.Equal(rows(few), rows(many)[:few*n]) {
			t.Error("rows differ by how many there are")
		}
	})
}

func TestMultiplySameForAnyWorkers(t *testing.T) {
	for _, s := range [][3]int{{24, 48, 4100}, {500, 72, 700}, {3, 130, 513}} {
		first := map[isa.Set][]float32{}
		for _, workers := range []int{1, 2, 3, 5} {
			engines(t, workers, func(t *testing.T, e *Engine) {
				p := Product{M: s[0], N: s[1], K: s[2], C: poison(s[0] * s[1])}
				p.A, p.B = matrix(p.M, p.K, true, 1), matrix(p.K, p.N, false, 2)
				e.Multiply(p, poison(e.MultiplyWorkspace(p.M, p.N, p.K, false)))()
				if workers == 1 {
					first[e.set] = p.C
				}
				if !slices.Equal(p.C, first[e.set]) {
					t.Errorf("%v: result with %d workers differs from that with 1", s, workers)
				}
			})
		}
	}
}

func TestMultiplyDoesNotAllocate(t *testing.T) {
	engines(t, 2, func(t *testing.T, e *Engine) {
		p := Product{M: 24, N: 48, K: 4100, C: poison(24 * 48)}
		p.A, p.B = matrix(p.M, p.K, true, 1), matrix(p.K, p.N, false, 2)
		run := e.Multiply(p, poison(e.MultiplyWorkspace(p.M, p.N, p.K, false)))
		if n := testing.AllocsPerRun(5, run); n != 0 {
			t.Errorf("%v allocations a run", n)
		}
	})
}

// TestStrip tries every tile and every number of columns, with everything a
// strip can do, and that nothing around C is touched.
func TestStrip(t *testing.T) {
	const row, step, steps, splitA, splitC = 11, 2, 5, 23, 9
	offsets := []int{0, 31, 7}
	engines(t, 1, func(t *testing.T, e *Engine) {
		for columns := 1; columns <= e.wide; columns++ {
			panel := e.Panel(0, columns)
			k := steps * len(offsets)
			b := normal(columns*k, 1)
			packed := make([]float32, panel.Width*k)
			e.PackPanel(packed, Matrix{Data: b, Stride: columns}, panel, 0, k)
			bias := normal(columns, 2)
			for rows := 1; rows <= e.TileRows(panel.Width)+3; rows++ {
				s := Strip{
					Rows: rows, Layout: NewLayout(row, step, steps, offsets...),
					B: packed, Panel: panel, Bias: bias, Stride: columns + 2,
				}
				if rows%2 == 0 && rows <= e.TileRows(panel.Width) {
					s.SplitA, s.SplitC = splitA, splitC
				}
				s.A = normal((rows-1)*row+s.SplitA+31+(steps-1)*step+1, 3)
				before := normal((rows-1)*s.Stride+s.SplitC+columns, 4)
				s.C = slices.Clone(before)
				s.Accumulate = rows%3 != 0

				want := make([]float64, len(before))
				for i, v := range before {
					want[i] = float64(v)
				}
				for i := range rows {
					a, c := i*row, i*s.Stride
					if i >= rows/2 {
						a, c = a+s.SplitA, c+s.SplitC
					}
					for j := range columns {
						sum := float64(bias[j])
						if s.Accumulate {
							sum += float64(before[c+j])
						}
						for q := range k {
							sum += float64(s.A[a+offsets[q/steps]+q%steps*step]) * float64(b[q*columns+j])
						}
						want[c+j] = sum
					}
				}
				e.Run(&s)
				compare(t, s.C, want, 1e-5)
				if t.Failed() {
					t.Fatalf("in a strip of %d rows and %d columns", rows, columns)
				}
			}
		}
	})
}

func TestStripChecksItsOperands(t *testing.T) {
	engines(t, 1, func(t *testing.T, e *Engine) {
		good := func() Strip {
			return Strip{
				Rows: 3, A: make([]float32, 3*4), Layout: NewLayout(4, 1, 4), B: make([]float32, 4*e.wide),
				Panel: e.Panel(0, e.wide), C: make([]float32, 3*e.wide), Stride: e.wide,
			}
		}
		for name, spoil := range map[string]func(*Strip){
			"":      func(*Strip) {},
			"rows":  func(s *Strip) { s.Rows = 0 },
			"A":     func(s *Strip) { s.A = s.A[1:] },
			"steps": func(s *Strip) { s.Layout = NewLayout(4, 1, 0) },
			"B":     func(s *Strip) { s.B = s.B[1:] },
			"C":     func(s *Strip) { s.C = s.C[1:] },
			"bias":  func(s *Strip) { s.Bias = make([]float32, 1) },
		} {
			s := good()
			spoil(&s)
			failed := func() (failed bool) {
				defer func() { failed = recover() != nil }()
				e.Run(&s)
				return false
			}()
			if failed != (name != "") {
				t.Errorf("spoilt %q: panic is %v", name, failed)
			}
		}
	})
}

func TestCarveAligns(t *testing.T) {
	for skip := range cacheLine {
		ws := make([]float32, skip+Scratch(5, 0, 17))[skip:]
		a, _, b := Carve(&ws, 5), Carve(&ws, 0), Carve(&ws, 17)
		if len(a) != 5 || len(b) != 17 || !aligned(a) || !aligned(b) {
			t.Errorf("skip %d: %d and %d elements at %p and %p", skip, len(a), len(b), a, b)
		}
	}
}

func BenchmarkMultiply(b *testing.B) {
	for _, s := range [][3]int{{1024, 1024, 1024}, {4096, 48, 72}, {16, 96, 96}} {
		for _, transposed := range []bool{false, true} {
			for _, workers := range []int{1, 2} {
				b.Run(fmt.Sprintf("%dx%dx%d/transposed=%v/threads=%d", s[0], s[1], s[2], transposed, workers), func(b *testing.B) {
					pool := worker.New(workers)
					defer pool.Close()
					e := New(pool, isa.Detect())
					p := Product{M: s[0], N: s[1], K: s[2], C: make([]float32, s[0]*s[1])}
					p.A, p.B = matrix(p.M, p.K, transposed, 1), matrix(p.K, p.N, transposed, 2)
					run := e.Multiply(p, make([]float32, e.MultiplyWorkspace(p.M, p.N, p.K, false)))
					for b.Loop() {
						run()
					}
					b.ReportMetric(2*float64(p.M*p.N*p.K)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}

func aligned(x []float32) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(x)))%(4*cacheLine) == 0
}

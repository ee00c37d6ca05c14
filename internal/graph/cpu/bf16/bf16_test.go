package bf16

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/rng"
)

func normal(n int, sample uint32) []float32 {
	x := make([]float32, n)
	rng.Key{Stream: rng.Noise, Sample: sample}.Normals(x)
	return x
}

// rounded are normal numbers and their values once rounded.
func rounded(n int, sample uint32) (bits []uint16, values []float64) {
	for _, v := range normal(n, sample) {
		bits = append(bits, Round(v))
		values = append(values, float64(Float32(Round(v))))
	}
	return bits, values
}

// emulated is an AMX engine for machines without AMX: the driving code runs as
// it does there, and an interpreter runs the kernels. See interpretAMX.
func emulated() *Engine {
	return &Engine{
		kind: isa.BF16AMX, vector: slices.Contains(isa.SupportedBF16(), isa.BF16AVX512),
		emulate: interpretAMX,
	}
}

// engines runs a test for each family of instructions of this machine, and for
// AMX as it is without.
func engines(t *testing.T, test func(t *testing.T, e *Engine)) {
	for _, kind := range isa.SupportedBF16() {
		t.Run(kind.String(), func(t *testing.T) { test(t, New(kind)) })
	}
	t.Run("amx portable", func(t *testing.T) { test(t, Portable(isa.BF16AMX)) })
	t.Run("amx interpreted", func(t *testing.T) { test(t, emulated()) })
}

// TestStrip runs strips of every height and width, with gaps, splits, bias and
// addend, in operands that hold NaN wherever nothing may be read and a mark
// wherever nothing may be written.
func TestStrip(t *testing.T) {
	const mark = 1e30
	offsets := []int{64, 0, 131}
	const steps, row, splitA, splitC = 35, 227, 7, 5
	nan := float32(math.NaN())
	engines(t, func(t *testing.T, e *Engine) {
		padded := e.Padded(steps)
		for _, columns := range []int{1, 2, 15, 16, 17, 18, 25, 31, 32} {
			panel := e.Panel(0, columns)
			k := len(offsets) * steps
			dense := normal(k*columns, 1)
			b := make([]uint16, len(offsets)*padded*panel.Width)
			for i := range b {
				b[i] = Round(nan)
			}
			for s := range offsets {
				e.PackPanel(b[s*padded*panel.Width:], Matrix{Data: dense[s*steps*columns:], Stride: columns}, panel, 0, steps, padded)
			}
			bias := normal(columns, 2)
			for rows := 1; rows <= e.TileRows(panel.Width)+3; rows++ {
				variant := rows + columns
				s := Strip{Rows: rows, Layout: e.Layout(row, steps, offsets...), B: b, Panel: panel, Stride: columns + 2}
				if rows%2 == 0 && rows <= e.TileRows(panel.Width) && variant%3 > 0 {
					s.SplitA, s.SplitC = splitA, splitC
				}
				var a []float64
				s.A, a = rounded((rows-1)*row+s.SplitA+131+padded, 3)
				read := make([]bool, len(a))
				for i := range rows {
					at := i * row
					if i >= (rows+1)/2 {
						at += s.SplitA
					}
					for _, o := range offsets {
						for q := range padded {
							read[at+o+q] = true
						}
					}
				}
				for i, ok := range read {
					if !ok {
						s.A[i] = Round(nan)
					}
				}
				size := (rows-1)*s.Stride + s.SplitC + columns
				s.C = make([]float32, size)
				for i := range s.C {
					s.C[i] = mark
				}
				add := normal(size, 4)
				switch variant % 5 {
				case 0, 1:
					s.Bias = bias
				case 2:
					s.Add = add
				case 3:
					s.Bias, s.Add = bias, add
				case 4:
					copy(s.C, add)
					s.Add = s.C
				}

				want := make([]float64, size)
				for i := range want {
					want[i] = float64(s.C[i])
				}
				bound := make([]float64, size) // the sum of absolute values
				for i := range rows {
					at, c := i*row, i*s.Stride
					if i >= (rows+1)/2 {
						at, c = at+s.SplitA, c+s.SplitC
					}
					for j := range columns {
						var sum float64
						if s.Bias != nil {
							sum += float64(bias[j])
						}
						if s.Add != nil {
							sum += float64(add[c+j])
						}
						bound[c+j] = math.Abs(sum) + 4
						for q := range k {
							v := a[at+offsets[q/steps]+q%steps] * float64(Float32(Round(dense[q*columns+j])))
							sum += v
							bound[c+j] += math.Abs(v)
						}
						want[c+j] = sum
					}
				}
				e.Run(&s)
				for i, w := range want {
					// Rounding of each partial sum, half of which go up.
					if d := math.Abs(float64(s.C[i]) - w); !(d <= 0x1p-24*8*bound[i]) {
						t.Fatalf("%d rows, %d columns: element %d is %g, want %g", rows, columns, i, s.C[i], w)
					}
				}
			}
		}
	})
}

// TestTinyProducts bounds what is lost where products are denormal numbers, which
// the instructions take for zero.
func TestTinyProducts(t *testing.T) {
	engines(t, func(t *testing.T, e *Engine) {
		const k, tiny = 64, 0x1.8p-70
		panel := e.Panel(0, 3)
		b, c := make([]uint16, k*panel.Width), make([]float32, 3)
		a := make([]uint16, k)
		column := make([]float32, 3*k)
		for i := range a {
			a[i] = Round(tiny)
		}
		for i := range column {
			column[i] = tiny
		}
		e.PackPanel(b, Matrix{Data: column, Stride: 3}, panel, 0, k, k)
		e.Run(&Strip{Rows: 1, A: a, Layout: e.Layout(k, k, 0), B: b, Panel: panel, C: c, Stride: 3})
		for _, v := range c {
			if !(math.Abs(float64(v)-k*tiny*tiny) <= k*0x1p-126) {
				t.Errorf("got %g, want %g", v, k*tiny*tiny)
			}
		}
	})
}

// TestKernelsAreInterruptible runs strips on many goroutines while others
// collect garbage and stop the world: what the system saves of a thread when it
// interrupts it must include all registers in use.
func TestKernelsAreInterruptible(t *testing.T) {
	for _, kind := range isa.SupportedBF16() {
		e := New(kind)
		const k, columns, rows, rounds = 1024, 32, 32, 50
		panel := e.Panel(0, columns)
		a, _ := rounded(rows*k, 1)
		b := make([]uint16, k*panel.Width)
		e.PackPanel(b, Matrix{Data: normal(k*columns, 2), Stride: columns}, panel, 0, k, k)
		multiply := func() []float32 {
			c := make([]float32, rows*columns)
			e.Run(&Strip{Rows: rows, A: a, Layout: e.Layout(k, k, 0), B: b, Panel: panel, C: c, Stride: columns})
			return c
		}
		want := multiply()
		var group sync.WaitGroup
		var wrong atomic.Int32
		for range 4 {
			group.Go(func() {
				for range rounds {
					if !slices.Equal(multiply(), want) {
						wrong.Add(1)
					}
				}
			})
			group.Go(func() {
				for range rounds / 10 {
					runtime.GC()
				}
			})
		}
		group.Wait()
		if n := wrong.Load(); n > 0 {
			t.Errorf("%v: %d of %d products differ", kind, n, 4*rounds)
		}
	}
}

func TestStripChecksItsOperands(t *testing.T) {
	engines(t, func(t *testing.T, e *Engine) {
		k := e.Multiple()
		good := func() Strip {
			return Strip{
				Rows: 3, A: make([]uint16, 2*k+k), Layout: e.Layout(k, k, 0), B: make([]uint16, k*wide),
				Panel: e.Panel(0, wide), C: make([]float32, 3*wide), Stride: wide,
			}
		}
		for name, spoil := range map[string]func(*Strip){
			"":      func(*Strip) {},
			"rows":  func(s *Strip) { s.Rows = 0 },
			"A":     func(s *Strip) { s.A = s.A[1:] },
			"steps": func(s *Strip) { s.Layout = &Layout{Row: k, Steps: k - 1, Offsets: []int{0}} },
			"none":  func(s *Strip) { s.Layout = e.Layout(k, k) },
			"B":     func(s *Strip) { s.B = s.B[1:] },
			"C":     func(s *Strip) { s.C = s.C[1:] },
			"add":   func(s *Strip) { s.Add = make([]float32, 3*wide-1) },
			"bias":  func(s *Strip) { s.Bias = make([]float32, 1) },
			"split": func(s *Strip) { s.SplitC = 1; s.C = make([]float32, 4*wide) },
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

func TestRound(t *testing.T) {
	for _, c := range []struct {
		in   uint32
		want uint16
	}{
		{0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82}, {0x3f817fff, 0x3f81},
		{0xbf818000, 0xbf82}, {0x7f7fffff, 0x7f80}, {0xff7fffff, 0xff80}, {0x7f800000, 0x7f80}, {0x7f7f7fff, 0x7f7f},
		{0x00000000, 0}, {0x80000000, 0x8000}, {0x007fffff, 0}, {0x80000001, 0x8000}, {0x00800000, 0x0080},
		{0x7fc00001, 0x7fc0}, {0x7f800001, 0x7fc0}, {0xffa00000, 0xffe0},
	} {
		if got := Round(math.Float32frombits(c.in)); got != c.want {
			t.Errorf("%#08x becomes %#04x, want %#04x", c.in, got, c.want)
		}
	}
}

// awkward are random bit patterns: numbers of every size, among them infinite
// ones, NaNs and denormals.
func awkward(n int, sample uint32) []float32 {
	x := normal(n, sample)
	for i := range x {
		u := math.Float32bits(x[i]) * 0x9e3779b1
		if i%7 == 0 {
			u &= 0x807fffff
		}
		x[i] = math.Float32frombits(u)
	}
	return x
}

// TestConversions compares every routine that rounds with the plain one, bit
// for bit, and that it writes nothing else.
func TestConversions(t *testing.T) {
	const mark = 0xabcd
	fresh := func(n int) []uint16 {
		x := make([]uint16, n)
		for i := range x {
			x[i] = mark
		}
		return x
	}
	same := func(t *testing.T, got, want []uint16, format string, a ...any) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Fatalf(format+": got % x, want % x", append(a, got, want)...)
		}
	}
	engines(t, func(t *testing.T, e *Engine) {
		for rows := range 4 {
			for n := range 70 {
				src := awkward(max(1, rows*(n+3)), uint32(n))
				got, want := fresh(rows*(n+5)+64), fresh(rows*(n+5)+64)
				e.Convert(got, n+5, src, n+3, rows, n)
				convertGeneric(want, n+5, src, n+3, rows, n)
				same(t, got, want, "convert %d rows of %d", rows, n)
			}
		}
		for rows := range 70 {
			for columns := rows % 3; columns < 35; columns += 3 {
				// The operand ends with its last element.
				src := awkward(max(1, rows*(columns+3)-3), uint32(rows))
				got, want := fresh(columns*(rows+1)+64), fresh(columns*(rows+1)+64)
				e.Transpose(got, rows+1, src, columns+3, rows, columns)
				transposeGeneric(want, rows+1, src, columns+3, rows, columns)
				same(t, got, want, "transpose %dx%d", rows, columns)
			}
		}
		for columns := 1; columns <= 2*wide; columns += 5 {
			for k := columns % 3; k < 70; k += 3 {
				for _, transposed := range []bool{false, true} {
					m := Matrix{Stride: columns + 1, Transposed: transposed}
					m.Data = awkward((k+2)*m.Stride+columns, uint32(k))
					if transposed {
						m.Stride = k + 3
						m.Data = awkward(columns*m.Stride+k, uint32(k))
					}
					for q := range e.Panels(columns) {
						p := e.Panel(q, columns)
						padded := e.Padded(k)
						got, want := fresh(padded*p.Width+64), fresh(padded*p.Width+64)
						e.PackPanel(got, m, p, 2, 2+k, padded)
						clear(want[:padded*p.Width])
						packGeneric(want, p, k, func(i, j int) float32 { return m.at(2+i, p.First+j) })
						same(t, got, want, "pack %d x %d, transposed %v", k, columns, transposed)
					}
				}
			}
		}
	})
}

func TestView(t *testing.T) {
	x := make([]float32, 3)
	v := View(x)
	if len(v) != 6 || Floats(5) != 3 || Floats(6) != 3 {
		t.Errorf("a view of %d numbers; 5 take %d elements, 6 take %d", len(v), Floats(5), Floats(6))
	}
	v[5] = Round(-2)
	if x[2] != -2 {
		t.Errorf("the upper half of the last element is -2, the element %g", x[2])
	}
}

package winograd

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/rng"
)

// The maps by their definition.
var (
	bT = [][]float64{
		{A * A * B * B, 0, -A*A - B*B, 0, 1, 0},
		{0, -A * B * B, -B * B, A, 1, 0},
		{0, A * B * B, -B * B, -A, 1, 0},
		{0, -A * A * B, -A * A, B, 1, 0},
		{0, A * A * B, -A * A, -B, 1, 0},
		{0, A * A * B * B, 0, -A*A - B*B, 0, 1},
	}
	aT = [][]float64{
		{1, 1, 1, 1, 1, 0},
		{0, A, -A, B, -B, 0},
		{0, A * A, A * A, B * B, B * B, 0},
		{0, A * A * A, -A * A * A, B * B * B, -B * B * B, 1},
	}
	g = func() (g [][]float64) {
		for _, p := range []float64{0, A, -A, B, -B} {
			slope := 5*p*p*p*p - 3*(A*A+B*B)*p*p + A*A*B*B // of x (x²-A²) (x²-B²)
			g = append(g, []float64{1 / slope, p / slope, p * p / slope})
		}
		return append(g, []float64{0, 0, 1})
	}()
)

func transpose(m [][]float64) [][]float64 {
	t := make([][]float64, len(m[0]))
	for j := range t {
		for i := range m {
			t[j] = append(t[j], m[i][j])
		}
	}
	return t
}

func multiply(x, y [][]float64) [][]float64 {
	z := make([][]float64, len(x))
	for i := range z {
		z[i] = make([]float64, len(y[0]))
		for j := range z[i] {
			for k := range y {
				z[i][j] += x[i][k] * y[k][j]
			}
		}
	}
	return z
}

// both is m x mᵀ.
func both(m, x [][]float64) [][]float64 { return multiply(multiply(m, x), transpose(m)) }

// matrix is rows x columns values.
func matrix(rows, columns int, value func(i, j int) float64) [][]float64 {
	m := make([][]float64, rows)
	for i := range m {
		for j := range columns {
			m[i] = append(m[i], value(i, j))
		}
	}
	return m
}

func normal(n int, sample uint32) []float32 {
	x := make([]float32, n)
	rng.Key{Stream: rng.Noise, Sample: sample}.Normals(x)
	return x
}

// untouched marks memory that nothing may write to, nor read from.
var untouched = float32(math.NaN())

func fill(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = untouched
	}
	return x
}

// expectation collects what memory must hold; the rest must be untouched.
type expectation map[int]float64

func (want expectation) check(t *testing.T, got []float32) {
	t.Helper()
	for i, v := range got {
		w, ok := want[i]
		switch {
		case !ok && !math.IsNaN(float64(v)):
			t.Fatalf("element %d was written", i)
		case ok && !(math.Abs(float64(v)-w) <= 1e-6*(8+math.Abs(w))):
			t.Fatalf("element %d is %v, want %v", i, v, w)
		}
	}
}

// setPlanes expects m in the planes.
func (want expectation) setPlanes(at, plane int, m [][]float64) {
	for i := range Window {
		for j := range Window {
			want[at+(Window*j+i)*plane] = m[i][j]
		}
	}
}

func eachSet(t *testing.T, test func(t *testing.T, k Kernels)) {
	for _, set := range isa.Supported() {
		t.Run(set.String(), func(t *testing.T) { test(t, New(set)) })
	}
}

var channelCounts = []int{1, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48}

func TestInputAndGradient(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, channels := range channelCounts {
			for variant := range 8 {
				first := variant % 2 * 5
				m := &Image{Height: 6, Width: 8, Channels: first + channels, Doubled: variant&2 != 0}
				size, kernel, transform := Window, k.Input, bT
				if variant&4 != 0 {
					size, kernel, transform = Tile, k.Gradient, transpose(aT)
				}
				shift := 0
				if m.Doubled {
					shift = 1
				}
				width := m.Width >> shift
				m.Data = normal((m.Height>>shift)*width*m.Channels, 1)
				zeros := make([]float32, m.Channels)
				for _, at := range [][2]int{{-1, -1}, {1, 2}, {3, 3}, {-9, 0}, {0, 9}} {
					var p Pixels
					p.Take(m, at[0], at[1], size, zeros)
					plane := k.roundUp(channels) + 3
					dst := fill(Planes * plane)
					kernel(dst, plane, &p, first, channels)
					want := expectation{}
					for c := range k.roundUp(channels) {
						want.setPlanes(c, plane, both(transform, matrix(size, size, func(i, j int) float64 {
							h, w := at[0]+i, at[1]+j
							if c >= channels || h < 0 || h >= m.Height || w < 0 || w >= m.Width {
								return 0
							}
							return float64(m.Data[((h>>shift)*width+(w>>shift))*m.Channels+first+c])
						})))
					}
					want.check(t, dst)
				}
			}
		}
	})
}

func TestOutput(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, channels := range channelCounts {
			for variant := range 32 {
				o := Output{Plane: k.roundUp(channels) + 5, Pixel: channels + 2, Channels: channels}
				o.Row = 4*o.Pixel + 3
				o.Rows, o.Columns = 1+variant%4, 1+(variant+variant/8)%4
				o.Src = normal(Planes*o.Plane, 1)
				o.Dst = fill(4 * o.Row)
				if variant&4 != 0 {
					o.Bias = normal(channels, 2)
				}
				if variant&8 != 0 {
					o.PerSample = normal(channels, 3)
				}
				if variant&16 != 0 {
					o.Residual = normal(4*o.Row, 4)
				}
				k.Output(&o)
				want := expectation{}
				for c := range channels {
					y := both(aT, matrix(Window, Window, func(i, j int) float64 {
						return float64(o.Src[(Window*j+i)*o.Plane+c])
					}))
					for i := range o.Rows {
						for j := range o.Columns {
							at := i*o.Row + j*o.Pixel + c
							want[at] = y[i][j]
							if o.Bias != nil {
								want[at] += float64(o.Bias[c])
							}
							if o.PerSample != nil {
								want[at] += float64(o.PerSample[c])
							}
							if o.Residual != nil {
								want[at] += float64(o.Residual[at])
							}
						}
					}
				}
				want.check(t, o.Dst)
			}
		}
	})
}

func TestTaps(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, columns := range channelCounts {
			for _, flipped := range []bool{false, true} {
				const rows = 3
				width := k.roundUp(columns)
				x := Taps{Plane: rows*width + 7, Row: columns + 1, Rows: rows, Columns: columns, Flipped: flipped}
				x.Tap = rows*x.Row + 2
				tap := func(r, s int) int {
					if flipped {
						r, s = 2-r, 2-s
					}
					return (3*r + s) * x.Tap
				}

				x.Taps, x.Planes = normal(9*x.Tap, 1), fill(Planes*x.Plane)
				k.Weights(&x)
				want := expectation{}
				for row := range rows {
					for c := range width {
						want.setPlanes(row*width+c, x.Plane, both(g, matrix(3, 3, func(r, s int) float64 {
							if c >= columns {
								return 0
							}
							return float64(x.Taps[tap(r, s)+row*x.Row+c])
						})))
					}
				}
				want.check(t, x.Planes)

				x.Taps, x.Planes = fill(9*x.Tap), normal(Planes*x.Plane, 2)
				k.WeightGradient(&x)
				want = expectation{}
				for row := range rows {
					for c := range columns {
						dg := both(transpose(g), matrix(Window, Window, func(i, j int) float64 {
							return float64(x.Planes[(Window*j+i)*x.Plane+row*width+c])
						}))
						for r := range 3 {
							for s := range 3 {
								want[tap(r, s)+row*x.Row+c] = dg[r][s]
							}
						}
					}
				}
				want.check(t, x.Taps)
			}
		}
	})
}

func TestTranspose(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, extents := range [][2]int{{k.Lanes(), k.Lanes()}, {3, k.Lanes()}, {k.Lanes(), 1}} {
			rows, columns := extents[0], extents[1]
			srcRow, dstRow := columns+3, rows+2
			src, dst := normal(rows*srcRow, 1), fill(columns*dstRow)
			k.Transpose(dst, dstRow, src, srcRow, rows, columns)
			want := expectation{}
			for i := range rows {
				for j := range columns {
					want[j*dstRow+i] = float64(src[i*srcRow+j])
				}
			}
			want.check(t, dst)
		}
	})
}

// TestCorrelation holds the three maps to what they are for, in float64.
func TestCorrelation(t *testing.T) {
	x, w := normal(36, 1), normal(9, 2)
	d := matrix(Window, Window, func(i, j int) float64 { return float64(x[Window*i+j]) })
	taps := matrix(3, 3, func(r, s int) float64 { return float64(w[3*r+s]) })
	u, v := both(bT, d), both(g, taps)
	y := both(aT, matrix(Window, Window, func(i, j int) float64 { return u[i][j] * v[i][j] }))
	for i := range Tile {
		for j := range Tile {
			want := 0.
			for r := range 3 {
				for s := range 3 {
					want += d[i+r][j+s] * taps[r][s]
				}
			}
			if math.Abs(y[i][j]-want) > 1e-12 {
				t.Errorf("output (%d, %d) is %v, want %v", i, j, y[i][j], want)
			}
		}
	}
}

func TestReachingBeyondPanics(t *testing.T) {
	k := New(isa.Detect())
	lanes := k.Lanes()
	x := normal(1000, 1)
	var p Pixels
	p.Take(&Image{Data: x, Height: 6, Width: 6, Channels: 2}, 0, 0, Window, x)
	for i, call := range []func(){
		func() { p.Take(&Image{Data: x[:71], Height: 6, Width: 6, Channels: 2}, 0, 0, Window, x) },
		func() { p.Take(&Image{Data: x, Height: 6, Width: 6, Channels: 2}, 0, 0, Window, x[:1]) },
		func() { k.Input(make([]float32, 35*9+lanes-1), 9, &p, 0, 2) },
		func() { k.Input(make([]float32, 1000), 9, &p, 1, 2) },
		func() { k.Gradient(make([]float32, 1000), 9, &p, 0, 0) },
		func() {
			k.Output(&Output{Src: x, Plane: 9, Dst: x[:3*20+3*4+2], Row: 20, Pixel: 4, Rows: 4, Columns: 4, Channels: 3})
		},
		func() {
			k.Output(&Output{Src: x, Plane: 9, Dst: x, Row: 20, Pixel: 4, Rows: 4, Columns: 4, Channels: 3, Bias: x[:2]})
		},
		func() {
			k.Weights(&Taps{Planes: x, Plane: lanes, Taps: x[:8*4+2], Tap: 4, Row: 3, Rows: 1, Columns: 3})
		},
		func() {
			k.WeightGradient(&Taps{Planes: x[:35*lanes+lanes-1], Plane: lanes, Taps: x, Tap: 4, Row: 3, Rows: 1, Columns: 3})
		},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			call()
		})
	}
}

func TestKernelsDoNotAllocate(t *testing.T) {
	x := normal(4000, 1)
	eachSet(t, func(t *testing.T, k Kernels) {
		n := testing.AllocsPerRun(10, func() {
			m := Image{Data: x, Height: 6, Width: 6, Channels: 17}
			var p Pixels
			p.Take(&m, -1, 0, Window, x)
			k.Input(x, 40, &p, 0, 17)
			o := Output{Src: x, Plane: 40, Dst: x, Row: 80, Pixel: 17, Rows: 4, Columns: 4, Channels: 17}
			k.Output(&o)
			taps := Taps{Planes: x, Plane: 40, Taps: x, Tap: 17, Row: 17, Rows: 1, Columns: 17}
			k.Weights(&taps)
		})
		if n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// BenchmarkKernels moves 128 channels of a tile, as a layer would from its cache.
func BenchmarkKernels(b *testing.B) {
	k := New(isa.Detect())
	const channels, plane = 128, 128*32 + 16
	x := normal(64*channels, 1)
	planes := slices.Repeat([]float32{1}, Planes*plane)
	m := &Image{Data: x, Height: 8, Width: 8, Channels: channels}
	var p Pixels
	p.Take(m, 0, 0, Window, make([]float32, channels))
	o := Output{Src: planes, Plane: plane, Dst: x, Row: 8 * channels, Pixel: channels, Rows: 4, Columns: 4, Channels: channels}
	taps := Taps{Planes: planes, Plane: plane, Taps: x, Tap: 32 * 4, Row: 32, Rows: 4, Columns: 32}
	for _, kernel := range []struct {
		name string
		run  func()
	}{
		{"input", func() { k.Input(planes, plane, &p, 0, channels) }},
		{"gradient", func() { k.Gradient(planes, plane, &p, 0, channels) }},
		{"output", func() { k.Output(&o) }},
		{"weights", func() { k.Weights(&taps) }},
		{"weightgradient", func() { k.WeightGradient(&taps) }},
		{"take", func() { p.Take(m, -1, -1, Window, x) }},
	} {
		b.Run(kernel.name, func(b *testing.B) {
			for b.Loop() {
				kernel.run()
			}
		})
	}
}

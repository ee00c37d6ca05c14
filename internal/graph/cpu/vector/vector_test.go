package vector

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ddpm/internal/graph/cpu/isa"
)

// eachSet runs a test with every instruction set of the machine.
func eachSet(t *testing.T, test func(t *testing.T, k Kernels)) {
	for _, set := range isa.Supported() {
		t.Run(set.String(), func(t *testing.T) { test(t, For(set)) })
	}
}

// lengths are of ranges: shorter than, equal to and around multiples of every
// vector's width.
var lengths = []int{1, 2, 3, 7, 8, 9, 15, 16, 17, 23, 31, 32, 33, 47, 64, 100, 1000, 1023}

// fenced is memory between two others that must not be written: a kernel that
// reads them meets NaN.
type fenced struct{ all, data []float32 }

const fence = 2 * Lanes

var fencePost = math.Float32frombits(0x7fc0dead)

func newFenced(n int) fenced {
	all := make([]float32, n+2*fence)
	for i := range all {
		all[i] = fencePost
	}
	return fenced{all, all[fence : fence+n : fence+n]}
}

func (f fenced) check(t *testing.T, what string) {
	t.Helper()
	for i, v := range f.all {
		if inside := i - fence; inside < 0 || inside >= len(f.data) {
			if math.Float32bits(v) != math.Float32bits(fencePost) {
				t.Fatalf("%s: element %d of %d was written", what, inside, len(f.data))
			}
		}
	}
}

// normals is fenced memory of normal numbers.
func normals(n int, seed uint64) fenced {
	f := newFenced(n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range f.data {
		f.data[i] = float32(r.NormFloat64())
	}
	return f
}

func (f fenced) clone() fenced {
	c := newFenced(len(f.data))
	copy(c.data, f.data)
	return c
}

// near requires got to be within tolerance of want, relative to the greatest.
func near(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	greatest := math.SmallestNonzeroFloat64
	for _, w := range want {
		greatest = max(greatest, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tolerance*greatest) {
			t.Fatalf("%s: element %d of %d is %g, want %g: off by %.2g of the greatest", what, i, len(want), got[i], w, d/greatest)
		}
	}
}

func near64(t *testing.T, what string, got, want []float64, tolerance float64) {
	t.Helper()
	greatest := math.SmallestNonzeroFloat64
	for _, w := range want {
		greatest = max(greatest, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(got[i] - w); !(d <= tolerance*greatest) {
			t.Fatalf("%s: element %d of %d is %g, want %g: off by %.2g of the greatest", what, i, len(want), got[i], w, d/greatest)
		}
	}
}

// elementwise is a kernel of two inputs whose result for an element depends on
// nothing else.
type elementwise struct {
	name      string
	run       func(k Kernels, y, a, b []float32)
	want      func(y, a, b float64) float64
	tolerance float64
	inPlace   bool // y may be a or b
}

func siluOracle(x float64) (y, slope float64) {
	sigmoid := 1 / (1 + math.Exp(-x))
	return x * sigmoid, sigmoid * (1 + x*(1-sigmoid))
}

var elementwiseKernels = []elementwise{
	{"Add", Kernels.Add, func(_, a, b float64) float64 { return a + b }, 6e-8, true},
	{"AddBothRows", func(k Kernels, y, a, b []float32) {
		k.AddBothRows(Dense(y, len(y)), Dense(a, len(a)), Dense(b, len(b)), 1, len(y))
	}, func(y, a, b float64) float64 { return y + a + b }, 2e-7, false},
	{"AddScaled", func(k Kernels, y, a, _ []float32) { k.AddScaled(y, 0.3, a) },
		func(y, a, _ float64) float64 { return y + float64(float32(0.3))*a }, 2e-7, false},
	{"Mix", func(k Kernels, y, a, b []float32) { k.Mix(y, 0.3, a, -2, b) },
		func(_, a, b float64) float64 { return float64(float32(0.3))*a - 2*b }, 2e-7, true},
	{"Difference", func(k Kernels, y, a, b []float32) { k.Difference(y, 0.25, a, b) },
		func(_, a, b float64) float64 { return 0.25 * (a - b) }, 1e-7, true},
	{"Exp", func(k Kernels, y, a, _ []float32) { k.Exp(y, a) },
		func(_, a, _ float64) float64 { return math.Exp(a) }, 1e-7, true},
	{"SiLU", func(k Kernels, y, a, _ []float32) { k.SiLU(y, a) },
		func(_, a, _ float64) float64 { y, _ := siluOracle(a); return y }, 2e-7, true},
	{"SiLUGrad", Kernels.SiLUGrad,
		func(_, a, b float64) float64 { _, s := siluOracle(a); return b * s }, 3e-7, true},
}

func TestElementwise(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, e := range elementwiseKernels {
			for _, n := range lengths {
				a, b, y := normals(n, 1), normals(n, 2), normals(n, 3)
				want := make([]float64, n)
				for i := range want {
					want[i] = e.want(float64(y.data[i]), float64(a.data[i]), float64(b.data[i]))
				}
				whole, parts := y.clone(), y.clone()
				e.run(k, whole.data, a.data, b.data)
				what := fmt.Sprintf("%s of %d", e.name, n)
				whole.check(t, what)
				near(t, what, whole.data, want, e.tolerance)
				cut := n / 3
				e.run(k, parts.data[:cut], a.data[:cut], b.data[:cut])
				e.run(k, parts.data[cut:], a.data[cut:], b.data[cut:])
				same(t, what+", in two parts", parts.data, whole.data)
				if !e.inPlace {
					continue
				}
				overA, overB := a.clone(), b.clone()
				e.run(k, overA.data, overA.data, b.data)
				e.run(k, overB.data, a.data, overB.data)
				same(t, what+", over the first operand", overA.data, whole.data)
				same(t, what+", over the second operand", overB.data, whole.data)
			}
			e.run(k, nil, nil, nil) // nothing to do
		}
	})
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) {
			t.Fatalf("%s: element %d is %g, was %g", what, i, got[i], w)
		}
	}
}

// ulps is the distance of got from want in units of float32's last place at
// want; from the largest float32 on, only +Inf is right.
func ulps(got float32, want float64) float64 {
	rounded := float32(want)
	if math.IsInf(float64(rounded), 0) || math.IsInf(float64(got), 0) {
		if got == rounded {
			return 0
		}
		return math.Inf(1)
	}
	_, exponent := math.Frexp(want)
	return math.Abs(float64(got)-want) / math.Ldexp(1, max(exponent-24, -149))
}

// floats is a sample of all finite float32 numbers, denser where e^x is neither
// 0 nor Inf nor 1.
func floats() []float32 {
	var all []float32
	for bits := uint64(0); bits < 1<<32; bits += 9973 {
		if x := float64(math.Float32frombits(uint32(bits))); !math.IsNaN(x) && !math.IsInf(x, 0) {
			all = append(all, float32(x))
		}
	}
	for x := float32(-106); x < 106; x += 0.00037 {
		all = append(all, x)
	}
	return all
}

func TestExpOfAllNumbers(t *testing.T) {
	inf := float32(math.Inf(1))
	x := floats()
	eachSet(t, func(t *testing.T, k Kernels) {
		y := make([]float32, len(x))
		k.Exp(y, x)
		worst, at := 0.0, 0
		for i, v := range x {
			if d := ulps(y[i], math.Exp(float64(v))); !(d <= worst) {
				worst, at = d, i
			}
		}
		t.Logf("worst error %.3f units in the last place, at %g", worst, x[at])
		if !(worst <= 1) {
			t.Errorf("e^%g = %g is off by %.3f units in the last place", x[at], y[at], worst)
		}
		for _, c := range []struct{ x, want float32 }{
			{0, 1}, {float32(math.Copysign(0, -1)), 1}, {inf, inf}, {-inf, 0},
			{math.MaxFloat32, inf}, {-math.MaxFloat32, 0}, {88.73, inf},
			{-103.97, math.SmallestNonzeroFloat32}, {-103.98, 0}, {math.SmallestNonzeroFloat32, 1},
		} {
			if k.Exp(y, []float32{c.x}); y[0] != c.want {
				t.Errorf("e^%g = %g, want %g", c.x, y[0], c.want)
			}
		}
		if k.Exp(y, []float32{float32(math.NaN())}); y[0] == y[0] {
			t.Errorf("e^NaN = %g", y[0])
		}
		if k.Exp(y, []float32{88.72}); math.IsInf(float64(y[0]), 0) {
			t.Error("e^88.72 overflows")
		}
	})
}

func TestSiLUOfAllNumbers(t *testing.T) {
	x := floats()
	ones := make([]float32, len(x))
	for i := range ones {
		ones[i] = 1
	}
	eachSet(t, func(t *testing.T, k Kernels) {
		y, dx := make([]float32, len(x)), make([]float32, len(x))
		k.SiLU(y, x)
		k.SiLUGrad(dx, x, ones)
		worst, worstSlope := 0.0, 0.0
		for i, v := range x {
			want, slope := siluOracle(float64(v))
			d := ulps(y[i], want)
			if !(d <= 3) && !(math.Abs(float64(y[i])-want) <= 3e-37) {
				t.Fatalf("silu(%g) = %g, want %g: off by %.3f units in the last place", v, y[i], want, d)
			}
			if math.Abs(want) > 3e-37 {
				worst = max(worst, d)
			}
			s := math.Abs(float64(dx[i]) - slope)
			if !(s <= 3e-7) {
				t.Fatalf("silu'(%g) = %g, want %g", v, dx[i], slope)
			}
			worstSlope = max(worstSlope, s)
		}
		t.Logf("worst error of silu %.3f units in the last place, of its slope %.2g", worst, worstSlope)
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			k.SiLU(y, []float32{float32(v)})
			if got := float64(y[0]); !math.IsNaN(got) && !math.IsInf(got, 0) {
				t.Errorf("silu(%g) = %g hides a number that is not finite", v, got)
			}
		}
		if k.SiLUGrad(dx, []float32{float32(math.NaN())}, ones); dx[0] == dx[0] {
			t.Errorf("silu'(NaN) = %g", dx[0])
		}
	})
}

func TestSumsOfSquares(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, n := range lengths {
			x, y := normals(n, 1), normals(n, 2)
			var squares, differences float64
			for i, v := range x.data {
				d := float64(v) - float64(y.data[i])
				squares += float64(v) * float64(v)
				differences += d * d
			}
			got := []float64{k.SumSquares(x.data), k.SumSquaredDifferences(x.data, y.data)}
			near64(t, fmt.Sprint("sums of ", n), got[:1], []float64{squares}, 1e-13)
			near64(t, fmt.Sprint("differences of ", n), got[1:], []float64{differences}, 1e-13)
		}
		if got := k.SumSquares(nil); got != 0 {
			t.Errorf("the sum of nothing is %g", got)
		}
		huge := []float32{math.MaxFloat32, -math.MaxFloat32, math.MaxFloat32}
		if got := k.SumSquares(huge); math.IsInf(got, 0) {
			t.Error("squares of float32 numbers overflow")
		}
	})
}

// shapes are rows, columns and the gap between rows.
var shapes = [][3]int{{1, 1, 0}, {3, 5, 0}, {1, 16, 0}, {7, 17, 3}, {4, 33, 0}, {9, 240, 0}, {5, 100, 28}, {2, 256, 1}}

func (f fenced) rows(s [3]int) Rows { return Rows{f.data, s[1] + s[2]} }

// rowNormals is fenced rows of normal numbers with NaN in the gaps.
func rowNormals(s [3]int, seed uint64) fenced {
	f := normals(s[0]*(s[1]+s[2])-s[2], seed)
	for i := range f.data {
		if i%(s[1]+s[2]) >= s[1] {
			f.data[i] = fencePost
		}
	}
	return f
}

// checkRows checks the fences and the gaps.
func (f fenced) checkRows(t *testing.T, what string, s [3]int) {
	t.Helper()
	f.check(t, what)
	for i, v := range f.data {
		if i%(s[1]+s[2]) >= s[1] && math.Float32bits(v) != math.Float32bits(fencePost) {
			t.Fatalf("%s: the gap after a row was written", what)
		}
	}
}

// dense is the rows without their gaps.
func (f fenced) dense(s [3]int) []float32 {
	var d []float32
	for i := range s[0] {
		d = append(d, f.rows(s).row(i, s[1])...)
	}
	return d
}

func TestAddRowsRepeatsARow(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, s := range shapes {
			x, v, y := rowNormals(s, 1), normals(s[1], 2), rowNormals(s, 3)
			k.AddRows(y.rows(s), x.rows(s), Rows{v.data, 0}, s[0], s[1])
			y.checkRows(t, fmt.Sprint(s), s)
			want := make([]float64, s[0]*s[1])
			for i, d := range x.dense(s) {
				want[i] = float64(d + v.data[i%s[1]])
			}
			near(t, fmt.Sprint(s), y.dense(s), want, 0)
		}
	})
}

func TestSoftmax(t *testing.T) {
	const scale = 0.7
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, s := range shapes {
			p, dp := rowNormals(s, 1), rowNormals(s, 2)
			for i := range p.data {
				p.data[i] *= 5
			}
			x, dy := p.dense(s), dp.dense(s)
			want, grad := make([]float64, len(x)), make([]float64, len(x))
			for i := range s[0] {
				var sum, dot float64
				for j := i * s[1]; j < (i+1)*s[1]; j++ {
					want[j] = math.Exp(scale * float64(x[j]))
					sum += want[j]
				}
				for j := i * s[1]; j < (i+1)*s[1]; j++ {
					want[j] /= sum
					dot += want[j] * float64(dy[j])
				}
				for j := i * s[1]; j < (i+1)*s[1]; j++ {
					grad[j] = scale * want[j] * (float64(dy[j]) - dot)
				}
			}
			k.Softmax(p.rows(s), s[0], s[1], scale)
			p.checkRows(t, "softmax", s)
			near(t, fmt.Sprint("softmax ", s), p.dense(s), want, 1e-6)
			k.SoftmaxGrad(dp.rows(s), p.rows(s), s[0], s[1], scale)
			dp.checkRows(t, "softmax gradient", s)
			near(t, fmt.Sprint("softmax gradient ", s), dp.dense(s), grad, 2e-6)
		}
		// Only differences count, however large the numbers.
		for _, offset := range []float32{-1e30, -1e4, 1e4, 3e38} {
			p := []float32{offset, offset, offset, -math.MaxFloat32, offset}
			k.Softmax(Dense(p, 5), 1, 5, 1)
			near(t, fmt.Sprint("softmax near ", offset), p, []float64{0.25, 0.25, 0.25, 0, 0.25}, 1e-6)
		}
		for at := range 19 {
			p := make([]float32, 19)
			p[at] = float32(math.NaN())
			k.Softmax(Dense(p, 19), 1, 19, 1)
			for _, v := range p {
				if v == v {
					t.Fatalf("NaN at %d of a row gives %g", at, v)
				}
			}
		}
	})
}

// untouched requires the entries beyond the columns of a table to be as they
// were.
func untouched(t *testing.T, what string, beyond []float64) {
	t.Helper()
	for i, v := range beyond {
		if math.Float64bits(v) != math.Float64bits(float64(fencePost)) {
			t.Fatalf("%s: entry %d beyond the columns is %g", what, i, v)
		}
	}
}

// table is an entry for each column, and padding.
func table(columns int, seed uint64) []float32 {
	f := normals((columns+Lanes-1)/Lanes*Lanes, seed)
	for i := columns; i < len(f.data); i++ {
		f.data[i] = fencePost
	}
	return f.data
}

func widened(x []float32) []float64 {
	wide := make([]float64, len(x))
	for i, v := range x {
		wide[i] = float64(v)
	}
	return wide
}

func TestColumns(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, s := range shapes {
			rows, columns := s[0], s[1]
			x, shift := rowNormals(s, 1), widened(table(columns, 2))
			// The sums continue those of earlier rows.
			sum, first, second := widened(table(columns, 3)), widened(table(columns, 4)), widened(table(columns, 5))
			wantSum, wantFirst, wantSecond := append([]float64{}, sum...), append([]float64{}, first...), append([]float64{}, second...)
			for i, v := range x.dense(s) {
				c := i % columns
				d := float64(v) - shift[c]
				wantSum[c] += float64(v)
				wantFirst[c] += d
				wantSecond[c] += d * d
			}
			k.SumColumns(sum, x.rows(s), rows, columns)
			k.Moments(first, second, shift, x.rows(s), rows, columns)
			for _, c := range []struct {
				what      string
				got, want []float64
			}{{"sum", sum, wantSum}, {"first moment", first, wantFirst}, {"second moment", second, wantSecond}} {
				near64(t, fmt.Sprint(c.what, s), c.got, c.want[:columns], 1e-14)
				untouched(t, fmt.Sprint(c.what, s), c.got[columns:])
			}

			// The columns of a part of the rows do not know of the others.
			if columns >= Lanes+4 {
				part := make([]float64, 2*Lanes)
				k.SumColumns(part, Rows{x.data[3:], x.rows(s).Stride}, rows, Lanes+1)
				whole := make([]float64, len(sum))
				k.SumColumns(whole, x.rows(s), rows, columns)
				near64(t, "part", part, whole[3:3+Lanes+1], 0)
			}
		}
	})
}

func TestNorm(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, s := range shapes {
			for _, silu := range []bool{false, true} {
				rows, columns := s[0], s[1]
				dense := [3]int{rows, columns, 0}
				x, dy := rowNormals(s, 1), rowNormals(dense, 2)
				a := Affine{table(columns, 3), table(columns, 4), table(columns, 5)}
				level, tilt := table(columns, 6), table(columns, 7)
				n := rows * columns
				y, dx := make([]float64, n), make([]float64, n)
				sum, dot := make([]float64, columns), make([]float64, columns)
				for i, v := range x.dense(s) {
					c := i % columns
					d := float64(v) - float64(a.Mean[c])
					z := d*float64(a.Scale[c]) + float64(a.Shift[c])
					y[i] = z
					dz := float64(dy.data[i])
					if silu {
						var slope float64
						y[i], slope = siluOracle(z)
						dz *= slope
					}
					sum[c] += dz
					dot[c] += dz * d
					dx[i] = float64(a.Scale[c])*dz - (float64(level[c]) + float64(tilt[c])*d)
				}
				what := fmt.Sprint(s, silu)
				gotY, gotDx := rowNormals(dense, 8), rowNormals(s, 9)
				k.Norm(gotY.rows(dense), x.rows(s), rows, columns, a, silu)
				gotY.check(t, what)
				near(t, "y "+what, gotY.data, y, 4e-7)

				k.NormGrad(gotDx.rows(s), x.rows(s), dy.rows(dense), rows, columns, a, level, tilt, silu)
				gotDx.checkRows(t, what, s)
				near(t, "dx "+what, gotDx.dense(s), dx, 1e-6)
				over := dy.clone()
				k.NormGrad(over.rows(dense), x.rows(s), over.rows(dense), rows, columns, a, level, tilt, silu)
				same(t, "dx over dy "+what, over.data, gotDx.dense(s))

				gotSum, gotDot := widened(table(columns, 1)), widened(table(columns, 1))
				clear(gotSum[:columns])
				clear(gotDot[:columns])
				half := rows / 2
				k.NormSums(gotSum, gotDot, x.rows(s), dy.rows(dense), half, columns, a, silu)
				k.NormSums(gotSum, gotDot, Rows{x.data[half*x.rows(s).Stride:], x.rows(s).Stride},
					Rows{dy.data[half*columns:], columns}, rows-half, columns, a, silu)
				near64(t, "sum "+what, gotSum, sum, 1e-6)
				near64(t, "dot "+what, gotDot, dot, 1e-6)
				untouched(t, "sum "+what, gotSum[columns:])
				untouched(t, "dot "+what, gotDot[columns:])
			}
		}
	})
}

func TestAdam(t *testing.T) {
	step := &Step{Clip: 0.5, Beta1: 0.9, Beta2: 0.999, Rate: 0.01, Correction: 3, Epsilon: 1e-8, Decay: 0.99}
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, n := range lengths {
			operands := [5]fenced{normals(n, 1), normals(n, 2), normals(n, 3), normals(n, 4), normals(n, 5)}
			for i := range operands[3].data {
				operands[3].data[i] *= operands[3].data[i] // second moments are not negative
			}
			got, want := [5]fenced{}, [5]fenced{}
			for i, o := range operands {
				got[i], want[i] = o.clone(), o.clone()
			}
			k.Adam(step, got[0].data, got[1].data, got[2].data, got[3].data, got[4].data)
			step.generic(want[0].data, want[1].data, want[2].data, want[3].data, want[4].data)
			for i := range got {
				what := fmt.Sprintf("argument %d of %d", i, n)
				got[i].check(t, what)
				// Both round float64 once; where the float64 values differ, the
				// roundings may.
				near(t, what, got[i].data, widened(want[i].data), 1.2e-7)
			}
			parts := [5]fenced{}
			for i, o := range operands {
				parts[i] = o.clone()
			}
			cut := n / 3
			k.Adam(step, parts[0].data[:cut], parts[1].data[:cut], parts[2].data[:cut], parts[3].data[:cut], parts[4].data[:cut])
			k.Adam(step, parts[0].data[cut:], parts[1].data[cut:], parts[2].data[cut:], parts[3].data[cut:], parts[4].data[cut:])
			for i := range parts {
				same(t, "in two parts", parts[i].data, got[i].data)
			}
		}
	})
}

func TestTranspose(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, rows := range []int{1, 7, 8, 16, 19, 32, 33} {
			for _, columns := range []int{1, 5, 8, 16, 31, 48, 50} {
				for _, gap := range []int{0, 3} {
					from, to := [3]int{rows, columns, gap}, [3]int{columns, rows, 2 * gap}
					x, y := rowNormals(from, 1), rowNormals(to, 2)
					k.Transpose(y.rows(to), x.rows(from), rows, columns)
					y.checkRows(t, fmt.Sprint(from), to)
					for i := range rows {
						for j := range columns {
							if got, want := y.rows(to).row(j, rows)[i], x.rows(from).row(i, columns)[j]; got != want {
								t.Fatalf("%v: element (%d, %d) is %g, want %g", from, j, i, got, want)
							}
						}
					}
				}
			}
		}
	})
}

// TestShortOperandsPanic: assembly must not be let loose on memory that is not
// an operand's, even if it follows in the same array.
func TestShortOperandsPanic(t *testing.T) {
	long := make([]float32, 64)
	short, wide, shortWide := long[:20], make([]float64, 64), make([]float64, 64)[:20]
	a := Affine{long, long, long}
	eachSet(t, func(t *testing.T, k Kernels) {
		for name, call := range map[string]func(){
			"Add":         func() { k.Add(long, long, short) },
			"SiLU":        func() { k.SiLU(short, long) },
			"Mix":         func() { k.Mix(long, 1, short, 1, long) },
			"Softmax":     func() { k.Softmax(Rows{short, 10}, 3, 5, 1) },
			"SumColumns":  func() { k.SumColumns(shortWide, Dense(long, 32), 2, 32) },
			"Moments":     func() { k.Moments(wide, wide, wide, Dense(short, 8), 3, 8) },
			"Norm":        func() { k.Norm(Dense(long, 32), Dense(long, 32), 1, 32, Affine{long, short, long}, true) },
			"NormSums":    func() { k.NormSums(wide, shortWide, Dense(long, 32), Dense(long, 32), 2, 32, a, true) },
			"NormGrad":    func() { k.NormGrad(Dense(short, 32), Dense(long, 32), Dense(long, 32), 1, 32, a, long, long, true) },
			"Adam":        func() { k.Adam(&Step{}, long, long, long, short, long) },
			"Transpose":   func() { k.Transpose(Dense(short, 16), Dense(long, 16), 16, 4) },
			"SoftmaxGrad": func() { k.SoftmaxGrad(Dense(long, 32), Dense(short, 32), 1, 32, 1) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s reaches beyond an operand", name)
					}
				}()
				call()
			}()
		}
	})
}

func TestNothingAllocates(t *testing.T) {
	eachSet(t, func(t *testing.T, k Kernels) {
		x, sum := make([]float32, 64), make([]float64, 64)
		rows := Dense(x, 64)
		a := Affine{x, x, x}
		if n := testing.AllocsPerRun(10, func() {
			k.Add(x, x, x)
			k.SiLU(x, x)
			k.SumSquares(x)
			k.Softmax(rows, 1, 64, 1)
			k.Moments(sum, sum, sum, rows, 1, 64)
			k.Norm(rows, rows, 1, 64, a, true)
			k.NormGrad(rows, rows, rows, 1, 64, a, x, x, true)
			k.Adam(&Step{}, x, x, x, x, x)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// BenchmarkKernels reports the memory that each kernel reads and writes, from
// the second-level cache.
func BenchmarkKernels(b *testing.B) {
	const n, columns = 1 << 15, 256
	const rows = n / columns
	x, y, z := normals(n, 1).data, normals(n, 2).data, normals(n, 3).data
	m, v := make([]float32, n), make([]float32, n)
	wide := func() []float64 { return make([]float64, columns) }
	sum, dot, shift := wide(), wide(), wide()
	a := Affine{table(columns, 3), table(columns, 4), table(columns, 5)}
	level, tilt := table(columns, 6), table(columns, 7)
	step := &Step{Clip: 1, Beta1: 0.9, Beta2: 0.999, Rate: 1e-4, Correction: 1, Epsilon: 1e-8, Decay: 0.999}
	for _, c := range []struct {
		name  string
		words int // read or written for each element
		run   func(k Kernels)
	}{
		{"add", 3, func(k Kernels) { k.Add(z, x, y) }},
		{"addScaled", 3, func(k Kernels) { k.AddScaled(z, 1e-9, x) }},
		{"exp", 2, func(k Kernels) { k.Exp(z, x) }},
		{"silu", 2, func(k Kernels) { k.SiLU(z, x) }},
		{"siluGrad", 3, func(k Kernels) { k.SiLUGrad(z, x, y) }},
		{"softmax", 2, func(k Kernels) { k.Softmax(Dense(z, columns), rows, columns, 1) }},
		{"sumSquares", 1, func(k Kernels) { k.SumSquares(x) }},
		{"sumColumns", 1, func(k Kernels) { k.SumColumns(sum, Dense(x, columns), rows, columns) }},
		{"moments", 1, func(k Kernels) { k.Moments(sum, dot, shift, Dense(x, columns), rows, columns) }},
		{"normSiLU", 2, func(k Kernels) { k.Norm(Dense(z, columns), Dense(x, columns), rows, columns, a, true) }},
		{"normSumsSiLU", 2, func(k Kernels) {
			k.NormSums(sum, dot, Dense(x, columns), Dense(y, columns), rows, columns, a, true)
		}},
		{"normGradSiLU", 3, func(k Kernels) {
			k.NormGrad(Dense(z, columns), Dense(x, columns), Dense(y, columns), rows, columns, a, level, tilt, true)
		}},
		{"transpose", 2, func(k Kernels) { k.Transpose(Dense(z, rows), Dense(x, columns), rows, columns) }},
		{"adam", 9, func(k Kernels) { k.Adam(step, z, x, m, v, y) }},
	} {
		for _, set := range isa.Supported() {
			b.Run(c.name+"/"+set.String(), func(b *testing.B) {
				k := For(set)
				b.SetBytes(int64(4 * c.words * n))
				for b.Loop() {
					c.run(k)
				}
			})
		}
	}
}

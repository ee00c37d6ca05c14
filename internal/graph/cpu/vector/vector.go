// Package vector holds the elementwise kernels: sums, activations, softmax,
// normalisation, the optimiser. They work on one range of memory, on one
// thread; who calls them cuts the work into tasks.
//
// What is computed for an element depends on the element alone and not on its
// place in the range, so a range may be cut anywhere. Sums are float64 and have
// an order that the number of rows or columns fixes: sums over rows are taken
// column by column, from the first row to the last. So nothing depends on the
// number of workers. The instruction sets differ in their rounding.
//
// Outputs may be their inputs, element by element, but not overlap otherwise.
// An operand that is too short is a panic, as it is in Go.
package vector

//go:generate go run ./gen

import (
	"unsafe"

	"ddpm/internal/graph/cpu/isa"
)

// Kernels are the kernels for one instruction set.
type Kernels struct{ set isa.Set }

// For returns the kernels for a set, which must be a supported one.
func For(set isa.Set) Kernels { return Kernels{set} }

// Rows are rows of values, Stride elements apart.
type Rows struct {
	Data   []float32
	Stride int
}

// Dense are rows without gaps.
func Dense(data []float32, columns int) Rows { return Rows{data, columns} }

func (r Rows) row(i, columns int) []float32 { return r.Data[i*r.Stride:][:columns] }

// pointer is the first element of the rows, checked to lie within the data.
func (r Rows) pointer(rows, columns int) unsafe.Pointer {
	_ = r.Data[(rows-1)*r.Stride+columns-1]
	return unsafe.Pointer(unsafe.SliceData(r.Data))
}

// Lanes is the number of float32 in the widest vector. Tables and sums with an
// entry for each column hold a multiple of it; entries beyond the columns do not
// matter.
const Lanes = 16

// padded is the address of a table with an entry for each column.
func padded[T float32 | float64](table []T, columns int) unsafe.Pointer {
	_ = table[(columns+Lanes-1)/Lanes*Lanes-1]
	return unsafe.Pointer(unsafe.SliceData(table))
}

// pointer is the first of n elements of x.
func pointer(x []float32, n int) unsafe.Pointer {
	_ = x[n-1]
	return unsafe.Pointer(unsafe.SliceData(x))
}

// kernel is a routine in assembly; package gen tells what each does with the
// fields of a call.
type kernel int

const (
	add kernel = iota
	addBoth
	addScaled
	mix
	difference
	exp
	silu
	siluGrad
	softmax
	softmaxGrad
	sumSquares
	sumSquaredDifferences
	sumColumns
	moments
	adam
	transpose
	norm
	normSums
	normSums2
	normGrad
	normSiLU
	normSumsSiLU
	normSums2SiLU
	normGradSiLU
)

// call holds the arguments of a kernel, whose assembly knows its layout: rows
// of columns, and strides in elements.
type call struct {
	out, x, y                   unsafe.Pointer
	t0, t1, t2, t3, t4          unsafe.Pointer
	sum, dot                    unsafe.Pointer // of float64
	rows, columns               int
	strideOut, strideX, strideY int
	f                           [10]float64
	s                           [2]float32
}

// Add computes y = a + b.
func (k Kernels) Add(y, a, b []float32) {
	k.AddRows(Dense(y, len(y)), Dense(a, len(y)), Dense(b, len(y)), 1, len(y))
}

// AddRows computes y = a + b in rows.
func (k Kernels) AddRows(y, a, b Rows, rows, columns int) { k.sum(add, y, a, b, rows, columns) }

// AddBothRows computes y += a + b in rows.
func (k Kernels) AddBothRows(y, a, b Rows, rows, columns int) {
	k.sum(addBoth, y, a, b, rows, columns)
}

func (k Kernels) sum(which kernel, y, a, b Rows, rows, columns int) {
	if rows == 0 || columns == 0 {
		return
	}
	if k.run(which, &call{
		out: y.pointer(rows, columns), x: a.pointer(rows, columns), y: b.pointer(rows, columns),
		rows: rows, columns: columns, strideOut: y.Stride, strideX: a.Stride, strideY: b.Stride,
	}) {
		return
	}
	for i := range rows {
		y, a, b := y.row(i, columns), a.row(i, columns), b.row(i, columns)
		b = b[:len(a)]
		y = y[:len(a)]
		if which == add {
			for j, v := range a {
				y[j] = v + b[j]
			}
		} else {
			for j, v := range a {
				y[j] += v + b[j]
			}
		}
	}
}

// AddScaled computes y += scale x.
func (k Kernels) AddScaled(y []float32, scale float32, x []float32) {
	n := len(y)
	if n == 0 || k.run(addScaled, &call{
		out: pointer(y, n), x: pointer(x, n), rows: 1, columns: n, s: [2]float32{scale},
	}) {
		return
	}
	for i, v := range x[:n] {
		y[i] += scale * v
	}
}

// Mix computes y = a x + b z.
func (k Kernels) Mix(y []float32, a float32, x []float32, b float32, z []float32) {
	n := len(y)
	if n == 0 || k.run(mix, &call{
		out: pointer(y, n), x: pointer(x, n), y: pointer(z, n), rows: 1, columns: n, s: [2]float32{a, b},
	}) {
		return
	}
	x, z = x[:n], z[:n]
	for i := range y {
		y[i] = a*x[i] + b*z[i]
	}
}

// Difference computes y = scale (a - b).
func (k Kernels) Difference(y []float32, scale float32, a, b []float32) {
	n := len(y)
	if n == 0 || k.run(difference, &call{
		out: pointer(y, n), x: pointer(a, n), y: pointer(b, n), rows: 1, columns: n, s: [2]float32{scale},
	}) {
		return
	}
	a, b = a[:n], b[:n]
	for i := range y {
		y[i] = scale * (a[i] - b[i])
	}
}

// SumSquares is the sum of x², in float64.
func (k Kernels) SumSquares(x []float32) float64 {
	var sum [1]float64
	if len(x) == 0 || k.run(sumSquares, &call{
		x: pointer(x, len(x)), sum: unsafe.Pointer(&sum), rows: 1, columns: len(x),
	}) {
		return sum[0]
	}
	return sumSquaresGeneric(x)
}

// SumSquaredDifferences is the sum of (x - y)², in float64.
func (k Kernels) SumSquaredDifferences(x, y []float32) float64 {
	var sum [1]float64
	if len(x) == 0 || k.run(sumSquaredDifferences, &call{
		x: pointer(x, len(x)), y: pointer(y, len(x)), sum: unsafe.Pointer(&sum), rows: 1, columns: len(x),
	}) {
		return sum[0]
	}
	return sumSquaredDifferencesGeneric(x, y)
}

// SumColumns adds to sum the sum over rows of each column.
func (k Kernels) SumColumns(sum []float64, x Rows, rows, columns int) {
	if rows == 0 || k.run(sumColumns, &call{
		x: x.pointer(rows, columns), sum: padded(sum, columns), rows: rows, columns: columns, strideX: x.Stride,
	}) {
		return
	}
	sumColumnsGeneric(sum[:columns], x, rows)
}

// Moments adds to sum and square, for each column, the sums over rows of
// x - shift and of its square.
func (k Kernels) Moments(sum, square, shift []float64, x Rows, rows, columns int) {
	if rows == 0 || k.run(moments, &call{
		x: x.pointer(rows, columns), t0: padded(shift, columns), sum: padded(sum, columns), dot: padded(square, columns),
		rows: rows, columns: columns, strideX: x.Stride,
	}) {
		return
	}
	for i := range rows {
		momentsGeneric(sum, square, shift, x.row(i, columns))
	}
}

// Exp computes y = e^x within 1 unit in the last place: +Inf from 88.73 on, 0
// below -103.98, NaN for NaN.
func (k Kernels) Exp(y, x []float32) { k.activation(exp, y, x) }

// SiLU computes y = x / (1 + e^-x) within 3 units in the last place, and 3e-37
// where y is smaller still. What is not finite in x shows as NaN or Inf in y.
func (k Kernels) SiLU(y, x []float32) { k.activation(silu, y, x) }

func (k Kernels) activation(which kernel, y, x []float32) {
	n := len(x)
	if n == 0 || k.run(which, &call{out: pointer(y, n), x: pointer(x, n), rows: 1, columns: n}) {
		return
	}
	y = y[:n]
	if which == exp {
		for i, v := range x {
			y[i] = float32(exp64(v))
		}
		return
	}
	for i, v := range x {
		y[i] = siluGeneric(v)
	}
}

// SiLUGrad computes dx = dy silu'(x), silu' within 3e-7. At -Inf, where SiLU is NaN,
// silu' is -Inf in Go and next to zero in assembly.
func (k Kernels) SiLUGrad(dx, x, dy []float32) {
	n := len(x)
	if n == 0 || k.run(siluGrad, &call{out: pointer(dx, n), x: pointer(x, n), y: pointer(dy, n), rows: 1, columns: n}) {
		return
	}
	dx, dy = dx[:n], dy[:n]
	for i, v := range x {
		dx[i] = float32(float64(dy[i]) * slope(v))
	}
}

// Softmax turns each row p into e^(scale p) divided by its sum; scale > 0.
func (k Kernels) Softmax(p Rows, rows, columns int, scale float32) {
	if rows == 0 || k.run(softmax, &call{
		out: p.pointer(rows, columns), rows: rows, columns: columns, strideOut: p.Stride, s: [2]float32{scale},
	}) {
		return
	}
	for i := range rows {
		softmaxGeneric(p.row(i, columns), scale)
	}
}

// SoftmaxGrad turns rows dp of the gradient of p, probabilities from Softmax,
// into the gradient of its input: scale p (dp - sum over the row of p dp).
func (k Kernels) SoftmaxGrad(dp, p Rows, rows, columns int, scale float32) {
	if rows == 0 || k.run(softmaxGrad, &call{
		out: dp.pointer(rows, columns), x: p.pointer(rows, columns),
		rows: rows, columns: columns, strideOut: dp.Stride, strideX: p.Stride, s: [2]float32{scale},
	}) {
		return
	}
	for i := range rows {
		softmaxGradGeneric(dp.row(i, columns), p.row(i, columns), scale)
	}
}

// Affine is, for each column, how a normalisation maps it: with d = x - Mean,
//
//	z = d Scale + Shift
type Affine struct{ Mean, Scale, Shift []float32 }

// Norm computes y = z, or silu(z), in rows.
func (k Kernels) Norm(y, x Rows, rows, columns int, t Affine, withSiLU bool) {
	which := norm
	if withSiLU {
		which = normSiLU
	}
	if rows == 0 || k.run(which, &call{
		out: y.pointer(rows, columns), x: x.pointer(rows, columns),
		t0: padded(t.Mean, columns), t1: padded(t.Scale, columns), t2: padded(t.Shift, columns),
		rows: rows, columns: columns, strideOut: y.Stride, strideX: x.Stride,
	}) {
		return
	}
	for i := range rows {
		t.norm(y.row(i, columns), x.row(i, columns), withSiLU)
	}
}

// NormSums adds to sum and dot, for each column, the sums over rows of dz and
// of dz d, where dz is dy, or dy silu'(z).
func (k Kernels) NormSums(sum, dot []float64, x, dy Rows, rows, columns int, t Affine, withSiLU bool) {
	if rows == 0 {
		return
	}
	c := call{
		x: x.pointer(rows, columns), y: dy.pointer(rows, columns),
		t0: padded(t.Mean, columns), t1: padded(t.Scale, columns), t2: padded(t.Shift, columns),
		sum: padded(sum, columns), dot: padded(dot, columns),
		rows: rows / 2, columns: columns, strideX: 2 * x.Stride, strideY: 2 * dy.Stride,
	}
	if k.set == isa.Generic {
		for i := range rows {
			t.sums(sum, dot, x.row(i, columns), dy.row(i, columns), withSiLU)
		}
		return
	}
	one, two := normSums, normSums2
	if withSiLU {
		one, two = normSumsSiLU, normSums2SiLU
	}
	if rows >= 2 {
		c.t3, c.t4 = unsafe.Pointer(&x.Data[x.Stride]), unsafe.Pointer(&dy.Data[dy.Stride])
		k.run(two, &c)
	}
	if rows%2 == 1 {
		last := rows - 1
		c.x, c.y, c.rows = unsafe.Pointer(&x.Data[last*x.Stride]), unsafe.Pointer(&dy.Data[last*dy.Stride]), 1
		k.run(one, &c)
	}
}

// NormGrad computes dx = Scale dz - (level + tilt d) in rows, dz as in NormSums.
// dx may be dy or x.
func (k Kernels) NormGrad(dx, x, dy Rows, rows, columns int, t Affine, level, tilt []float32, withSiLU bool) {
	which := normGrad
	if withSiLU {
		which = normGradSiLU
	}
	if rows == 0 || k.run(which, &call{
		out: dx.pointer(rows, columns), x: x.pointer(rows, columns), y: dy.pointer(rows, columns),
		t0: padded(t.Mean, columns), t1: padded(t.Scale, columns), t2: padded(t.Shift, columns),
		t3: padded(level, columns), t4: padded(tilt, columns),
		rows: rows, columns: columns, strideOut: dx.Stride, strideX: x.Stride, strideY: dy.Stride,
	}) {
		return
	}
	for i := range rows {
		t.grad(dx.row(i, columns), x.row(i, columns), dy.row(i, columns), level, tilt, withSiLU)
	}
}

// Step is one step of Adam (Kingma & Ba, 2015) and of the weights' moving
// average:
//
//	g = Clip grad   m = Beta1 m + (1 - Beta1) g   v = Beta2 v + (1 - Beta2) g²
//	w = w - Rate m / (Correction sqrt(v) + Epsilon)
//	ema = Decay ema + (1 - Decay) w
type Step struct {
	Clip, Beta1, Beta2, Rate, Correction, Epsilon, Decay float64
}

// Adam takes a step. Each line is computed in float64 and rounded once: in
// float32, a decay near 1 and its complement do not add up to 1, and the average
// would drift.
func (k Kernels) Adam(s *Step, w, grad, m, v, ema []float32) {
	n := len(w)
	if n == 0 || k.run(adam, &call{
		out: pointer(w, n), x: pointer(grad, n), t0: pointer(m, n), t1: pointer(v, n), t2: pointer(ema, n),
		rows: 1, columns: n,
		f: [10]float64{s.Clip, s.Beta1, 1 - s.Beta1, s.Beta2, 1 - s.Beta2, s.Rate, s.Correction, s.Epsilon, s.Decay, 1 - s.Decay},
	}) {
		return
	}
	s.generic(w, grad, m, v, ema)
}

// Transpose sets element i of row j of y to element j of row i of x, for an x of
// rows and columns.
func (k Kernels) Transpose(y, x Rows, rows, columns int) {
	if rows == 0 || columns == 0 {
		return
	}
	side := k.lanes()
	// What is left of squares as large as a vector is done here.
	doneRows, doneColumns := rows/side*side, columns/side*side
	if side == 1 || doneColumns == 0 {
		doneRows, doneColumns = 0, 0
	}
	for i := 0; i < doneRows; i += side {
		to, from := Rows{y.Data[i:], y.Stride}, Rows{x.Data[i*x.Stride:], x.Stride}
		k.run(transpose, &call{
			out: to.pointer(doneColumns, side), x: from.pointer(side, doneColumns),
			columns: doneColumns, strideOut: y.Stride, strideX: x.Stride,
		})
	}
	for i := range rows {
		first := 0
		if i < doneRows {
			first = doneColumns
		}
		for j, v := range x.row(i, columns)[first:] {
			y.Data[(first+j)*y.Stride+i] = v
		}
	}
}

// lanes is the number of float32 in a vector.
func (k Kernels) lanes() int {
	switch k.set {
	case isa.AVX512:
		return 16
	case isa.AVX2:
		return 8
	}
	return 1
}

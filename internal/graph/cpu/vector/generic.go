package vector

import "math"

// The portable kernels. The loops over exponentials are spelt out where that
// lets the compiler inline exp64 into them.

// exp64 is e^x for a float32 argument, with a relative error below 8.4e-10:
//
//	e^x = 2^(k/128) e^(w r),   w = ln(2)/128,   k = round(x/w),   |r| <= 1/2
//	e^u = 1 + (1 + w^2/32) u + u^2/2
//
// The second line is the Taylor polynomial of degree 3 with u^3 replaced by the
// multiple of u that is nearest to it on |u| <= w/2 (Chebyshev).
//
// The work is done in float64: on one lane it costs what float32 would, and a
// result anywhere in float32's range, subnormal or not, is a normal float64.
// Arguments are clamped to +-708, where e^x and its reciprocal still are normal;
// NaN stays NaN. The function is small enough to be inlined.
func exp64(x float32) float64 {
	const (
		w  = math.Ln2 / 128
		c1 = w * (1 + w*w/32)
		c2 = w * w / 2

		// Adding 1.5 * 2^52 rounds to an integer and leaves that integer in
		// the low bits of the sum.
		rounder = 3 << 51
	)
	if x > 708 {
		x = 708
	} else if x < -708 {
		x = -708
	}
	scaled := float64(x) * (1 / w)
	t := scaled + rounder
	r := scaled - (t - rounder)
	k := math.Float64bits(t)
	return (1 + r*(c1+r*c2)) * math.Float64frombits(exp2Table[k%128]+k<<45)
}

// exp2Table[i] holds the bits of 2^(i/128) less i<<45, so that adding k<<45 for
// any k with k mod 128 = i gives the bits of 2^(k/128).
var exp2Table = func() (table [128]uint64) {
	for i := range table {
		table[i] = math.Float64bits(math.Exp2(float64(i)/128)) - uint64(i)<<45
	}
	return table
}()

func siluGeneric(x float32) float32 { return float32(float64(x) / (1 + exp64(-x))) }

// slope is SiLU's derivative.
func slope(x float32) float64 {
	sigmoid := 1 / (1 + exp64(-x))
	return sigmoid * (1 + float64(x)*(1-sigmoid))
}

func sumSquaresGeneric(x []float32) float64 {
	var s0, s1, s2, s3 float64
	for len(x) >= 4 {
		d0, d1, d2, d3 := float64(x[0]), float64(x[1]), float64(x[2]), float64(x[3])
		s0 += d0 * d0
		s1 += d1 * d1
		s2 += d2 * d2
		s3 += d3 * d3
		x = x[4:]
	}
	for _, v := range x {
		s0 += float64(v) * float64(v)
	}
	return (s0 + s1) + (s2 + s3)
}

func sumSquaredDifferencesGeneric(x, y []float32) float64 {
	var s0, s1, s2, s3 float64
	y = y[:len(x)]
	for len(x) >= 4 && len(y) >= 4 {
		d0, d1 := float64(x[0])-float64(y[0]), float64(x[1])-float64(y[1])
		d2, d3 := float64(x[2])-float64(y[2]), float64(x[3])-float64(y[3])
		s0 += d0 * d0
		s1 += d1 * d1
		s2 += d2 * d2
		s3 += d3 * d3
		x, y = x[4:], y[4:]
	}
	for i, v := range x {
		d := float64(v) - float64(y[i])
		s0 += d * d
	}
	return (s0 + s1) + (s2 + s3)
}

func sumColumnsGeneric(sum []float64, x Rows, rows int) {
	n := len(sum)
	row := 0
	for ; row+4 <= rows; row += 4 {
		a, b, c, d := x.row(row, n), x.row(row+1, n), x.row(row+2, n), x.row(row+3, n)
		for i := range sum {
			sum[i] += (float64(a[i]) + float64(b[i])) + (float64(c[i]) + float64(d[i]))
		}
	}
	for ; row < rows; row++ {
		for i, v := range x.row(row, n) {
			sum[i] += float64(v)
		}
	}
}

func momentsGeneric(sum, square, shift []float64, x []float32) {
	shift, sum, square = shift[:len(x)], sum[:len(x)], square[:len(x)]
	for i, v := range x {
		d := float64(v) - shift[i]
		sum[i] += d
		square[i] += d * d
	}
}

func softmaxGeneric(row []float32, scale float32) {
	highest := row[0]
	for _, x := range row {
		if x > highest { // five times as fast as max
			highest = x
		}
	}
	var sum float64
	for j, x := range row {
		y := exp64((x - highest) * scale)
		row[j] = float32(y)
		sum += y
	}
	inverse := float32(1 / sum)
	for j := range row {
		row[j] *= inverse
	}
}

func softmaxGradGeneric(dp, p []float32, scale float32) {
	dp = dp[:len(p)]
	var sum float32
	for j, x := range p {
		sum += x * dp[j]
	}
	for j, x := range p {
		dp[j] = scale * x * (dp[j] - sum)
	}
}

func (t Affine) norm(y, x []float32, withSiLU bool) {
	y = y[:len(x)]
	mean, scale, shift := t.Mean[:len(x)], t.Scale[:len(x)], t.Shift[:len(x)]
	if !withSiLU {
		for i, v := range x {
			y[i] = (v-mean[i])*scale[i] + shift[i]
		}
		return
	}
	for i, v := range x {
		z := (v-mean[i])*scale[i] + shift[i]
		y[i] = float32(float64(z) / (1 + exp64(-z)))
	}
}

func (t Affine) sums(sum, dot []float64, x, dy []float32, withSiLU bool) {
	dy, sum, dot = dy[:len(x)], sum[:len(x)], dot[:len(x)]
	mean, scale, shift := t.Mean[:len(x)], t.Scale[:len(x)], t.Shift[:len(x)]
	for i, v := range x {
		d := v - mean[i]
		dz := float64(dy[i])
		if withSiLU {
			z := d*scale[i] + shift[i]
			sigmoid := 1 / (1 + exp64(-z))
			dz *= sigmoid * (1 + float64(z)*(1-sigmoid))
		}
		sum[i] += dz
		dot[i] += dz * float64(d)
	}
}

func (t Affine) grad(dx, x, dy, level, tilt []float32, withSiLU bool) {
	dx, dy, level, tilt = dx[:len(x)], dy[:len(x)], level[:len(x)], tilt[:len(x)]
	mean, scale, shift := t.Mean[:len(x)], t.Scale[:len(x)], t.Shift[:len(x)]
	for i, v := range x {
		d := v - mean[i]
		dz := dy[i]
		if withSiLU {
			z := d*scale[i] + shift[i]
			sigmoid := 1 / (1 + exp64(-z))
			dz = float32(float64(dz) * sigmoid * (1 + float64(z)*(1-sigmoid)))
		}
		dx[i] = scale[i]*dz - (level[i] + tilt[i]*d)
	}
}

func (s *Step) generic(w, grad, m, v, ema []float32) {
	grad, m, v, ema = grad[:len(w)], m[:len(w)], v[:len(w)], ema[:len(w)]
	for i, old := range w {
		g := float64(grad[i]) * s.Clip
		m1 := s.Beta1*float64(m[i]) + (1-s.Beta1)*g
		m2 := s.Beta2*float64(v[i]) + (1-s.Beta2)*g*g
		next := float32(float64(old) - s.Rate*m1/(math.Sqrt(m2)*s.Correction+s.Epsilon))
		w[i], m[i], v[i] = next, float32(m1), float32(m2)
		ema[i] = float32(s.Decay*float64(ema[i]) + (1-s.Decay)*float64(next))
	}
}

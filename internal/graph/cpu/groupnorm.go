package cpu

import (
	"math"

	"ddpm/internal/graph/cpu/worker"
)

// Group normalisation (Wu & He, 2018) over [N, P, C] activations, P pixels of C
// channels, optionally followed by SiLU. With m = P C / groups values x of one
// sample and group:
//
//	mean = sum(x)/m   rstd = 1/sqrt(sum((x - mean)^2)/m + epsilon)
//	xhat = (x - mean) rstd   z = gamma xhat + beta   y = z or silu(z)
//
// Backwards, with dz = dy or dy silu'(z):
//
//	dx = rstd (gamma dz - sum(gamma dz)/m - xhat sum(gamma dz xhat)/m)
//	dgamma = sum(dz xhat)   dbeta = sum(dz)   over samples and pixels
//
// The loops run over strips: rows of at most stripWidth values beside which lie
// tables of as many entries, one a channel. A strip of few channels holds
// several pixels, so that the loop over it is long whatever C is.

const stripWidth = 256

// strip is the shape of the rows that cover channels [from, to) of a sample:
// row r holds the values from + r*stride on, length of them (fewer in the last).
type strip struct{ from, length, stride int }

func newStrip(from, to, C int) strip {
	if to-from < C {
		return strip{from, to - from, C}
	}
	pixels := max(1, stripWidth/C)
	return strip{0, pixels * C, pixels * C}
}

// segment returns the group of position i of a strip and where in the strip the
// run of that group's channels ends. A group has width channels.
func (s strip) segment(i, C, width int) (group, end int) {
	channel := (s.from + i) % C
	return channel / width, min(i+width-channel%width, s.length)
}

// groupsPerTask is the number of whole groups that one task reduces. Many
// samples are tasks enough; few are cut, but not so finely that neighbouring
// tasks share most cache lines.
func groupsPerTask(N, C, groups int) int {
	channels := stripWidth
	if N < 16 {
		channels = channelTile
	}
	return max(1, channels*groups/C)
}

// groupNormStats computes stats [N, groups, 2]: mean and rstd of each sample and
// group of x [N, P, C]. groups divides C.
func groupNormStats(p *worker.Pool, N, P, C, groups int, epsilon float64, stats, x []float32) func() {
	width := C / groups
	return forSamples(p, N, groups, groupsPerTask(N, C, groups), func(n, first, last int) {
		x := x[n*P*C : (n+1)*P*C]
		// One pass over differences from a value of the group. That value is at
		// most sqrt(m) standard deviations from the mean, so the subtraction of
		// the squared mean below loses at most a factor m of float64's 2^53.
		var sums, squares [stripWidth]float64
		for from := first * width; from < last*width; from += stripWidth {
			s := newStrip(from, min(from+stripWidth, last*width), C)
			var shift, sum, square [stripWidth]float64
			for i := 0; i < s.length; {
				group, end := s.segment(i, C, width)
				for ; i < end; i++ {
					shift[i] = float64(x[group*width])
				}
			}
			for at := s.from; at < len(x); at += s.stride {
				addMoments(x[at:min(at+s.length, len(x))], shift[:], sum[:], square[:])
			}
			for i := 0; i < s.length; {
				group, end := s.segment(i, C, width)
				for ; i < end; i++ {
					sums[group-first] += sum[i]
					squares[group-first] += square[i]
				}
			}
		}
		m := float64(P * width)
		for group := first; group < last; group++ {
			offset := sums[group-first] / m
			variance := max(0, squares[group-first]/m-offset*offset)
			stats[(n*groups+group)*2] = float32(float64(x[group*width]) + offset)
			stats[(n*groups+group)*2+1] = float32(1 / math.Sqrt(variance+epsilon))
		}
	})
}

// addMoments adds x - shift and its square to sum and square.
func addMoments(x []float32, shift, sum, square []float64) {
	shift, sum, square = shift[:len(x)], sum[:len(x)], square[:len(x)]
	for i, v := range x {
		d := float64(v) - shift[i]
		sum[i] += d
		square[i] += d * d
	}
}

// groupNorm computes y [N, P, C] from x, its stats and gamma, beta [C]. y may be x.
func groupNorm(p *worker.Pool, N, P, C, groups int, silu bool, y, x, stats, gamma, beta []float32) func() {
	pixels := rowsPerTask(C)
	if silu {
		pixels = max(1, expGrain/C)
	}
	return forSamples(p, N, P, pixels, func(n, first, last int) {
		x, y := x[(n*P+first)*C:(n*P+last)*C], y[(n*P+first)*C:(n*P+last)*C]
		var t normTables
		for from := 0; from < C; from += stripWidth {
			s := newStrip(from, min(from+stripWidth, C), C)
			t.fill(s, C, C/groups, stats[n*groups*2:(n+1)*groups*2], gamma, beta)
			for at := s.from; at < len(x); at += s.stride {
				end := min(at+s.length, len(x))
				if silu {
					t.normSiLU(y[at:end], x[at:end])
				} else {
					t.norm(y[at:end], x[at:end])
				}
			}
		}
	})
}

// normTables holds what each value of a strip is normalised with. scale is
// rstd gamma.
type normTables struct{ mean, rstd, gamma, scale, beta [stripWidth]float32 }

func (t *normTables) fill(s strip, C, width int, stats, gamma, beta []float32) {
	for i := 0; i < s.length; {
		group, end := s.segment(i, C, width)
		mean, rstd := stats[group*2], stats[group*2+1]
		channel := (s.from + i) % C
		for ; i < end; i++ {
			t.mean[i], t.rstd[i] = mean, rstd
			t.gamma[i], t.beta[i] = gamma[channel], beta[channel]
			t.scale[i] = rstd * gamma[channel]
			channel++
		}
	}
}

func (t *normTables) norm(y, x []float32) {
	y = y[:len(x)]
	mean, scale, beta := t.mean[:len(x)], t.scale[:len(x)], t.beta[:len(x)]
	for i, v := range x {
		y[i] = (v-mean[i])*scale[i] + beta[i]
	}
}

func (t *normTables) normSiLU(y, x []float32) {
	y = y[:len(x)]
	mean, scale, beta := t.mean[:len(x)], t.scale[:len(x)], t.beta[:len(x)]
	for i, v := range x {
		z := (v-mean[i])*scale[i] + beta[i]
		y[i] = float32(float64(z) / (1 + exp64(-z)))
	}
}

// grad computes dz for a strip and adds dz and dz xhat to sum and product.
func (t *normTables) grad(dz, x, dy []float32, sum, product []float64) {
	dz, dy = dz[:len(x)], dy[:len(x)]
	mean, rstd := t.mean[:len(x)], t.rstd[:len(x)]
	sum, product = sum[:len(x)], product[:len(x)]
	for i, v := range x {
		d := dy[i]
		dz[i] = d
		sum[i] += float64(d)
		product[i] += float64(d) * float64((v-mean[i])*rstd[i])
	}
}

// gradSiLU is grad where SiLU follows the normalisation.
func (t *normTables) gradSiLU(dz, x, dy []float32, sum, product []float64) {
	dz, dy = dz[:len(x)], dy[:len(x)]
	mean, rstd, gamma, beta := t.mean[:len(x)], t.rstd[:len(x)], t.gamma[:len(x)], t.beta[:len(x)]
	sum, product = sum[:len(x)], product[:len(x)]
	for i, v := range x {
		xhat := (v - mean[i]) * rstd[i]
		z := xhat*gamma[i] + beta[i]
		sigmoid := 1 / (1 + exp64(-z))
		d := float64(dy[i]) * sigmoid * (1 + float64(z)*(1-sigmoid))
		dz[i] = float32(d)
		sum[i] += d
		product[i] += d * float64(xhat)
	}
}

// groupNormGradData computes dx [N, P, C] from the output gradient dy and what
// groupNorm read. dx may be dy but not x.
func groupNormGradData(p *worker.Pool, N, P, C, groups int, silu bool, dx, x, stats, gamma, beta, dy []float32) func() {
	width := C / groups
	return forSamples(p, N, groups, groupsPerTask(N, C, groups), func(n, first, last int) {
		x, dx, dy := x[n*P*C:(n+1)*P*C], dx[n*P*C:(n+1)*P*C], dy[n*P*C:(n+1)*P*C]
		stats := stats[n*groups*2 : (n+1)*groups*2]
		var t normTables

		// dx holds dz for now; sums and products are those of gamma dz and
		// gamma dz xhat over each group.
		var sums, products [stripWidth]float64
		for from := first * width; from < last*width; from += stripWidth {
			s := newStrip(from, min(from+stripWidth, last*width), C)
			t.fill(s, C, width, stats, gamma, beta)
			var sum, product [stripWidth]float64
			for at := s.from; at < len(x); at += s.stride {
				end := min(at+s.length, len(x))
				if silu {
					t.gradSiLU(dx[at:end], x[at:end], dy[at:end], sum[:], product[:])
				} else {
					t.grad(dx[at:end], x[at:end], dy[at:end], sum[:], product[:])
				}
			}
			for i := 0; i < s.length; {
				group, end := s.segment(i, C, width)
				for ; i < end; i++ {
					sums[group-first] += float64(t.gamma[i]) * sum[i]
					products[group-first] += float64(t.gamma[i]) * product[i]
				}
			}
		}

		m := float64(P * width)
		for from := first * width; from < last*width; from += stripWidth {
			s := newStrip(from, min(from+stripWidth, last*width), C)
			t.fill(s, C, width, stats, gamma, beta)
			var sum, product [stripWidth]float32
			for i := 0; i < s.length; {
				group, end := s.segment(i, C, width)
				for ; i < end; i++ {
					sum[i] = float32(sums[group-first] / m)
					product[i] = float32(products[group-first] / m)
				}
			}
			for at := s.from; at < len(x); at += s.stride {
				end := min(at+s.length, len(x))
				t.project(dx[at:end], x[at:end], sum[:], product[:])
			}
		}
	})
}

// project turns dz into dx, given the means of gamma dz and gamma dz xhat.
func (t *normTables) project(dx, x, sum, product []float32) {
	dx = dx[:len(x)]
	mean, rstd, gamma := t.mean[:len(x)], t.rstd[:len(x)], t.gamma[:len(x)]
	sum, product = sum[:len(x)], product[:len(x)]
	for i, v := range x {
		xhat := (v - mean[i]) * rstd[i]
		dx[i] = rstd[i] * (gamma[i]*dx[i] - sum[i] - xhat*product[i])
	}
}

// groupNormGradAffine computes dgb [2, C]: the gradient of gamma, then that of
// beta. ws holds groupNormGradAffineWorkspace floats.
func groupNormGradAffine(p *worker.Pool, N, P, C, groups int, silu bool, dgb, x, stats, gamma, beta, dy, ws []float32) func() {
	channels := stripWidth
	if N < 16 {
		channels = channelTile
	}
	samples := forSamples(p, N, C, channels, func(n, from, to int) {
		x, dy := x[n*P*C:(n+1)*P*C], dy[n*P*C:(n+1)*P*C]
		s := newStrip(from, to, C)
		var t normTables
		t.fill(s, C, C/groups, stats[n*groups*2:(n+1)*groups*2], gamma, beta)
		var dz [stripWidth]float32
		var sum, product [stripWidth]float64
		for at := s.from; at < len(x); at += s.stride {
			end := min(at+s.length, len(x))
			if silu {
				t.gradSiLU(dz[:], x[at:end], dy[at:end], sum[:], product[:])
			} else {
				t.grad(dz[:], x[at:end], dy[at:end], sum[:], product[:])
			}
		}
		for i := to - from; i < s.length; i++ {
			sum[i%C] += sum[i]
			product[i%C] += product[i]
		}
		partial := ws[n*2*C : (n+1)*2*C]
		for i := range to - from {
			partial[from+i] = float32(product[i])
			partial[C+from+i] = float32(sum[i])
		}
	})
	total := sumPixels(p, 1, N, 2*C, dgb, ws)
	return func() {
		samples()
		total()
	}
}

// groupNormGradAffineWorkspace is the workspace of groupNormGradAffine in float32.
func groupNormGradAffineWorkspace(N, C int) int { return N * 2 * C }

package cpu

import (
	"math"

	"ddpm/internal/graph/cpu/vector"
)

// Group normalisation (Wu & He, 2018) over [N, P, C] activations, P pixels of C
// channels, optionally followed by SiLU. With m = P C / groups values x of one
// sample and group:
//
//	mean = sum(x)/m   rstd = 1/sqrt(sum((x - mean)^2)/m + epsilon)
//	xhat = (x - mean) rstd   z = gamma xhat + beta   y = z or silu(z)
//
// Backwards, with dz = dy or dy silu'(z), first the sums of dz xhat and of dz
// over the pixels of each sample and channel, then
//
//	dx = rstd (gamma dz - sum(gamma dz)/m - xhat sum(gamma dz xhat)/m)
//	dgamma = sum(dz xhat)   dbeta = sum(dz)   over samples too
//
// So x and dy are read twice and dx is written once, and silu' is computed
// twice, which costs less than to keep it.
//
// x is one array, or two side by side on channels. The loops run over strips of
// channels, beside which lie tables with an entry for each.

// norm is the extents of a normalisation and its input.
type norm struct {
	N, P, groups int
	x            source // never doubled
	silu         bool
}

func (g norm) channels() int { return g.x.ca + g.x.cb }

// width is the number of channels of a group.
func (g norm) width() int { return g.channels() / g.groups }

// size is the number of values of a group.
func (g norm) size() float64 { return float64(g.P * g.width()) }

// first is the value of channel c in the first pixel of sample n.
func (g norm) first(n, c int) float32 {
	if c < g.x.ca {
		return g.x.a[n*g.P*g.x.ca+c]
	}
	return g.x.b[n*g.P*g.x.cb+c-g.x.ca]
}

// stripWidth is the greatest number of entries of a table: all channels of any
// usual network, so that rows are read from end to end. Fewer channels than
// mergedWidth are repeated for several pixels.
const (
	stripWidth  = 1024
	mergedWidth = 256
)

// tableSize is the size of a table, any part of which a kernel may take to be
// padded to whole vectors.
const tableSize = stripWidth + vector.Lanes

// normTables is what a worker works with: an entry for each value of a strip,
// and sums for each of its groups.
type normTables struct {
	mean, scale, shift, level, tilt [tableSize]float32
	origin, sum, dot                [tableSize]float64
	groupSum, groupDot              [stripWidth]float64
}

// strip is channels [from, from+channels). If these are all there are, and few,
// the tables repeat them for several pixels, so that rows are long.
type strip struct{ from, channels, pixels int }

func (g norm) strip(from, to int) strip {
	s := strip{from, to - from, 1}
	if s.channels == g.channels() && g.x.cb == 0 {
		s.pixels = max(1, mergedWidth/s.channels)
	}
	return s
}

// entries is the length of the tables.
func (s strip) entries() int { return s.channels * s.pixels }

// segment returns the group of the strip's channel i and where the run of
// channels of that group ends.
func (s strip) segment(i, width int) (group, end int) {
	channel := s.from + i
	return channel / width, min(i+width-channel%width, s.channels)
}

// repeat fills a table from its entries for the first pixel.
func repeat[T float32 | float64](s strip, table []T) {
	for have := s.channels; have < s.entries(); have *= 2 {
		copy(table[have:s.entries()], table[:have])
	}
}

// gather adds up the entries of all pixels in those of the first.
func (s strip) gather(table []float64) {
	for first := s.channels; first < s.entries(); first += s.channels {
		for i, v := range table[first : first+s.channels] {
			table[i] += v
		}
	}
}

// span is the part of a strip that lies in one array: rows of x, beside a dense
// [N, P, C] array from element at on, whose rows are stride apart.
type span struct {
	x             vector.Rows
	at, stride    int
	table         int // the first entry of the tables
	rows, columns int
}

// each calls do for the spans that make up pixels [first, last) of sample n.
func (g norm) each(s strip, n, first, last int, do func(span)) {
	pixel, pixels, C := n*g.P+first, last-first, g.channels()
	if g.x.cb == 0 {
		rows, stride := pixels/s.pixels, s.pixels*C
		at := pixel*C + s.from
		do(span{vector.Rows{Data: g.x.a[at:], Stride: stride}, at, stride, 0, rows, s.entries()})
		if rest := pixels % s.pixels; rest > 0 {
			at += rows * stride
			do(span{vector.Rows{Data: g.x.a[at:], Stride: stride}, at, stride, 0, 1, rest * s.channels})
		}
		return
	}
	end := s.from + s.channels
	if from, to := s.from, min(end, g.x.ca); from < to {
		do(span{vector.Rows{Data: g.x.a[pixel*g.x.ca+from:], Stride: g.x.ca}, pixel*C + from, C, 0, pixels, to - from})
	}
	if from := max(s.from, g.x.ca); from < end {
		x := g.x.b[pixel*g.x.cb+from-g.x.ca:]
		do(span{vector.Rows{Data: x, Stride: g.x.cb}, pixel*C + from, C, from - s.from, pixels, end - from})
	}
}

// dense is the rows of a dense array beside those of x.
func (s span) dense(data []float32) vector.Rows {
	return vector.Rows{Data: data[s.at:], Stride: s.stride}
}

// channelsPerTask is the number of channels that one task reduces: all, unless
// there are few samples, but enough that neighbouring tasks do not share most
// cache lines. Channels that are repeated for several pixels stay together whatever
// the samples, since that decides in which order a sample's values are summed.
func (g norm) channelsPerTask() int {
	if g.strip(0, g.channels()).pixels > 1 {
		return g.channels()
	}
	return min(stripWidth, max(channelTile, ceil(g.channels(), ceil(manyTasks/2, g.N))))
}

// eachTask returns a function that runs fn, for each sample, on [0, n) in ranges
// of at most size things, one task each.
func (e *engine) eachTask(g norm, n, size int, fn func(t *normTables, sample, from, to int)) func() {
	ranges := ceil(n, size)
	task := func(task, worker int) {
		from := task % ranges * size
		fn(&e.tables[worker], task/ranges, from, min(from+size, n))
	}
	return func() { e.pool.Run(g.N*ranges, task) }
}

// pixelsPerTask is the number of pixels that one task maps: enough to make the
// filling of tables small, and tasks enough.
func (g norm) pixelsPerTask() int {
	c := g.channels()
	return max(1, grain/c, min(4*grain/c, g.N*g.P/manyTasks))
}

// groupNormStats computes stats [N, groups, 2]: mean and rstd of each sample and
// group of x. groups divides C.
func (e *engine) groupNormStats(g norm, epsilon float64, stats []float32) func() {
	width := g.width()
	return e.eachTask(g, g.groups, max(1, g.channelsPerTask()/width), func(t *normTables, n, first, last int) {
		// One pass over differences from a value of the group. That value is at
		// most sqrt(m) standard deviations from the mean, so the subtraction of
		// the squared mean below loses at most a factor m of float64's 2^53.
		sums, squares := t.groupSum[:last-first], t.groupDot[:last-first]
		clear(sums)
		clear(squares)
		for from := first * width; from < last*width; from += stripWidth {
			s := g.strip(from, min(from+stripWidth, last*width))
			for i := 0; i < s.channels; {
				group, end := s.segment(i, width)
				value := float64(g.first(n, group*width))
				for ; i < end; i++ {
					t.origin[i] = value
				}
			}
			repeat(s, t.origin[:])
			clear(t.sum[:s.entries()])
			clear(t.dot[:s.entries()])
			g.each(s, n, 0, g.P, func(p span) {
				e.vec.Moments(t.sum[p.table:], t.dot[p.table:], t.origin[p.table:], p.x, p.rows, p.columns)
			})
			s.gather(t.sum[:])
			s.gather(t.dot[:])
			for i := 0; i < s.channels; {
				group, end := s.segment(i, width)
				for ; i < end; i++ {
					sums[group-first] += t.sum[i]
					squares[group-first] += t.dot[i]
				}
			}
		}
		for i := range sums {
			group := first + i
			offset := sums[i] / g.size()
			variance := max(0, squares[i]/g.size()-offset*offset)
			stats[(n*g.groups+group)*2] = float32(float64(g.first(n, group*width)) + offset)
			stats[(n*g.groups+group)*2+1] = float32(1 / math.Sqrt(variance+epsilon))
		}
	})
}

// fill sets what each value of a strip of sample n is normalised with.
func (t *normTables) fill(g norm, s strip, n int, stats, gamma, beta []float32) {
	width := g.width()
	for i := 0; i < s.channels; {
		group, end := s.segment(i, width)
		mean, rstd := stats[(n*g.groups+group)*2], stats[(n*g.groups+group)*2+1]
		for ; i < end; i++ {
			t.mean[i], t.scale[i], t.shift[i] = mean, rstd*gamma[s.from+i], beta[s.from+i]
		}
	}
	repeat(s, t.mean[:])
	repeat(s, t.scale[:])
	repeat(s, t.shift[:])
}

// affine is the tables from an entry on.
func (t *normTables) affine(entry int) vector.Affine {
	return vector.Affine{Mean: t.mean[entry:], Scale: t.scale[entry:], Shift: t.shift[entry:]}
}

// groupNorm computes y [N, P, C] from x, its stats and gamma, beta [C]. y may be
// x where that is one array.
func (e *engine) groupNorm(g norm, y, stats, gamma, beta []float32) func() {
	return e.eachTask(g, g.P, g.pixelsPerTask(), func(t *normTables, n, first, last int) {
		for from := 0; from < g.channels(); from += stripWidth {
			s := g.strip(from, min(from+stripWidth, g.channels()))
			t.fill(g, s, n, stats, gamma, beta)
			g.each(s, n, first, last, func(p span) {
				e.vec.Norm(p.dense(y), p.x, p.rows, p.columns, t.affine(p.table), g.silu)
			})
		}
	})
}

// groupNormGradSums computes sums [N, 2, C] from what groupNorm read and the
// output gradient dy: for each sample and channel the sum of dz xhat, then that
// of dz.
func (e *engine) groupNormGradSums(g norm, sums, stats, gamma, beta, dy []float32) func() {
	C := g.channels()
	return e.eachTask(g, C, g.channelsPerTask(), func(t *normTables, n, from, to int) {
		s := g.strip(from, to)
		t.fill(g, s, n, stats, gamma, beta)
		clear(t.sum[:s.entries()])
		clear(t.dot[:s.entries()])
		g.each(s, n, 0, g.P, func(p span) {
			e.vec.NormSums(t.sum[p.table:], t.dot[p.table:], p.x, p.dense(dy), p.rows, p.columns, t.affine(p.table), g.silu)
		})
		s.gather(t.sum[:])
		s.gather(t.dot[:])
		product, plain := sums[2*n*C+from:][:s.channels], sums[(2*n+1)*C+from:][:s.channels]
		for i := range product {
			rstd := stats[(n*g.groups+(from+i)/g.width())*2+1]
			product[i], plain[i] = float32(float64(rstd)*t.dot[i]), float32(t.sum[i])
		}
	})
}

// groupNormGradData computes dx [N, P, C] from what groupNorm read, the output
// gradient dy and sums of groupNormGradSums. dx may be dy but not x.
func (e *engine) groupNormGradData(g norm, dx, stats, gamma, beta, dy, sums []float32) func() {
	C, width := g.channels(), g.width()
	return e.eachTask(g, g.P, g.pixelsPerTask(), func(t *normTables, n, first, last int) {
		products, plain := sums[2*n*C:][:C], sums[(2*n+1)*C:][:C]
		for from := 0; from < C; from += stripWidth {
			s := g.strip(from, min(from+stripWidth, C))
			t.fill(g, s, n, stats, gamma, beta)
			// dx = scale dz - (level + tilt (x - mean))
			for i := 0; i < s.channels; {
				group, end := s.segment(i, width)
				var sum, dot float64
				for c := group * width; c < (group+1)*width; c++ {
					dot += float64(gamma[c]) * float64(products[c])
					sum += float64(gamma[c]) * float64(plain[c])
				}
				rstd := float64(stats[(n*g.groups+group)*2+1])
				level, tilt := float32(rstd*sum/g.size()), float32(rstd*rstd*dot/g.size())
				for ; i < end; i++ {
					t.level[i], t.tilt[i] = level, tilt
				}
			}
			repeat(s, t.level[:])
			repeat(s, t.tilt[:])
			g.each(s, n, first, last, func(p span) {
				e.vec.NormGrad(p.dense(dx), p.x, p.dense(dy), p.rows, p.columns, t.affine(p.table), t.level[p.table:], t.tilt[p.table:], g.silu)
			})
		}
	})
}

// groupNormGradAffine computes dgb [2, C], the gradient of gamma, then that of
// beta, from sums [N, 2, C] of groupNormGradSums.
func (e *engine) groupNormGradAffine(N, C int, dgb, sums []float32) func() {
	return e.sumPixels(1, N, 2*C, dgb, sums)
}

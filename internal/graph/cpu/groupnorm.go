package cpu

import (
	"math"

	"ddpm/internal/graph"
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
// So x and dy are read twice, the second time from the cache where both passes
// are one kernel, dx is written once, and silu' is computed twice, which costs
// less than to keep it.
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

// stripWidth is the greatest number of entries of a table.
const stripWidth = 256

// tableSize is the size of a table, any part of which a kernel may take to be
// padded to whole vectors.
const tableSize = stripWidth + vector.Lanes

// strip is channels [from, from+channels). If these are all there are, and few,
// the tables repeat them for several pixels, so that rows are long.
type strip struct{ from, channels, pixels int }

func (g norm) strip(from, to int) strip {
	s := strip{from, to - from, 1}
	if s.channels == g.channels() && g.x.cb == 0 {
		s.pixels = max(1, stripWidth/s.channels)
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

// channelsPerTask is the number of channels that one task reduces. Many samples
// are tasks enough; few are cut, but not so finely that neighbouring tasks
// share most cache lines.
func (g norm) channelsPerTask() int {
	if g.N < 16 {
		return channelTile
	}
	return stripWidth
}

// pixelsPerTask is the number of pixels that one task maps: enough to make the
// filling of tables small, and tasks enough.
func (g norm) pixelsPerTask() int {
	c := g.channels()
	return max(1, grain/c, min(4*grain/c, g.N*g.P/manyTasks))
}

// groupsPerTask is the number of groups that make about so many channels.
func (g norm) groupsPerTask(channels int) int { return max(1, channels/g.width()) }

// groupNormStats computes stats [N, groups, 2]: mean and rstd of each sample and
// group of x. groups divides C.
func (e *engine) groupNormStats(g norm, epsilon float64, stats []float32) func() {
	return forSamples(e.pool, g.N, g.groups, g.groupsPerTask(g.channelsPerTask()), func(n, first, last int) {
		e.normStats(g, epsilon, stats, n, first, last)
	})
}

// normStats computes the statistics of groups [first, last) of sample n.
func (e *engine) normStats(g norm, epsilon float64, stats []float32, n, first, last int) {
	// One pass over differences from a value of the group. That value is at
	// most sqrt(m) standard deviations from the mean, so the subtraction of
	// the squared mean below loses at most a factor m of float64's 2^53.
	width := g.width()
	var sums, squares [stripWidth]float64
	for from := first * width; from < last*width; from += stripWidth {
		s := g.strip(from, min(from+stripWidth, last*width))
		var shift, sum, square [tableSize]float64
		for i := 0; i < s.channels; {
			group, end := s.segment(i, width)
			value := float64(g.first(n, group*width))
			for ; i < end; i++ {
				shift[i] = value
			}
		}
		repeat(s, shift[:])
		g.each(s, n, 0, g.P, func(p span) {
			e.vec.Moments(sum[p.table:], square[p.table:], shift[p.table:], p.x, p.rows, p.columns)
		})
		s.gather(sum[:])
		s.gather(square[:])
		for i := 0; i < s.channels; {
			group, end := s.segment(i, width)
			for ; i < end; i++ {
				sums[group-first] += sum[i]
				squares[group-first] += square[i]
			}
		}
	}
	for group := first; group < last; group++ {
		offset := sums[group-first] / g.size()
		variance := max(0, squares[group-first]/g.size()-offset*offset)
		stats[(n*g.groups+group)*2] = float32(float64(g.first(n, group*width)) + offset)
		stats[(n*g.groups+group)*2+1] = float32(1 / math.Sqrt(variance+epsilon))
	}
}

// normTables holds what each entry of a strip is normalised with.
type normTables struct{ mean, scale, shift [tableSize]float32 }

// fill fills the tables for a strip of sample n.
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

// from is the tables from an entry on.
func (t *normTables) from(entry int) vector.Affine {
	return vector.Affine{Mean: t.mean[entry:], Scale: t.scale[entry:], Shift: t.shift[entry:]}
}

// groupNorm computes y [N, P, C] from x, its stats and gamma, beta [C]. y may be
// x where that is one array.
func (e *engine) groupNorm(g norm, y, stats, gamma, beta []float32) func() {
	return forSamples(e.pool, g.N, g.P, g.pixelsPerTask(), func(n, first, last int) {
		e.normalise(g, y, stats, gamma, beta, n, first, last, 0, g.channels())
	})
}

// normalise computes channels [c0, c1) of pixels [first, last) of sample n.
func (e *engine) normalise(g norm, y, stats, gamma, beta []float32, n, first, last, c0, c1 int) {
	var t normTables
	for from := c0; from < c1; from += stripWidth {
		s := g.strip(from, min(from+stripWidth, c1))
		t.fill(g, s, n, stats, gamma, beta)
		g.each(s, n, first, last, func(p span) {
			e.vec.Norm(p.dense(y), p.x, p.rows, p.columns, t.from(p.table), g.silu)
		})
	}
}

// groupNormWithStats is groupNormStats and then groupNorm, in one walk over
// strips that stay in the cache: x comes from memory once.
func (e *engine) groupNormWithStats(g norm, epsilon float64, y, stats, gamma, beta []float32) func() {
	width := g.width()
	return forSamples(e.pool, g.N, g.groups, g.groupsPerTask(g.channelsInCache(2)), func(n, first, last int) {
		e.normStats(g, epsilon, stats, n, first, last)
		e.normalise(g, y, stats, gamma, beta, n, 0, g.P, first*width, last*width)
	})
}

// channelsInCache is the number of channels of a sample of which a worker keeps
// so many arrays in its second-level cache, at least a few cache lines of each.
func (g norm) channelsInCache(arrays int) int {
	const size = 1 << 18 // of one megabyte, in float32
	return max(channelTile, min(stripWidth, size/(arrays*g.P)))
}

// groupNormGradSums computes sums [N, 2, C] from what groupNorm read and the
// output gradient dy: for each sample and channel the sum of dz xhat, then that
// of dz.
func (e *engine) groupNormGradSums(g norm, sums, stats, gamma, beta, dy []float32) func() {
	return forSamples(e.pool, g.N, g.channels(), g.channelsPerTask(), func(n, from, to int) {
		e.normGradSums(g, sums, stats, gamma, beta, dy, n, from, to)
	})
}

// normGradSums computes the sums of channels [c0, c1) of sample n.
func (e *engine) normGradSums(g norm, sums, stats, gamma, beta, dy []float32, n, c0, c1 int) {
	C := g.channels()
	var t normTables
	for from := c0; from < c1; from += stripWidth {
		s := g.strip(from, min(from+stripWidth, c1))
		t.fill(g, s, n, stats, gamma, beta)
		var sum, dot [tableSize]float64
		g.each(s, n, 0, g.P, func(p span) {
			e.vec.NormSums(sum[p.table:], dot[p.table:], p.x, p.dense(dy), p.rows, p.columns, t.from(p.table), g.silu)
		})
		s.gather(sum[:])
		s.gather(dot[:])
		product, plain := sums[2*n*C+from:][:s.channels], sums[(2*n+1)*C+from:][:s.channels]
		for i := range product {
			rstd := stats[(n*g.groups+(from+i)/g.width())*2+1]
			product[i], plain[i] = float32(float64(rstd)*dot[i]), float32(sum[i])
		}
	}
}

// groupNormGradData computes dx [N, P, C] from what groupNorm read, the output
// gradient dy and sums of groupNormGradSums. dx may be dy but not x.
func (e *engine) groupNormGradData(g norm, dx, stats, gamma, beta, dy, sums []float32) func() {
	return forSamples(e.pool, g.N, g.P, g.pixelsPerTask(), func(n, first, last int) {
		e.normGradData(g, dx, stats, gamma, beta, dy, sums, n, first, last, 0, g.channels())
	})
}

// normGradData computes channels [c0, c1) of pixels [first, last) of sample n.
func (e *engine) normGradData(g norm, dx, stats, gamma, beta, dy, sums []float32, n, first, last, c0, c1 int) {
	C, width := g.channels(), g.width()
	products, plain := sums[2*n*C:][:C], sums[(2*n+1)*C:][:C]
	var t normTables
	// dx = scale dz - (level + tilt (x - mean))
	var level, tilt [tableSize]float32
	for from := c0; from < c1; from += stripWidth {
		s := g.strip(from, min(from+stripWidth, c1))
		t.fill(g, s, n, stats, gamma, beta)
		for i := 0; i < s.channels; {
			group, end := s.segment(i, width)
			var sum, dot float64
			for c := group * width; c < (group+1)*width; c++ {
				dot += float64(gamma[c]) * float64(products[c])
				sum += float64(gamma[c]) * float64(plain[c])
			}
			rstd := float64(stats[(n*g.groups+group)*2+1])
			for ; i < end; i++ {
				level[i] = float32(rstd * sum / g.size())
				tilt[i] = float32(rstd * rstd * dot / g.size())
			}
		}
		repeat(s, level[:])
		repeat(s, tilt[:])
		g.each(s, n, first, last, func(p span) {
			e.vec.NormGrad(p.dense(dx), p.x, p.dense(dy), p.rows, p.columns, t.from(p.table), level[p.table:], tilt[p.table:], g.silu)
		})
	}
}

// groupNormGradWithSums is groupNormGradSums and then groupNormGradData, in one
// walk over strips that stay in the cache: x and dy come from memory once.
func (e *engine) groupNormGradWithSums(g norm, dx, sums, stats, gamma, beta, dy []float32) func() {
	width := g.width()
	return forSamples(e.pool, g.N, g.groups, g.groupsPerTask(g.channelsInCache(3)), func(n, first, last int) {
		e.normGradSums(g, sums, stats, gamma, beta, dy, n, first*width, last*width)
		e.normGradData(g, dx, stats, gamma, beta, dy, sums, n, 0, g.P, first*width, last*width)
	})
}

// groupNormGradAffine computes dgb [2, C], the gradient of gamma, then that of
// beta, from sums [N, 2, C] of groupNormGradSums.
func (e *engine) groupNormGradAffine(N, C int, dgb, sums []float32) func() {
	return e.sumPixels(1, N, 2*C, dgb, sums)
}

// boundOp is an operation on operands of known extents and place.
type boundOp struct {
	op graph.Op
	in []graph.Shape
	m  operands
}

// normPair binds two operations that follow each other if they are a
// normalisation's statistics and the normalisation by them, or the sums of its
// gradient and the gradient by them; else it returns nil.
func (e *engine) normPair(first, second boundOp) func() {
	uses := func(m operands, at int) bool {
		return at < len(m.in) && len(m.f(at)) > 0 && &m.f(at)[0] == &first.m.out[0]
	}
	samePlace := func() bool {
		for i, x := range first.m.in {
			if &x.floats[0] != &second.m.f(i)[0] {
				return false
			}
		}
		return true
	}
	switch op := first.op.(type) {
	case graph.GroupNormStats:
		next, ok := second.op.(graph.GroupNorm)
		if !ok || next.Groups != op.Groups || next.Concat != op.Concat || !samePlace() || !uses(second.m, len(first.m.in)) {
			return nil
		}
		g, r := normOf(second.m, second.in, op.Groups, op.Concat, next.SiLU)
		return e.groupNormWithStats(g, op.Eps, second.m.out, r[0].floats, r[1].floats, r[2].floats)
	case graph.GroupNormGradSums:
		next, ok := second.op.(graph.GroupNormGradData)
		if !ok || graph.GroupNormGradSums(next) != op || !samePlace() || !uses(second.m, len(first.m.in)) {
			return nil
		}
		g, r := normOf(second.m, second.in, op.Groups, op.Concat, op.SiLU)
		return e.groupNormGradWithSums(g, second.m.out, r[4].floats, r[0].floats, r[1].floats, r[2].floats, r[3].floats)
	}
	return nil
}

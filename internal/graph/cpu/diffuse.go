package cpu

import (
	"math"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/philox"
	"ddpm/internal/graph/cpu/worker"
	"ddpm/internal/rng"
)

// randomGrain is the number of elements a task takes where each is a normal
// number. It is, as grain is, a multiple of 4, the numbers in a Philox block.
const randomGrain = 1024

// normalized is byte/127.5 - 1.
var normalized = func() (value [256]float32) {
	for i := range value {
		value[i] = float32(float64(i)/127.5 - 1)
	}
	return value
}()

// forward are the operands of qSample for N images [H, W, C] of D values.
type forward struct {
	N, W, C, D  int
	stream      rng.Stream
	xt, target  []float32    // [N, D]
	images      []uint8      // [N, D]
	flip        []float32    // [N]
	keys        []uint32     // [N, 4]
	onX0, onEps [2][]float32 // [N], of xt and of target
	x0, eps     []float32    // [N, D], scratch
}

// qSample computes graph.QSample.
func (e *engine) qSample(f forward) func() {
	return forSamples(e.pool, f.N, f.D, randomGrain, func(n, from, to int) {
		row := f.images[n*f.D : (n+1)*f.D]
		sampleKey(f.keys, n, f.stream).NormalsAt(f.eps[n*f.D+from:n*f.D+to], from)
		first := from
		from, to = n*f.D+from, n*f.D+to
		x0, eps := f.x0[from:to], f.eps[from:to]
		readPixels(x0, row, first, f.W, f.C, f.flip[n] != 0)
		e.vec.Mix(f.xt[from:to], f.onX0[0][n], x0, f.onEps[0][n], eps)
		e.vec.Mix(f.target[from:to], f.onX0[1][n], x0, f.onEps[1][n], eps)
	})
}

// readPixels fills x0 with the values of an image [H, W, C] from element first
// on, in the network's range.
func readPixels(x0 []float32, image []uint8, first, W, C int, mirrored bool) {
	if !mirrored {
		for i, b := range image[first : first+len(x0)] {
			x0[i] = normalized[b]
		}
		return
	}
	for i := range x0 {
		at := first + i
		column := at / C % W
		x0[i] = normalized[image[at+(W-1-2*column)*C]]
	}
}

// pSample computes graph.PSample for N samples of D values, where nothing but the
// plain step is asked: prev and x0 from xt, out, keys [N, 4] and coefficients.
func (e *engine) pSample(N, D int, prev, x0, xt, out []float32, keys []uint32, coefs []float32, op graph.PSample) func() {
	return forSamples(e.pool, N, D, randomGrain, func(n, from, to int) {
		c := (*[graph.PSampleCoefs]float32)(coefs)
		prev, x0, xt, out := prev[n*D+from:n*D+to], x0[n*D+from:n*D+to], xt[n*D+from:n*D+to], out[n*D+from:n*D+to]
		noisy := c[graph.PrevOnNoise] != 0
		if noisy {
			sampleKey(keys, n, op.Stream).NormalsAt(prev, from)
		}
		for i, x := range xt {
			start := c[graph.X0OnXt]*x + c[graph.X0OnOut]*out[i]
			// Clipping must not hide an infinity; this makes it NaN.
			start += start - start
			if op.Clip {
				start = min(max(start, -1), 1)
			}
			eps := c[graph.EpsOnXt]*x + c[graph.EpsOnOut]*out[i]
			y := c[graph.PrevOnXt]*x + c[graph.PrevOnX0]*start + c[graph.PrevOnEps]*eps
			if noisy {
				y += c[graph.PrevOnNoise] * prev[i]
			}
			prev[i], x0[i] = y, start
		}
	})
}

// wide is where a network's output for images [N, D] of C channels lies in [N, D/C, K],
// K being C or 2 C, the variances then second.
type wide struct{ N, D, C, K int }

func wideOf(x, out graph.Shape) wide {
	n, size := samples(x)
	return wide{n, size, x[len(x)-1], out[len(out)-1]}
}

// at is where the output for element i of sample n is.
func (w wide) at(n, i int) int { return (n*w.D+i)/w.C*w.K + i%w.C }

// next is how far the output for the element after i is from that for i.
func (w wide) next(i int) int {
	if (i+1)%w.C == 0 {
		return w.K - w.C + 1
	}
	return 1
}

// reverseStep are the operands of pSampleWith.
type reverseStep struct {
	wide
	prev, x0, xt, out []float32
	keys              []uint32    // [N, 4]
	coefs, limits     []float32   // limits [N], nil for none
	kept, keptNew     [][]float32 // of [N, D]
}

// pSampleWith computes all of graph.PSample.
func (e *engine) pSampleWith(s reverseStep, op graph.PSample) func() {
	return forSamples(e.pool, s.N, s.D, randomGrain, func(n, from, to int) {
		c := s.coefs
		noisy := c[graph.PrevOnNoise] != 0
		if noisy {
			sampleKey(s.keys, n, op.Stream).NormalsAt(s.prev[n*s.D+from:n*s.D+to], from)
		}
		low, high := float32(math.Inf(-1)), float32(math.Inf(1))
		divisor := float32(1)
		switch {
		case s.limits != nil:
			low, high, divisor = -s.limits[n], s.limits[n], s.limits[n]
		case op.Clip:
			low, high = -1, 1
		}
		// log s = middle + reach v
		middle, reach := (c[graph.LogVarMax]+c[graph.LogVarMin])/4, (c[graph.LogVarMax]-c[graph.LogVarMin])/4
		at := s.at(n, from)
		for i := from; i < to; i++ {
			here := n*s.D + i
			x, out := s.xt[here], s.out[at]
			start := c[graph.X0OnXt]*x + c[graph.X0OnOut]*out
			start += start - start // NaN if not finite, as above
			start = min(max(start, low), high) / divisor
			eps := c[graph.EpsOnXt]*x + c[graph.EpsOnOut]*out
			y := c[graph.PrevOnXt]*x + c[graph.PrevOnX0]*start + c[graph.PrevOnEps]*eps
			if noisy {
				noise := c[graph.PrevOnNoise] * s.prev[here]
				if op.Learned {
					noise *= float32(math.Exp(float64(middle + reach*s.out[at+s.C])))
				}
				y += noise
			}
			for j, kept := range s.kept {
				y += c[op.KeptCoef(j)] * kept[here]
			}
			for k, keptNew := range s.keptNew {
				row := c[op.KeptRow(k):]
				value := row[0]*x + row[1]*start + row[2]*eps
				for j, kept := range s.kept {
					value += row[3+j] * kept[here]
				}
				keptNew[here] = value
			}
			s.prev[here], s.x0[here] = y, start
			at += s.next(i)
		}
	})
}

// x0Limit computes graph.X0Limit: limits [N] from xt, out and coefficients. ws holds N D
// floats.
func (e *engine) x0Limit(w wide, limits, xt, out, coefs []float32, rank int, ws []float32) func() {
	return forRange(e.pool, w.N, 1, func(n, _ int) {
		onXt, onOut := coefs[graph.X0OnXt], coefs[graph.X0OnOut]
		values := ws[n*w.D : (n+1)*w.D]
		at := w.at(n, 0)
		for i, x := range xt[n*w.D : (n+1)*w.D] {
			x0 := onXt*x + onOut*out[at]
			values[i] = x0 + (x0 - x0)
			at += w.next(i)
		}
		limits[n] = max(smallest(values, rank), 1)
	})
}

// smallest is the value at a place of the magnitudes of values sorted upwards, NaN the
// largest. Of numbers without sign the order is that of their bits: they are counted by
// eight bits at a time, from the highest, of those that agree with what is known.
func smallest(values []float32, rank int) float32 {
	const sign = 1 << 31
	var known, mask uint32
	for shift := 24; shift >= 0; shift -= 8 {
		var counts [256]int
		for _, v := range values {
			if bits := math.Float32bits(v) &^ sign; bits&mask == known {
				counts[bits>>shift&0xff]++
			}
		}
		digit := 0
		for rank >= counts[digit] {
			rank -= counts[digit]
			digit++
		}
		known |= uint32(digit) << shift
		mask |= 0xff << shift
	}
	return math.Float32frombits(known)
}

// sampleKey returns the key of sample n of keys [N, 4]: the seed's low and high
// word, the step, the sample's index.
func sampleKey(keys []uint32, n int, stream rng.Stream) rng.Key {
	k := keys[4*n : 4*n+4]
	return rng.Key{Seed: uint64(k[1])<<32 | uint64(k[0]), Stream: stream, Step: k[2], Sample: k[3]}
}

// dropout computes y = x / (1 - prob) where it keeps an element and 0 where it
// drops it, for x and y [N, D]. Element i of row n is kept if word i of the
// sequence of row n of keys [N, 4] (see sampleKey) is at least prob as a number
// in [0, 1); prob < 1. Applied to the output gradient with the same keys it is
// its own gradient. y may be x.
func (e *engine) dropout(N, D int, y, x []float32, keys []uint32, stream rng.Stream, prob float64) func() {
	d := philox.NewDropout(e.set, prob)
	return forSamples(e.pool, N, D, grain, func(n, from, to int) {
		d.Apply(y[n*D+from:n*D+to], x[n*D+from:n*D+to], sampleKey(keys, n, stream), uint32(from/philox.BlockSize))
	})
}

// timestepEmbedding computes the sinusoidal embedding out [N, dim] of t [N]
// (Ho et al., 2020; Vaswani et al., 2017): with half = dim/2, columns i and
// half+i are
//
//	sin(t f_i), cos(t f_i),   f_i = 10000^(-i / (half - freqShift))
//
// or the cosine first if flipSinToCos. An odd dim ends in a zero. The
// frequencies and their products with t are rounded to float32, as where the
// published weights were trained.
func timestepEmbedding(p *worker.Pool, N, dim int, out, t []float32, flipSinToCos bool, freqShift float64) func() {
	half := dim / 2
	frequencies := make([]float32, half)
	for i := range frequencies {
		frequencies[i] = float32(math.Exp(-math.Log(10000) * float64(i) / (float64(half) - freqShift)))
	}
	sine, cosine := 0, half
	if flipSinToCos {
		sine, cosine = half, 0
	}
	return forRange(p, N, max(1, expGrain/max(dim, 1)), func(from, to int) {
		for n := from; n < to; n++ {
			row := out[n*dim : (n+1)*dim]
			for i, f := range frequencies {
				sin, cos := math.Sincos(float64(t[n] * f))
				row[sine+i], row[cosine+i] = float32(sin), float32(cos)
			}
			if dim%2 == 1 {
				row[dim-1] = 0
			}
		}
	})
}

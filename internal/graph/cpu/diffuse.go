package cpu

import (
	"math"

	"ddpm/internal/graph/cpu/philox"
	"ddpm/internal/graph/cpu/worker"
	"ddpm/internal/rng"
)

// randomGrain is the number of elements a task takes where each is a normal
// number. It is, as grain is, a multiple of 4, the numbers in a Philox block.
const randomGrain = 1024

// normalize maps bytes to the network's range, y = byte/127.5 - 1, for images
// and y [N, H, W, C]. Samples whose flip [N] is not 0 are mirrored left to right.
func normalize(p *worker.Pool, N, H, W, C int, y []float32, images []uint8, flip []float32) func() {
	var value [256]float32
	for i := range value {
		value[i] = float32(float64(i)/127.5 - 1)
	}
	return forRange(p, N*H, rowsPerTask(W*C), func(from, to int) {
		for row := from; row < to; row++ {
			pixels := images[row*W*C : (row+1)*W*C]
			y := y[row*W*C : (row+1)*W*C]
			if flip[row/H] == 0 {
				for i, b := range pixels {
					y[i] = value[b]
				}
				continue
			}
			for w := range W {
				mirrored := y[(W-1-w)*C : (W-w)*C]
				for c, b := range pixels[w*C : (w+1)*C] {
					mirrored[c] = value[b]
				}
			}
		}
	})
}

// sampleKey returns the key of sample n of keys [N, 4]: the seed's low and high
// word, the step, the sample's index.
func sampleKey(keys []uint32, n int, stream rng.Stream) rng.Key {
	k := keys[4*n : 4*n+4]
	return rng.Key{Seed: uint64(k[1])<<32 | uint64(k[0]), Stream: stream, Step: k[2], Sample: k[3]}
}

// noise fills out [N, D] with standard normal numbers: row n is what
// rng.Key.Normals gives for row n of keys [N, 4] (see sampleKey).
func noise(p *worker.Pool, N, D int, out []float32, keys []uint32, stream rng.Stream) func() {
	return forSamples(p, N, D, randomGrain, func(n, from, to int) {
		sampleKey(keys, n, stream).NormalsAt(out[n*D+from:n*D+to], from)
	})
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

// mix computes y[n,:] = a[n] x[n,:] + b[n] z[n,:] for x, y and z [N, D] and a
// and b [N]. y may be x or z.
func (e *engine) mix(N, D int, y, a, x, b, z []float32) func() {
	return forSamples(e.pool, N, D, grain, func(n, from, to int) {
		from, to = n*D+from, n*D+to
		e.vec.Mix(y[from:to], a[n], x[from:to], b[n], z[from:to])
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

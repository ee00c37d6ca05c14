package cpu

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/graph/cpu/worker"
	"ddpm/internal/rng"
)

// nd are shapes [N, D]: one value, D no multiple of 4, more than one task a sample.
var nd = [][2]int{{1, 1}, {3, 5}, {3, randomGrain + 6}, {16, 768}, {2, 2*grain + 1}}

func testKeys(N int) ([]uint32, []rng.Key) {
	keys, want := make([]uint32, 4*N), make([]rng.Key, N)
	for n := range N {
		want[n] = rng.Key{Seed: 0x0123456789abcdef + uint64(n), Stream: rng.Dropout + 2, Step: uint32(7 * n), Sample: uint32(100 - n)}
		copy(keys[4*n:], []uint32{uint32(want[n].Seed), uint32(want[n].Seed >> 32), want[n].Step, want[n].Sample})
	}
	return keys, want
}

// The noise of QSample is that of package rng, bit for bit, and its pixels are
// exact.
func TestQSample(t *testing.T) {
	for _, s := range [][4]int{{1, 1, 1, 1}, {3, 2, 5, 3}, {2, 64, 63, 3}, {16, 16, 16, 3}} {
		N, H, W, C := s[0], s[1], s[2], s[3]
		D := H * W * C
		keys, rngKeys := testKeys(N)
		images, flip, one, zero := make([]uint8, N*D), make([]float32, N), make([]float32, N), make([]float32, N)
		for i := range images {
			images[i] = uint8(i * 7)
		}
		var pixels, noise []float64
		for n, key := range rngKeys {
			flip[n], one[n] = float32(n%2), 1
			row := make([]float32, D)
			key.Normals(row)
			noise = append(noise, widen(row)...)
			for i := range D {
				h, w, c := i/(W*C), i/C%W, i%C
				if n%2 == 1 {
					w = W - 1 - w
				}
				pixels = append(pixels, float64(float32(float64(images[((n*H+h)*W+w)*C+c])/127.5-1)))
			}
		}
		checkKernel(t, [][]float64{pixels, noise}, 0, func(e *engine) bound {
			f := forward{N: N, W: W, C: C, D: D, stream: rng.Dropout + 2, images: images, flip: flip, keys: keys,
				onX0: [2][]float32{one, zero}, onEps: [2][]float32{zero, one}}
			f.xt, f.target, f.x0, f.eps = poison(N*D), poison(N*D), poison(N*D), poison(N*D)
			return bound{[][]float32{f.xt, f.target}, e.qSample(f)}
		})
	}
}

// Clipping does not turn a network's overflow into a picture.
func TestPSampleKeepsWhatIsNotFinite(t *testing.T) {
	e := newEngine(1, isa.Detect())
	defer e.pool.Close()
	inf := float32(math.Inf(1))
	prev, x0 := make([]float32, 4), make([]float32, 4)
	e.pSample(1, 4, prev, x0, []float32{0, 0, 0, 0}, []float32{inf, -inf, float32(math.NaN()), 3}, []uint32{1, 0, 0, 0},
		[]float32{0, 1, 0, 0, 0, 1, 0, 0, 0, 0}, graph.PSample{Clip: true})()
	for i, finite := range []bool{false, false, false, true} {
		if (x0[i]-x0[i] == 0) != finite || (prev[i]-prev[i] == 0) != finite {
			t.Errorf("element %d: x_0 %v and x_prev %v, finite %t", i, x0[i], prev[i], finite)
		}
	}
	if x0[3] != 1 {
		t.Errorf("x_0 %v, want it clipped to 1", x0[3])
	}
}

// Nor does dynamic thresholding, which divides: a value that is not finite counts as the
// largest of its image.
func TestLimitsKeepWhatIsNotFinite(t *testing.T) {
	e := newEngine(1, isa.Detect())
	defer e.pool.Close()
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	images := graph.Shape{4, 4}
	xt, out := make([]float32, 16), []float32{inf, 1, 2, 3, -inf, 1, 2, 3, nan, 1, 2, 3, 4, 1, 2, 3}
	coefs := make([]float32, graph.PSampleCoefs)
	coefs[graph.X0OnOut], coefs[graph.PrevOnX0] = 1, 1
	for _, c := range []struct {
		quantile float64
		want     [4]float32
	}{{0.75, [4]float32{3, 3, 3, 3}}, {1, [4]float32{nan, nan, nan, 4}}} {
		limit := graph.X0Limit{Quantile: c.quantile}
		limits := make([]float32, 4)
		k := e.kernel(limit, images[:1], []graph.Shape{images, images, {graph.PSampleCoefs}})
		k.bind(operands{out: limits, ws: poison(k.workspace), in: []memory{{floats: xt}, {floats: out}, {floats: coefs}}})()
		step := graph.PSample{Limited: true}
		result := make([]float32, 32)
		keys := make([]uint32, 16)
		k = e.kernel(step, graph.Shape{2, 4, 4}, []graph.Shape{images, images, {4, 4}, {graph.PSampleCoefs}, {4}})
		k.bind(operands{out: result, in: []memory{{floats: xt}, {floats: out}, {words: keys}, {floats: coefs}, {floats: limits}}})()
		for n, want := range c.want {
			if limits[n] != want && (want == want || limits[n] == limits[n]) {
				t.Errorf("quantile %g: limit %d is %v, want %v", c.quantile, n, limits[n], want)
			}
			x0 := result[16+4*n]
			if finite := n == 3; (x0-x0 == 0) != finite || (result[4*n]-result[4*n] == 0) != finite {
				t.Errorf("quantile %g, image %d: x_0 %v and x_prev %v", c.quantile, n, x0, result[4*n])
			}
		}
	}
}

// smallest finds every place among equal values, zeros of both signs and what has no
// exponent, and does not care for order.
func TestSmallest(t *testing.T) {
	inf := float32(math.Inf(1))
	values := append(gaussian(300, 1), 0, float32(math.Copysign(0, -1)), 1e-44, -1e-44, 1e-38, 1, -1, 1, 3e38, inf, -inf)
	for i := range 100 {
		values[i] = float32(i%7) / 4
	}
	var sorted []float64
	for _, v := range values {
		sorted = append(sorted, math.Abs(float64(v)))
	}
	slices.Sort(sorted)
	for rank, want := range sorted {
		if got := smallest(values, rank); float64(got) != want {
			t.Errorf("place %d: %v, want %v", rank, got, want)
		}
	}
	if got := smallest([]float32{float32(math.NaN()), inf, 1}, 2); got == got {
		t.Errorf("of NaN, infinity and 1 the largest is %v", got)
	}
}

// Steps of several tasks an image, which begin at any channel.
func TestReverseSteps(t *testing.T) {
	images, outputs := graph.Shape{2, 20, 20, 3}, graph.Shape{2, 20, 20, 6}
	keys, _ := testKeys(2)
	for _, c := range []struct {
		op    graph.PSample
		shape graph.Shape
	}{
		{graph.PSample{Kept: 3}, images},
		{graph.PSample{Clip: true, Learned: true}, outputs},
		{graph.PSample{Limited: true, Learned: true, Kept: 2}, outputs},
	} {
		coefs := gaussian(c.op.Coefs(), 5)
		shapes := []graph.Shape{images, c.shape, {2, 4}, {len(coefs)}}
		values := []any{gaussian(2400, 1), gaussian(c.shape.TotalSize(), 2), keys, coefs}
		if c.op.Limited {
			shapes, values = append(shapes, graph.Shape{2}), append(values, []float32{1, 1.5})
		}
		for i := range c.op.Kept {
			shapes, values = append(shapes, images), append(values, gaussian(2400, 10+uint32(i)))
		}
		checkOperation(t, c.op, 4e-6, shapes, values...)
	}
	x0 := []graph.Shape{images, outputs, {graph.PSampleCoefs}}
	checkOperation(t, graph.X0Limit{Quantile: 0.99}, 3e-7, x0, gaussian(2400, 1), gaussian(4800, 2), []float32{1, -0.5, 0, 0, 0, 0, 0, 0, 0, 0})
}

func TestDropout(t *testing.T) {
	for _, s := range nd {
		for _, prob := range []float64{0, 0.1, 0.75} {
			N, D := s[0], s[1]
			x := gaussian(N*D, 1)
			keys, rngKeys := testKeys(N)
			want := make([]float64, N*D)
			for n, key := range rngKeys {
				uniforms := make([]float64, D)
				key.Uniforms(uniforms)
				for i, u := range uniforms {
					if u >= prob {
						want[n*D+i] = float64(x[n*D+i]) / (1 - prob)
					}
				}
			}
			checkKernel(t, [][]float64{want}, 1e-7, func(e *engine) bound {
				y := poison(N * D)
				return bound{[][]float32{y}, e.dropout(N, D, y, x, keys, rng.Dropout+2, prob)}
			})
			checkInPlace(t, N*D, func(e *engine, y, x []float32) func() {
				return e.dropout(N, D, y, x, keys, rng.Dropout+2, prob)
			})
		}
	}
}

func TestTimestepEmbedding(t *testing.T) {
	for _, dim := range []int{4, 9, 24, 128} {
		for _, flip := range []bool{false, true} {
			for _, freqShift := range []float64{0, 1} {
				steps := []float32{0, 1, 7, 941, 999}
				half := dim / 2
				want := make([]float64, len(steps)*dim)
				for n, step := range steps {
					for i := range half {
						f := float32(math.Pow(10000, -float64(i)/(float64(half)-freqShift)))
						sin, cos := math.Sincos(float64(step * f))
						if flip {
							sin, cos = cos, sin
						}
						want[n*dim+i], want[n*dim+half+i] = sin, cos
					}
				}
				t.Run(fmt.Sprintf("dim=%d,flip=%v,shift=%v", dim, flip, freqShift), func(t *testing.T) {
					// A frequency on the edge between two float32 numbers may be
					// rounded the other way here; t = 999 makes that 3e-5 or less.
					checkKernel(t, [][]float64{want}, 3e-5, func(e *engine) bound {
						out := poison(len(want))
						return bound{[][]float32{out}, timestepEmbedding(e.pool, len(steps), dim, out, steps, flip, freqShift)}
					})
				})
			}
		}
	}
}

// With freqShift 1 the first frequency is 1 and the last 1/10000; the sines are
// the first half.
func TestTimestepEmbeddingColumns(t *testing.T) {
	p := worker.New(1)
	out := poison(8)
	timestepEmbedding(p, 1, 8, out, []float32{941}, false, 1)()
	checkNear(t, []float32{out[0], out[3], out[4], out[7]},
		[]float64{math.Sin(941), math.Sin(0.0941), math.Cos(941), math.Cos(0.0941)}, 1e-7)
}

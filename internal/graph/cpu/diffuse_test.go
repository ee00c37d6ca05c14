package cpu

import (
	"fmt"
	"math"
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
		[]float32{0, 1, 0, 0, 0, 1, 0, 0}, graph.PSample{Clip: true})()
	for i, finite := range []bool{false, false, false, true} {
		if (x0[i]-x0[i] == 0) != finite || (prev[i]-prev[i] == 0) != finite {
			t.Errorf("element %d: x_0 %v and x_prev %v, finite %t", i, x0[i], prev[i], finite)
		}
	}
	if x0[3] != 1 {
		t.Errorf("x_0 %v, want it clipped to 1", x0[3])
	}
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

package cpu

import (
	"fmt"
	"math"
	"testing"

	"ddpm/internal/graph/cpu/worker"
	"ddpm/internal/rng"
)

func TestNormalize(t *testing.T) {
	for _, s := range [][4]int{{1, 1, 1, 1}, {3, 2, 5, 3}, {4, 64, 63, 3}} {
		N, H, W, C := s[0], s[1], s[2], s[3]
		images, flip := make([]uint8, N*H*W*C), make([]float32, N)
		for i := range images {
			images[i] = uint8(i * 7)
		}
		want := make([]float64, len(images))
		for n := range N {
			flip[n] = float32(n % 2)
			for i := range H * W * C {
				h, w, c := i/(W*C), i/C%W, i%C
				if n%2 == 1 {
					w = W - 1 - w
				}
				want[n*H*W*C+i] = float64(float32(float64(images[((n*H+h)*W+w)*C+c])/127.5 - 1))
			}
		}
		checkKernel(t, [][]float64{want}, 0, func(e *engine) bound {
			y := poison(len(want))
			return bound{[][]float32{y}, normalize(e.pool, N, H, W, C, y, images, flip)}
		})
	}
}

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

func TestNoise(t *testing.T) {
	for _, s := range nd {
		N, D := s[0], s[1]
		keys, rngKeys := testKeys(N)
		var want []float64
		for _, key := range rngKeys {
			row := make([]float32, D)
			key.Normals(row)
			want = append(want, widen(row)...)
		}
		checkKernel(t, [][]float64{want}, 0, func(e *engine) bound {
			out := poison(N * D)
			return bound{[][]float32{out}, noise(e.pool, N, D, out, keys, rng.Dropout+2)}
		})
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

func TestMix(t *testing.T) {
	for _, s := range nd {
		N, D := s[0], s[1]
		a, b, x, z := gaussian(N, 1), gaussian(N, 2), gaussian(N*D, 3), gaussian(N*D, 4)
		want := make([]float64, N*D)
		for i := range want {
			want[i] = float64(a[i/D])*float64(x[i]) + float64(b[i/D])*float64(z[i])
		}
		checkKernel(t, [][]float64{want}, 2e-7, func(e *engine) bound {
			y := poison(N * D)
			return bound{[][]float32{y}, e.mix(N, D, y, a, x, b, z)}
		})
		checkInPlace(t, N*D, func(e *engine, y, x []float32) func() { return e.mix(N, D, y, a, x, b, z) })
		checkInPlace(t, N*D, func(e *engine, y, z []float32) func() { return e.mix(N, D, y, a, x, b, z) })
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

func BenchmarkNoise(b *testing.B) {
	const N, D = 16, 768
	p := worker.New(1)
	keys, _ := testKeys(N)
	run := noise(p, N, D, poison(N*D), keys, rng.Noise)
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(N*D), "ns/element")
}

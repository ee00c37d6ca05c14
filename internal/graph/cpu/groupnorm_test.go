package cpu

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph/cpu/worker"
)

type normShape struct{ N, P, C, groups int }

// One pixel; odd numbers; one group; groups that end inside a tile; more
// samples than are cut; groups wider than a strip; several strips.
var normShapes = []normShape{
	{1, 1, 5, 1}, {3, 7, 5, 1}, {3, 7, 5, 5}, {2, 30, 24, 4}, {17, 4, 24, 4}, {3, 5, 48, 4},
	{1, 3, 135, 9}, {1, 2, 600, 2}, {1, 2, 320, 32}, {2, 9, 72, 4}, {16, 1, 270, 27},
}

func (s normShape) run(t *testing.T, fn func(t *testing.T)) {
	t.Run(fmt.Sprintf("N=%d,P=%d,C=%d,groups=%d", s.N, s.P, s.C, s.groups), fn)
}

const normEpsilon = 1e-5

// groupNormOracle normalises one sample in float64.
func groupNormOracle(s normShape, silu bool, x, gamma, beta []float64) (y, stats []float64) {
	width := s.C / s.groups
	y, stats = make([]float64, s.P*s.C), make([]float64, 2*s.groups)
	for group := range s.groups {
		var sum, squares float64
		for pixel := range s.P {
			for _, v := range x[pixel*s.C+group*width:][:width] {
				sum += v
			}
		}
		mean := sum / float64(s.P*width)
		for pixel := range s.P {
			for _, v := range x[pixel*s.C+group*width:][:width] {
				squares += (v - mean) * (v - mean)
			}
		}
		rstd := 1 / math.Sqrt(squares/float64(s.P*width)+normEpsilon)
		stats[2*group], stats[2*group+1] = mean, rstd
		for pixel := range s.P {
			for c := group * width; c < (group+1)*width; c++ {
				i := pixel*s.C + c
				y[i] = (x[i]-mean)*rstd*gamma[c] + beta[c]
				if silu {
					y[i], _ = siluOracle(y[i])
				}
			}
		}
	}
	return y, stats
}

func TestGroupNorm(t *testing.T) {
	for _, s := range normShapes {
		for _, silu := range []bool{false, true} {
			s.run(t, func(t *testing.T) {
				size := s.P * s.C
				x, gamma, beta := gaussian(s.N*size, 1), gaussian(s.C, 2), gaussian(s.C, 3)
				for i := range x {
					x[i] = 3*x[i] + 1.5
				}
				var y, stats []float64
				for n := range s.N {
					yn, statsn := groupNormOracle(s, silu, widen(x[n*size:(n+1)*size]), widen(gamma), widen(beta))
					y, stats = append(y, yn...), append(stats, statsn...)
				}
				checkKernel(t, [][]float64{y, stats}, 3e-7, func(p *worker.Pool) bound {
					gotY, gotStats := poison(len(y)), poison(len(stats))
					reduce := groupNormStats(p, s.N, s.P, s.C, s.groups, normEpsilon, gotStats, x)
					normalise := groupNorm(p, s.N, s.P, s.C, s.groups, silu, gotY, x, gotStats, gamma, beta)
					return bound{[][]float32{gotY, gotStats}, func() {
						reduce()
						normalise()
					}}
				})
				checkInPlace(t, len(x), func(p *worker.Pool, y, x []float32) func() {
					stats := poison(len(stats))
					groupNormStats(p, s.N, s.P, s.C, s.groups, normEpsilon, stats, x)()
					return groupNorm(p, s.N, s.P, s.C, s.groups, silu, y, x, stats, gamma, beta)
				})
			})
		}
	}
}

// The variance must survive a mean that is large beside it, and a first value,
// from which the kernel measures, that is far from the mean.
func TestGroupNormStatsOfHardData(t *testing.T) {
	p := worker.New(1)
	s := normShape{1, 4096, 6, 1}
	for name, change := range map[string]func(x []float32){
		"mean 1e5":    func(x []float32) { addConstant(x, 1e5) },
		"mean -3e3":   func(x []float32) { addConstant(x, -3e3) },
		"outlier 1e6": func(x []float32) { x[0] = 1e6 },
		"constant":    func(x []float32) { clear(x); addConstant(x, 0.1) },
	} {
		x := gaussian(s.P*s.C, 1)
		change(x)
		_, want := groupNormOracle(s, false, widen(x), make([]float64, s.C), make([]float64, s.C))
		got := poison(2)
		groupNormStats(p, s.N, s.P, s.C, s.groups, normEpsilon, got, x)()
		for i := range want {
			if d := math.Abs(float64(got[i])/want[i] - 1); !(d <= 1e-7) {
				t.Errorf("%s: (mean, rstd) is %g, want %g", name, got, want)
				break
			}
		}
	}
	x, stats := gaussian(s.P*s.C, 1), poison(2)
	x[777] = float32(math.Inf(1))
	groupNormStats(p, s.N, s.P, s.C, s.groups, normEpsilon, stats, x)()
	if !math.IsNaN(float64(stats[1])) {
		t.Errorf("Inf among the values gives (mean, rstd) %g, want NaN for rstd", stats)
	}
}

func addConstant(x []float32, c float32) {
	for i := range x {
		x[i] += c
	}
}

// The gradients must match central differences of the float64 oracle.
func TestGroupNormGrad(t *testing.T) {
	for _, s := range normShapes {
		for _, silu := range []bool{false, true} {
			s.run(t, func(t *testing.T) {
				size := s.P * s.C
				x, gamma, beta, dy := gaussian(s.N*size, 1), gaussian(s.C, 2), gaussian(s.C, 3), gaussian(s.N*size, 4)
				dx, dgb := make([]float64, s.N*size), make([]float64, 2*s.C)
				wideGamma, wideBeta := widen(gamma), widen(beta)
				for n := range s.N {
					sample, dout := widen(x[n*size:(n+1)*size]), widen(dy[n*size:(n+1)*size])
					slope := func(v *float64) float64 {
						const h = 1e-5
						at := *v
						*v = at + h
						above, _ := groupNormOracle(s, silu, sample, wideGamma, wideBeta)
						*v = at - h
						below, _ := groupNormOracle(s, silu, sample, wideGamma, wideBeta)
						*v = at
						var sum float64
						for i, d := range dout {
							sum += d * (above[i] - below[i])
						}
						return sum / (2 * h)
					}
					for i := range sample {
						dx[n*size+i] = slope(&sample[i])
					}
					for c := range s.C {
						dgb[c] += slope(&wideGamma[c])
						dgb[s.C+c] += slope(&wideBeta[c])
					}
				}
				reference := worker.New(1)
				stats := poison(s.N * s.groups * 2)
				groupNormStats(reference, s.N, s.P, s.C, s.groups, normEpsilon, stats, x)()
				checkKernel(t, [][]float64{dx, dgb}, 2e-6, func(p *worker.Pool) bound {
					gotDx, gotDgb, ws := poison(len(dx)), poison(len(dgb)), poison(groupNormGradAffineWorkspace(s.N, s.C))
					data := groupNormGradData(p, s.N, s.P, s.C, s.groups, silu, gotDx, x, stats, gamma, beta, dy)
					affine := groupNormGradAffine(p, s.N, s.P, s.C, s.groups, silu, gotDgb, x, stats, gamma, beta, dy, ws)
					return bound{[][]float32{gotDx, gotDgb}, func() {
						data()
						affine()
					}}
				})
				inPlace, apart := slices.Clone(dy), poison(len(dy))
				groupNormGradData(reference, s.N, s.P, s.C, s.groups, silu, inPlace, x, stats, gamma, beta, inPlace)()
				groupNormGradData(reference, s.N, s.P, s.C, s.groups, silu, apart, x, stats, gamma, beta, dy)()
				if !slices.Equal(inPlace, apart) {
					t.Error("dx in place of dy differs")
				}
			})
		}
	}
}

// The largest normalisation of the default network, one worker.
func BenchmarkGroupNormSiLU(b *testing.B) {
	const N, P, C, groups = 16, 256, 24, 4
	p := worker.New(1)
	x, gamma, beta, dy := gaussian(N*P*C, 1), gaussian(C, 2), gaussian(C, 3), gaussian(N*P*C, 4)
	stats, y, dx, dgb := poison(N*groups*2), poison(N*P*C), poison(N*P*C), poison(2*C)
	for _, k := range []struct {
		name string
		run  func()
	}{
		{"stats", groupNormStats(p, N, P, C, groups, normEpsilon, stats, x)},
		{"forward", groupNorm(p, N, P, C, groups, true, y, x, stats, gamma, beta)},
		{"gradData", groupNormGradData(p, N, P, C, groups, true, dx, x, stats, gamma, beta, dy)},
		{"gradAffine", groupNormGradAffine(p, N, P, C, groups, true, dgb, x, stats, gamma, beta, dy, poison(groupNormGradAffineWorkspace(N, C)))},
	} {
		b.Run(k.name, func(b *testing.B) {
			for b.Loop() {
				k.run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(N*P*C), "ns/element")
		})
	}
}

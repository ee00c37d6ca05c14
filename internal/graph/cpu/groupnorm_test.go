package cpu

import (
	"fmt"
	"math"
	"testing"

	"ddpm/internal/graph/cpu/isa"
)

type normShape struct{ N, P, C, groups int }

// One pixel; odd numbers; one group; groups that end inside a tile; more
// samples than are cut; few rows; strips of several pixels; groups wider than a strip; several strips.
var normShapes = []normShape{
	{1, 1, 5, 1}, {3, 7, 5, 1}, {3, 7, 5, 5}, {2, 30, 24, 4}, {17, 4, 24, 4}, {3, 5, 48, 4},
	{1, 3, 135, 9}, {1, 2, 600, 2}, {1, 2, 320, 32}, {2, 9, 72, 4}, {16, 1, 270, 27}, {1, 1, 1100, 1}, {2, 1, 1040, 10},
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

// dense is a normalisation of one array; split, of two that hold the same
// values, the first with ca channels.
func (s normShape) dense(x []float32, silu bool) norm {
	return norm{s.N, s.P, s.groups, plain(x, s.C), silu}
}

func (s normShape) split(x []float32, ca int, silu bool) norm {
	halves := source{ca: ca, cb: s.C - ca}
	for i := 0; i < len(x); i += s.C {
		halves.a = append(halves.a, x[i:i+ca]...)
		halves.b = append(halves.b, x[i+ca:i+s.C]...)
	}
	return norm{s.N, s.P, s.groups, halves, silu}
}

// eachInput tests a normalisation of x as one array and as two, the first of one
// channel, of some, and of all but one.
func (s normShape) eachInput(x []float32, silu bool, test func(g norm)) {
	test(s.dense(x, silu))
	for _, ca := range []int{1, s.C / 3, s.C / 2, s.C - 1} {
		if ca > 0 && ca < s.C {
			test(s.split(x, ca, silu))
		}
	}
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
				s.eachInput(x, silu, func(g norm) {
					checkKernel(t, [][]float64{y, stats}, 5e-7, func(e *engine) bound {
						gotY, gotStats := poison(len(y)), poison(len(stats))
						reduce := e.groupNormStats(g, normEpsilon, gotStats)
						normalise := e.groupNorm(g, gotY, gotStats, gamma, beta)
						return bound{[][]float32{gotY, gotStats}, func() {
							reduce()
							normalise()
						}}
					})
				})
				checkInPlace(t, len(x), func(e *engine, y, x []float32) func() {
					stats := poison(len(stats))
					e.groupNormStats(s.dense(x, silu), normEpsilon, stats)()
					return e.groupNorm(s.dense(x, silu), y, stats, gamma, beta)
				})
			})
		}
	}
}

// The variance must survive a mean that is large beside it, and a first value,
// from which the kernel measures, that is far from the mean.
// TestGroupNormStatsInAnyBatch checks that a sample is summed in the same order
// whatever the number of samples, on which the tasks depend.
func TestGroupNormStatsInAnyBatch(t *testing.T) {
	for _, C := range []int{8, 24, 100, 128, 256, 384} {
		alone, among := norm{N: 1, P: 49, groups: 4, x: plain(nil, C)}, norm{N: 16, P: 49, groups: 4, x: plain(nil, C)}
		if a, b := alone.strip(0, min(C, alone.channelsPerTask())), among.strip(0, min(C, among.channelsPerTask())); a.pixels != b.pixels {
			t.Errorf("%d channels: tables of %d pixels for one sample, of %d for 16", C, a.pixels, b.pixels)
		}
	}
}

func TestGroupNormStatsOfHardData(t *testing.T) {
	for _, set := range isa.Supported() {
		e := newEngine(1, set)
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
			e.groupNormStats(s.dense(x, false), normEpsilon, got)()
			for i := range want {
				if d := math.Abs(float64(got[i])/want[i] - 1); !(d <= 1e-7) {
					t.Errorf("%v: %s: (mean, rstd) is %g, want %g", set, name, got, want)
					break
				}
			}
		}
		x, stats := gaussian(s.P*s.C, 1), poison(2)
		x[777] = float32(math.Inf(1))
		e.groupNormStats(s.dense(x, false), normEpsilon, stats)()
		if !math.IsNaN(float64(stats[1])) {
			t.Errorf("%v: Inf among the values gives (mean, rstd) %g, want NaN for rstd", set, stats)
		}
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
				reference := newEngine(1, isa.Generic)
				stats := poison(s.N * s.groups * 2)
				reference.groupNormStats(s.dense(x, silu), normEpsilon, stats)()
				s.eachInput(x, silu, func(g norm) {
					checkKernel(t, [][]float64{dx, dgb}, 2e-6, func(e *engine) bound {
						gotDx, gotDgb, sums := poison(len(dx)), poison(len(dgb)), poison(s.N*2*s.C)
						reduce := e.groupNormGradSums(g, sums, stats, gamma, beta, dy)
						data := e.groupNormGradData(g, gotDx, stats, gamma, beta, dy, sums)
						affine := e.groupNormGradAffine(s.N, s.C, gotDgb, sums)
						return bound{[][]float32{gotDx, gotDgb}, func() {
							reduce()
							data()
							affine()
						}}
					})
				})
				checkInPlace(t, len(dy), func(e *engine, dx, dy []float32) func() {
					g, sums := s.dense(x, silu), poison(s.N*2*s.C)
					e.groupNormGradSums(g, sums, stats, gamma, beta, dy)()
					return e.groupNormGradData(g, dx, stats, gamma, beta, dy, sums)
				})
			})
		}
	}
}

// The largest normalisation of the default network, and some of that for CIFAR-10, one
// worker.
func BenchmarkGroupNormSiLU(b *testing.B) {
	for _, s := range []normShape{{16, 256, 24, 4}, {16, 1024, 128, 32}, {16, 64, 512, 32}} {
		e := newEngine(1, isa.Detect())
		n := s.N * s.P * s.C
		x, gamma, beta, dy := gaussian(n, 1), gaussian(s.C, 2), gaussian(s.C, 3), gaussian(n, 4)
		stats, sums, y, dx, dgb := poison(s.N*s.groups*2), poison(s.N*2*s.C), poison(n), poison(n), poison(2*s.C)
		g := s.dense(x, true)
		for _, k := range []struct {
			name string
			run  func()
		}{
			{"stats", e.groupNormStats(g, normEpsilon, stats)},
			{"forward", e.groupNorm(g, y, stats, gamma, beta)},
			{"gradSums", e.groupNormGradSums(g, sums, stats, gamma, beta, dy)},
			{"gradData", e.groupNormGradData(g, dx, stats, gamma, beta, dy, sums)},
			{"gradAffine", e.groupNormGradAffine(s.N, s.C, dgb, sums)},
		} {
			b.Run(fmt.Sprintf("%dx%d/%s", s.P, s.C, k.name), func(b *testing.B) {
				for b.Loop() {
					k.run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/element")
			})
		}
	}
}

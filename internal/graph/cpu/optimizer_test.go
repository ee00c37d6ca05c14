package cpu

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/isa"
)

func TestGradNorm(t *testing.T) {
	for _, n := range lengths {
		g := gaussian(n, 1)
		var squares float64
		for _, v := range g {
			squares += float64(v) * float64(v)
		}
		first := math.NaN()
		for _, workers := range []int{1, 2, 3, 5} {
			e := newEngine(workers, isa.Detect())
			norm := e.gradNorm(g)
			got := norm()
			if !(math.Abs(got/math.Sqrt(squares)-1) <= 1e-13) {
				t.Errorf("n=%d: norm %v, want %v", n, got, math.Sqrt(squares))
			}
			if workers == 1 {
				first = got
			}
			if got != first {
				t.Errorf("n=%d: norm %v with %d workers, %v with 1", n, got, workers, first)
			}
			if allocs := testing.AllocsPerRun(4, func() { norm() }); allocs != 0 {
				t.Errorf("%v allocations a run", allocs)
			}
			e.pool.Close()
		}
	}
}

func TestGradNormShowsNonFiniteGradients(t *testing.T) {
	e := newEngine(2, isa.Detect())
	defer e.pool.Close()
	const n = 2*grain + 3
	for _, at := range []int{0, 1, grain + 2, n - 1} {
		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			g := gaussian(n, 1)
			g[at] = float32(bad)
			if norm := e.gradNorm(g)(); !math.IsNaN(norm) && !math.IsInf(norm, 0) {
				t.Errorf("norm is %v with %v at %d", norm, bad, at)
			}
		}
	}
	g := make([]float32, n)
	for i := range g {
		g[i] = -math.MaxFloat32
	}
	if norm := e.gradNorm(g)(); math.IsNaN(norm) || math.IsInf(norm, 0) {
		t.Errorf("the norm of finite gradients is %v", norm)
	}
}

// golden is testdata/adam_ema.json: two tensors, ten steps, two warm-ups.
type golden struct {
	Hyper struct {
		Betas       []float64
		Eps         float64
		MaxGradNorm float64 `json:"max_grad_norm"`
		EMADecay    float64 `json:"ema_decay"`
	}
	Params   [][]float32
	Grads    [][][]float32
	KPlus1   goldenTrace `json:"k_plus_1"`
	ZeroBase goldenTrace `json:"zero_based"`
}

type goldenTrace struct {
	Float32 []struct {
		Step         int
		LR           float64
		GradNorm     float64 `json:"grad_norm"`
		ClipCoef     float64 `json:"clip_coef"`
		M, V         [][]float64
		Params       [][]float64
		EMA          [][]float64
		EMARampDecay float64     `json:"ema_ramp_decay"`
		EMARamp      [][]float64 `json:"ema_ramp"`
	}
	FinalParams  [][]float64 `json:"float64_final_params"`
	FinalEMA     [][]float64 `json:"float64_final_ema"`
	FinalEMARamp [][]float64 `json:"float64_final_ema_ramp"`
}

func TestAdamStepMatchesGolden(t *testing.T) {
	raw, err := os.ReadFile("../../../testdata/adam_ema.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	e := newEngine(2, isa.Detect())
	defer e.pool.Close()
	for name, trace := range map[string]goldenTrace{"k_plus_1": g.KPlus1, "zero_based": g.ZeroBase} {
		t.Run(name, func(t *testing.T) {
			if len(trace.Float32) != 10 {
				t.Fatalf("%d steps in the trace, want 10", len(trace.Float32))
			}
			params := slices.Concat(g.Params...)
			rampParams := slices.Clone(params)
			ema, ramp := slices.Clone(params), slices.Clone(params)
			n := len(params)
			grads, m, v := make([]float32, n), make([]float32, n), make([]float32, n)
			rampM, rampV := make([]float32, n), make([]float32, n)
			norm := e.gradNorm(grads)
			step := e.adamStep(params, grads, m, v, ema)
			rampStep := e.adamStep(rampParams, grads, rampM, rampV, ramp)
			for k, want := range trace.Float32 {
				copy(grads, slices.Concat(g.Grads[k]...))
				gradNorm := norm()
				// The trace's norm is a float32.
				if !(math.Abs(gradNorm/want.GradNorm-1) <= 6e-8) {
					t.Errorf("step %d: norm %v, want %v", want.Step, gradNorm, want.GradNorm)
				}
				coef := min(1, g.Hyper.MaxGradNorm/(gradNorm+1e-6))
				if !(math.Abs(coef/want.ClipCoef-1) <= 6e-8) {
					t.Errorf("step %d: clip coefficient %v, want %v", want.Step, coef, want.ClipCoef)
				}
				s := graph.Update{
					LR: want.LR, Beta1: g.Hyper.Betas[0], Beta2: g.Hyper.Betas[1], Eps: g.Hyper.Eps,
					Step: want.Step, EMADecay: g.Hyper.EMADecay,
				}
				step(s, coef)
				s.EMADecay = want.EMARampDecay
				rampStep(s, coef)
				// The trace rounds every operation to float32, the kernel every
				// line. So the trace's averages drift from the float64 ones by
				// 2.2e-7, several times further than the kernel's.
				checkNear(t, m, slices.Concat(want.M...), 3e-7)
				checkNear(t, v, slices.Concat(want.V...), 3e-7)
				checkNear(t, params, slices.Concat(want.Params...), 2e-7)
				checkNear(t, ema, slices.Concat(want.EMA...), 3e-7)
				checkNear(t, ramp, slices.Concat(want.EMARamp...), 3e-7)
			}
			if !slices.Equal(params, rampParams) {
				t.Error("the parameters depend on the decay of the average")
			}
			checkNear(t, params, slices.Concat(trace.FinalParams...), 1e-7)
			checkNear(t, ema, slices.Concat(trace.FinalEMA...), 1e-7)
			checkNear(t, ramp, slices.Concat(trace.FinalEMARamp...), 1e-7)
		})
	}
}

func TestAdamStepForAnyWorkers(t *testing.T) {
	for _, n := range lengths {
		g := gaussian(n, 1)
		s := graph.Update{LR: 0.01, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Step: 1, EMADecay: 0.9}
		start := gaussian(n, 2)
		params, ema := make([]float64, n), make([]float64, n)
		for i, w := range start {
			// From m = v = 0 the first step is lr g/(|g| + eps).
			c := 0.5 * float64(g[i])
			params[i] = float64(w) - 0.01*c/(math.Abs(c)+1e-8)
			ema[i] = 0.9*float64(w) + 0.1*params[i]
		}
		checkKernel(t, [][]float64{params, ema}, 2e-7, func(e *engine) bound {
			gotParams, gotEMA, m, v := poison(n), poison(n), poison(n), poison(n)
			step := e.adamStep(gotParams, g, m, v, gotEMA)
			return bound{[][]float32{gotParams, gotEMA, m, v}, func() {
				copy(gotParams, start)
				copy(gotEMA, start)
				clear(m)
				clear(v)
				step(s, 0.5)
			}}
		})
	}
}

// More parameters than a cache holds, one worker.
func BenchmarkAdamStep(b *testing.B) {
	const n = 4_000_000
	e := newEngine(1, isa.Detect())
	params, grads, m, v, ema := gaussian(n, 1), gaussian(n, 2), make([]float32, n), make([]float32, n), gaussian(n, 1)
	step, norm := e.adamStep(params, grads, m, v, ema), e.gradNorm(grads)
	s := graph.Update{LR: 1e-4, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, EMADecay: 0.995, Step: 1}
	step(s, 1) // touches all memory
	b.Run("gradNorm", func(b *testing.B) {
		for b.Loop() {
			norm()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/parameter")
	})
	b.Run("adamStep", func(b *testing.B) {
		for b.Loop() {
			s.Step++
			step(s, 1)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/parameter")
	})
}

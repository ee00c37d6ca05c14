package sched

import (
	"math"
	"testing"
)

// mustZero is a schedule with zero terminal SNR.
func mustZero(t testing.TB, schedule string, T int) *Schedule {
	t.Helper()
	cfg := config(schedule, T)
	cfg.Prediction, cfg.ZeroTerminalSNR = "v", true
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestZeroTerminalSNR(t *testing.T) {
	// Algorithm 1 in decimal arithmetic of 60 digits.
	s := mustZero(t, "linear", 1000)
	for step, want := range map[int][2]float64{
		0: {0.0001, 0.9999}, 1: {0.00012068663551061712, 0.99977932543315295}, 499: {0.01027104254954214, 0.076028750547114721},
		998: {0.75226723115046901, 4.213262465088056e-09}, 999: {1, 0},
	} {
		if !within(s.Betas[step], want[0], 1e-12) || !within(s.AlphasCumprod[step], want[1], 1e-11) {
			t.Errorf("t=%d: beta %.17g and alphas_cumprod %.17g, want %.17g and %.17g", step, s.Betas[step], s.AlphasCumprod[step], want[0], want[1])
		}
	}
	for _, name := range Names() {
		for _, T := range []int{2, 3, 50, 1000, 4000} {
			plain, s := mustNew(t, name, T), mustZero(t, name, T)
			last := T - 1
			if s.Betas[0] != plain.Betas[0] || s.AlphasCumprod[last] != 0 || s.SqrtOneMinusAlphasCumprod[last] != 1 {
				t.Fatalf("%s, T=%d: starts with beta %g, want %g, and ends with alphas_cumprod %g, want 0", name, T, s.Betas[0], plain.Betas[0], s.AlphasCumprod[last])
			}
			for step := range T {
				for _, table := range [][]float64{
					s.Betas, s.Alphas, s.AlphasCumprod, s.AlphasCumprodPrev, s.SqrtAlphasCumprod, s.SqrtOneMinusAlphasCumprod,
					s.PosteriorVariance, s.PosteriorLogVarianceClipped, s.FixedLargeLogVariance, s.PosteriorMeanCoef1, s.PosteriorMeanCoef2,
				} {
					if v := table[step]; math.IsNaN(v) || math.IsInf(v, 0) {
						t.Fatalf("%s, T=%d: a table has %g at t=%d", name, T, v, step)
					}
				}
				if step > 0 && !(s.AlphasCumprod[step] < s.AlphasCumprod[step-1]) {
					t.Fatalf("%s, T=%d: alphas_cumprod does not fall at t=%d", name, T, step)
				}
				if finite := step < last; math.IsInf(s.SqrtRecipAlphasCumprod[step], 1) == finite || math.IsInf(s.SqrtRecipm1AlphasCumprod[step], 1) == finite {
					t.Fatalf("%s, T=%d: 1/alphas_cumprod has root %g at t=%d", name, T, s.SqrtRecipAlphasCumprod[step], step)
				}
			}
			if lambda := s.HalfLogSNR(last); !math.IsInf(lambda, -1) || s.Node(float64(last)).Lambda() != lambda {
				t.Errorf("%s, T=%d: half the log SNR is %g at the end, want -Inf", name, T, lambda)
			}
			x0 := []float32{1, -0.3}
			if kl := s.PriorKL(x0); kl != 0 {
				t.Errorf("%s, T=%d: prior KL %g, want 0", name, T, kl)
			}
			// The posterior of the last step: x_t says nothing, so x_{t-1} is drawn from q(x_{t-1} | x_0).
			mean := make([]float32, 2)
			variance, _ := s.QPosterior(x0, []float32{9, 9}, last, mean)
			if aPrev := s.AlphasCumprod[last-1]; !within(variance, 1-aPrev, 1e-15) || !within(float64(mean[1]), -0.3*math.Sqrt(aPrev), 1e-6) {
				t.Errorf("%s, T=%d: posterior at the end %v, variance %g", name, T, mean, variance)
			}
			xt := make([]float32, 2)
			if s.QSample(x0, last, []float32{0.5, -2}, xt); xt[0] != 0.5 || xt[1] != -2 {
				t.Errorf("%s, T=%d: x_t is %v at the end, want the noise", name, T, xt)
			}
			if kl := s.VLBTerm(x0, xt, x0, nil, last, FixedSmall); math.Abs(kl) > 1e-9 {
				t.Errorf("%s, T=%d: KL %g at the end for a perfect prediction", name, T, kl)
			}
			// Whatever subset is seen, it ends without signal.
			for _, subset := range [][]int{{last}, {last, 0}, {last, last / 2}} {
				r, err := s.Respace(subset)
				if err != nil {
					t.Fatal(err)
				}
				if end := len(subset) - 1; r.AlphasCumprod[end] != 0 || r.Betas[end] != 1 {
					t.Errorf("%s, T=%d: seen at %v, alphas_cumprod ends with %g", name, T, subset, r.AlphasCumprod[end])
				}
			}
		}
	}
	cfg := config("linear", 10)
	cfg.ZeroTerminalSNR = true
	wantError(t, cfg.Validate(), "diffusion.zero_terminal_snr true", "diffusion.prediction v or x0")
	cfg.T, cfg.Prediction = 1, "x0"
	wantError(t, cfg.Validate(), "diffusion.zero_terminal_snr true", "diffusion.t 2 or more")
}

// Every sampler starts where there is no signal, with numbers that float32 holds.
func TestSamplersStartWithoutSignal(t *testing.T) {
	for _, schedule := range []string{"linear", "cosine"} {
		for _, T := range []int{2, 50, 1000} {
			s := mustZero(t, schedule, T)
			for _, sampler := range SamplerNames() {
				for _, spacing := range SpacingNames() {
					for _, variance := range VarianceNames() {
						for _, n := range []int{1, 2, 3, 7, T} {
							if n > T || n == T && variance != "learned" {
								continue
							}
							c := SamplerConfig{Sampler: sampler, Steps: n, Spacing: spacing, Eta: 1, Variance: variance}
							nodes, err := c.Nodes(s)
							if err != nil {
								t.Fatal(err)
							}
							steps, err := c.StepList(s, nodes)
							if err != nil {
								t.Fatal(err)
							}
							for k, step := range steps {
								values := []float64{step.T, step.LogVarMin, step.LogVarMax}
								for _, row := range append(step.Kept[:], step.Prev) {
									values = append(append(values, row.OnXt, row.OnX0, row.OnEps, row.OnNoise), row.OnKept[:]...)
								}
								for _, p := range []Parametrization{{Prediction: V}, {Prediction: XStart}, {Prediction: V, Consistency: true, SigmaMin: s.Node(0).Sigma()}} {
									onXt, onOut := p.XStartCoefs(step.Node)
									epsOnXt, epsOnOut := p.EpsCoefs(step.Node)
									values = append(values, onXt, onOut, epsOnXt, epsOnOut)
								}
								for _, v := range values {
									if !(math.Abs(v) < math.MaxFloat32) {
										t.Fatalf("%s, T=%d, %s, %s, %s, %d steps: step %d is %+v", schedule, T, sampler, spacing, variance, n, k, step)
									}
								}
							}
						}
					}
				}
			}
		}
	}
}

package sched

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// config is a valid process of any registered schedule.
func config(schedule string, T int) Config {
	return Config{T: T, Schedule: schedule, BetaStart: 1e-4, BetaEnd: 0.02, Prediction: "eps"}
}

func mustNew(t testing.TB, schedule string, T int) *Schedule {
	t.Helper()
	s, err := New(config(schedule, T))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func within(got, want, tolerance float64) bool {
	return math.Abs(got-want) <= tolerance*math.Abs(want)
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestRegistries(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  []string
	}{
		{Names(), []string{"cosine", "linear", "quadratic", "scaled_linear", "sigmoid", "squaredcos_cap_v2"}},
		{SamplerNames(), []string{"ddim", "ddpm"}},
		{SpacingNames(), []string{"karras", "leading", "linspace", "logsnr", "trailing"}},
		{PredictionNames(), []string{"eps", "v", "x0"}},
		{VarianceNames(), []string{"fixed_large", "fixed_small", "learned"}},
	} {
		for _, name := range c.want {
			if !slices.Contains(c.names, name) {
				t.Errorf("%q is not among %v", name, c.names)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("registering a name twice did not panic")
		}
	}()
	Register("linear", nil)
}

func TestSchedulesAreProcesses(t *testing.T) {
	for _, name := range Names() {
		for _, T := range []int{1, 2, 50, 1000, 4000} {
			s := mustNew(t, name, T)
			if s.T() != T {
				t.Fatalf("%s: T = %d, want %d", name, s.T(), T)
			}
			prev := 1.0
			for i, beta := range s.Betas {
				if !(beta > 0 && beta < 1) {
					t.Fatalf("%s T=%d: beta at t=%d is %g, want it inside (0, 1)", name, T, i, beta)
				}
				if a := s.AlphasCumprod[i]; !(a > 0 && a < prev) || s.AlphasCumprodPrev[i] != prev {
					t.Fatalf("%s T=%d: alphas_cumprod at t=%d is %g after %g (table: %g)", name, T, i, a, prev, s.AlphasCumprodPrev[i])
				}
				prev = s.AlphasCumprod[i]
				for _, v := range []float64{s.PosteriorLogVarianceClipped[i], s.FixedLargeLogVariance[i], s.HalfLogSNR(i)} {
					if math.IsNaN(v) || math.IsInf(v, 0) {
						t.Fatalf("%s T=%d: a logarithm at t=%d is %g", name, T, i, v)
					}
				}
			}
			// The last step of the reverse process ends at the predicted x_0.
			if s.PosteriorVariance[0] != 0 || s.PosteriorMeanCoef2[0] != 0 || !within(s.PosteriorMeanCoef1[0], 1, 1e-11) {
				t.Errorf("%s T=%d: posterior at t=0 is %g x_0 + %g x_t, variance %g", name, T, s.PosteriorMeanCoef1[0], s.PosteriorMeanCoef2[0], s.PosteriorVariance[0])
			}
		}
	}
}

func TestSchedulesMatchGolden(t *testing.T) {
	type table struct {
		At     []float64 `json:"at"`
		SumAll float64   `json:"sum_all"`
	}
	var doc map[string]json.RawMessage
	readJSON(t, "../../testdata/schedules.json", &doc)
	var T int
	var at []int
	for key, into := range map[string]any{"T": &T, "t": &at} {
		if err := json.Unmarshal(doc[key], into); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		schedule  string
		tolerance float64
	}{
		{"linear", 1e-13},
		// A cosine rounded to 1e-16 leaves 1e-16/4e-5 in the smallest betas, in
		// the golden file as here, and everything near t=0 inherits it.
		{"cosine", 2e-11},
	} {
		s := mustNew(t, c.schedule, T)
		var golden struct {
			BetasAll []float64 `json:"betas_all"`
		}
		var tables map[string]json.RawMessage
		for _, into := range []any{&golden, &tables} {
			if err := json.Unmarshal(doc[c.schedule], into); err != nil {
				t.Fatal(err)
			}
		}
		halfLogSNR := make([]float64, T)
		for i := range halfLogSNR {
			halfLogSNR[i] = s.HalfLogSNR(i)
		}
		for _, g := range []struct {
			name string
			got  []float64
		}{
			{"betas", s.Betas},
			{"alphas_cumprod", s.AlphasCumprod},
			{"sqrt_alphas_cumprod", s.SqrtAlphasCumprod},
			{"sqrt_one_minus_alphas_cumprod", s.SqrtOneMinusAlphasCumprod},
			{"sqrt_recip_alphas_cumprod", s.SqrtRecipAlphasCumprod},
			{"sqrt_recipm1_alphas_cumprod", s.SqrtRecipm1AlphasCumprod},
			{"posterior_variance", s.PosteriorVariance},
			{"posterior_log_variance_clipped", s.PosteriorLogVarianceClipped},
			{"fixed_large_log_variance", s.FixedLargeLogVariance},
			{"posterior_mean_coef_x0", s.PosteriorMeanCoef1},
			{"posterior_mean_coef_xt", s.PosteriorMeanCoef2},
			{"log_snr_half", halfLogSNR},
		} {
			var want table
			if err := json.Unmarshal(tables[g.name], &want); err != nil {
				t.Fatalf("%s.%s: %v", c.schedule, g.name, err)
			}
			if len(g.got) != T || len(want.At) != len(at) {
				t.Fatalf("%s.%s: %d values, %d of them golden, want %d and %d", c.schedule, g.name, len(g.got), len(want.At), T, len(at))
			}
			for i, step := range at {
				if !within(g.got[step], want.At[i], c.tolerance) {
					t.Errorf("%s.%s at t=%d: %.17g, want %.17g", c.schedule, g.name, step, g.got[step], want.At[i])
				}
			}
			var sum float64
			for _, v := range g.got {
				sum += v
			}
			if !within(sum, want.SumAll, 1e-12) { // order of a thousand additions
				t.Errorf("sum of %s.%s: %.17g, want %.17g", c.schedule, g.name, sum, want.SumAll)
			}
		}
		if len(golden.BetasAll) != T {
			t.Fatalf("%d golden betas, want %d", len(golden.BetasAll), T)
		}
		for i, want := range golden.BetasAll {
			if !within(s.Betas[i], want, c.tolerance) {
				t.Errorf("%s: beta at t=%d: %.17g, want %.17g", c.schedule, i, s.Betas[i], want)
			}
		}
		// A float32 pipeline loses 1e-7 of each of a thousand factors.
		var single table
		if err := json.Unmarshal(tables["alphas_cumprod_f32"], &single); err != nil {
			t.Fatal(err)
		}
		for i, step := range at {
			if !within(s.AlphasCumprod[step], single.At[i], 3e-4) {
				t.Errorf("%s.alphas_cumprod at t=%d: %g, in float32 %g", c.schedule, step, s.AlphasCumprod[step], single.At[i])
			}
		}
	}
}

// The values are from the definitions in decimal arithmetic of 60 digits.
func TestOtherSchedules(t *testing.T) {
	for _, c := range []struct {
		schedule string
		T        int
		want     map[int]float64 // betas
	}{
		{"quadratic", 1000, map[int]float64{
			0: 0.0001, 1: 0.00010264836435083402, 499: 0.0057221511477685639, 998: 0.019962808524510996, 999: 0.02,
		}},
		{"quadratic", 1, map[int]float64{0: 0.0001}},
		{"quadratic", 2, map[int]float64{0: 0.0001, 1: 0.02}},
		{"sigmoid", 1000, map[int]float64{
			0: 0.00014920520081703202, 1: 0.00014979833041933022, 499: 0.010020120209938985, 998: 0.019950201669580669, 999: 0.019950794799182967,
		}},
		{"sigmoid", 1, map[int]float64{0: 0.00014920520081703202}},
		{"sigmoid", 2, map[int]float64{0: 0.00014920520081703202, 1: 0.019950794799182967}},
	} {
		s := mustNew(t, c.schedule, c.T)
		for step, want := range c.want {
			if !within(s.Betas[step], want, 1e-13) {
				t.Errorf("%s, T=%d: beta at t=%d: %.17g, want %.17g", c.schedule, c.T, step, s.Betas[step], want)
			}
		}
	}
	for name, of := range map[string]string{"scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine"} {
		if !slices.Equal(mustNew(t, name, 300).Betas, mustNew(t, of, 300).Betas) {
			t.Errorf("%s differs from %s", name, of)
		}
	}
	for name, want := range map[string]float64{"quadratic": 0.00073341245958081494, "sigmoid": 3.9681819905332079e-05} {
		if got := mustNew(t, name, 1000).AlphasCumprod[999]; !within(got, want, 1e-12) {
			t.Errorf("%s: the last alphas_cumprod is %.17g, want %.17g", name, got, want)
		}
	}
}

func TestFromBetasKeepsItsOwnCopy(t *testing.T) {
	betas := []float64{0.1, 0.2}
	s, err := FromBetas(betas)
	if err != nil {
		t.Fatal(err)
	}
	betas[0] = 5
	if s.Betas[0] != 0.1 {
		t.Errorf("Betas[0] became %g with the caller's slice", s.Betas[0])
	}
	if got, want := s.AlphasCumprod[1], 0.9*0.8; !within(got, want, 1e-15) {
		t.Errorf("alphas_cumprod at t=1: %g, want %g", got, want)
	}
	// Eq. 7 by hand: 0.2 * 0.1 / 0.28.
	if got, want := s.PosteriorVariance[1], 0.2*0.1/0.28; !within(got, want, 1e-14) {
		t.Errorf("posterior_variance at t=1: %g, want %g", got, want)
	}
	if s.PosteriorLogVarianceClipped[0] != s.PosteriorLogVarianceClipped[1] || s.FixedLargeLogVariance[0] != s.PosteriorLogVarianceClipped[1] {
		t.Errorf("log variances at t=0 are %g and %g, want that of t=1: %g", s.PosteriorLogVarianceClipped[0], s.FixedLargeLogVariance[0], s.PosteriorLogVarianceClipped[1])
	}
}

func TestBadSchedules(t *testing.T) {
	many := make([]float64, 2000)
	for i := range many {
		many[i] = 0.5
	}
	for _, c := range []struct {
		betas []float64
		words []string
	}{
		{nil, []string{"empty"}},
		{[]float64{0.1, 0}, []string{"t=1", "is 0"}},
		{[]float64{1, 0.1}, []string{"t=0", "is 1"}},
		{[]float64{0.1, 1.5}, []string{"t=1", "is 1.5"}},
		{[]float64{-0.1}, []string{"-0.1"}},
		{[]float64{1e-17}, []string{"1e-17"}},
		{[]float64{math.NaN()}, []string{"NaN"}},
		{[]float64{math.Inf(1)}, []string{"+Inf"}},
		{many, []string{"alphas_cumprod", "float32"}},
	} {
		_, err := FromBetas(c.betas)
		wantError(t, err, c.words...)
	}
	for _, c := range []struct {
		change func(*Config)
		words  []string
	}{
		{func(c *Config) { c.T = 0 }, []string{"diffusion.t 0", "1 to"}},
		{func(c *Config) { c.T = -5 }, []string{"diffusion.t -5"}},
		{func(c *Config) { c.T = maxT + 1 }, []string{"diffusion.t"}},
		{func(c *Config) { c.Schedule = "cosin" }, []string{`diffusion.schedule "cosin"`, "cosine, linear, quadratic"}},
		{func(c *Config) { c.BetaStart = 0 }, []string{"diffusion.beta_start 0"}},
		{func(c *Config) { c.BetaStart = 0.03 }, []string{"diffusion.beta_start 0.03", "diffusion.beta_end (0.02)"}},
		{func(c *Config) { c.BetaStart = math.NaN() }, []string{"diffusion.beta_start NaN"}},
		{func(c *Config) { c.BetaEnd = 1 }, []string{"diffusion.beta_end 1"}},
		{func(c *Config) { c.T, c.BetaEnd = 100_000, 0.9 }, []string{"diffusion.schedule", "diffusion.t 100000", "lower"}},
		{func(c *Config) { c.Prediction = "noise" }, []string{`diffusion.prediction "noise"`, "eps, v, x0"}},
	} {
		cfg := config("linear", 1000)
		c.change(&cfg)
		wantError(t, cfg.Validate(), c.words...)
	}
	for _, name := range []string{"linear", "quadratic", "scaled_linear", "sigmoid"} {
		cfg := config(name, 1000)
		cfg.BetaStart = 0.5
		wantError(t, cfg.Validate(), "diffusion.beta_start 0.5")
	}
	for _, name := range Names() {
		if err := config(name, 1000).Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	cosine := Config{T: 10, Schedule: "cosine", Prediction: "v"}
	if err := cosine.Validate(); err != nil {
		t.Errorf("betas of the linear schedule were asked of the cosine: %v", err)
	}
}

func TestRespace(t *testing.T) {
	for _, name := range Names() {
		s := mustNew(t, name, 1000)
		all := trailing(1000, 1000)
		same, err := s.Respace(all)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(same.Betas, s.Betas) {
			t.Errorf("%s: respacing to every timestep changed the betas", name)
		}
		subset := []int{999, 640, 500, 499, 17, 3}
		r, err := s.Respace(subset)
		if err != nil {
			t.Fatal(err)
		}
		for i := range subset {
			step := subset[len(subset)-1-i]
			// Where beta is nearly 1, 1 - beta keeps 1e-16 of the 2e-9 it is.
			if !within(r.AlphasCumprod[i], s.AlphasCumprod[step], 1e-7) {
				t.Errorf("%s: alphas_cumprod at t=%d: %g after respacing, want %g", name, step, r.AlphasCumprod[i], s.AlphasCumprod[step])
			}
		}
		if !within(r.Betas[3], s.Betas[500], 1e-15) {
			// 500 follows 499, so that step is a step of the full process.
			t.Errorf("%s: beta of the single step to t=500: %g, want %g", name, r.Betas[3], s.Betas[500])
		}
	}
}

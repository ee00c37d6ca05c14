package sched

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/safetensors"
)

// network is the raw output of a model on a flat batch x at one t.
type network func(x []float32, t int, out []float32)

// denoiser reads a network's output as x_0 and eps.
type denoiser struct {
	schedule   *Schedule
	prediction Prediction
	network    network
}

// callbacks watch a sampling run and give it its noise.
type callbacks struct {
	noise  func(step int, dst []float32)
	onStep func(step, t int, x0 []float32)
}

// execute runs a sampler in float32, in the order in which graph.PSample does.
func execute(t testing.TB, sample Sampler, d *denoiser, x []float32, opt Options, c callbacks) {
	t.Helper()
	steps, err := sample(d.schedule, opt)
	if err != nil {
		t.Fatal(err)
	}
	out, x0, eps, z := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))
	for k, step := range steps {
		d.network(x, step.T, out)
		onXt, onOut := d.prediction.XStartCoefs(d.schedule, step.T)
		combine(x0, onXt, x, onOut, out)
		onXt, onOut = d.prediction.EpsCoefs(d.schedule, step.T)
		combine(eps, onXt, x, onOut, out)
		if opt.Clip {
			for i, v := range x0 {
				x0[i] = min(max(v, -1), 1)
			}
		}
		if c.onStep != nil {
			c.onStep(k, step.T, x0)
		}
		if step.OnNoise != 0 {
			c.noise(k, z)
		}
		for i := range x {
			x[i] = float32(step.OnXt)*x[i] + float32(step.OnX0)*x0[i] + float32(step.OnEps)*eps[i] + float32(step.OnNoise)*z[i]
		}
	}
}

// gaussian is the perfect network for data N(mean, v): eps =
// sqrt(1-a) / (a v + 1 - a) (x_t - sqrt(a) mean), turned into what p predicts.
func gaussian(s *Schedule, p Prediction, mean []float64, v float64) *denoiser {
	return &denoiser{s, p, func(x []float32, t int, out []float32) {
		a := s.AlphasCumprod[t]
		onEps := float32(math.Sqrt(1-a) / (a*v + 1 - a))
		for i := range x {
			out[i] = onEps * (x[i] - float32(math.Sqrt(a)*mean[i]))
		}
		if p != Eps {
			x0 := make([]float32, len(x))
			s.PredictXStart(x, t, out, x0)
			onX0, onEps := p.Target(s, t)
			combine(out, onX0, x0, onEps, out)
		}
	}}
}

func mustTimesteps(t testing.TB, spacing string, s *Schedule, n int) []int {
	t.Helper()
	ts, err := Timesteps(spacing, s, n)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func TestSamplersMatchGolden(t *testing.T) {
	const dims = 24
	file, err := safetensors.Open("../../testdata/samplers.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	float32s := func(name string) []float32 {
		values, err := file.ReadFloat32(name)
		if err != nil {
			t.Fatal(err)
		}
		return values
	}
	var info struct {
		Results map[string]json.RawMessage
	}
	readJSON(t, "../../testdata/samplers.json", &info)

	s := mustNew(t, "linear", 1000)
	xT, noise := float32s("x_T"), float32s("noise")
	mean := make([]float64, dims)
	for i := range mean {
		mean[i] = 0.5 * math.Sin(float64(i)) // `mu` before it was rounded
	}
	models := map[string]*denoiser{
		"standard": gaussian(s, Eps, make([]float64, dims), 1),
		"shifted":  gaussian(s, Eps, mean, 0.3*0.3),
	}
	tested := 0
	for key, text := range info.Results {
		model, run, ofModel := strings.Cut(key, ".")
		if !ofModel {
			continue // a statistic of the reference
		}
		var result struct {
			Floor float64 `json:"f32_vs_f64_final"`
		}
		if err := json.Unmarshal(text, &result); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		opt := Options{}
		given := callbacks{noise: func(step int, dst []float32) { copy(dst, noise[step*dims:]) }}
		var sample Sampler
		var got []float32
		// after decides which states x the golden array holds, by the t just done.
		var after func(t int) bool
		switch {
		case strings.HasPrefix(run, "ddpm_"):
			sample, opt.Timesteps = DDPM, mustTimesteps(t, "leading", s, 1000)
			if strings.Contains(run, "large") {
				opt.Variance = FixedLarge
			}
			opt.Clip = strings.HasSuffix(run, "_clip")
			after = func(t int) bool { return t%100 == 0 }
		case strings.HasPrefix(run, "ddim50_"):
			spacing, eta, _ := strings.Cut(strings.TrimPrefix(run, "ddim50_"), "_eta")
			sample, opt.Timesteps = DDIM, mustTimesteps(t, spacing, s, 50)
			got = append(got, xT...)
			if eta == "1" {
				opt.Eta = 1
			}
			after = func(int) bool { return true }
		default:
			continue // a sampler tested elsewhere
		}
		t.Run(key, func(t *testing.T) {
			tested++
			want := float32s(key)
			final, err := file.ReadFloat64(key + ".final_f64")
			if err != nil {
				t.Fatal(err)
			}
			x := slices.Clone(xT)
			// x at a network call is the state after the step before.
			spy := *models[model]
			k := 0
			spy.network = func(x []float32, step int, out []float32) {
				if k > 0 && after(opt.Timesteps[k-1]) {
					got = append(got, x...)
				}
				k++
				models[model].network(x, step, out)
			}
			execute(t, sample, &spy, x, opt, given)
			got = append(got, x...)

			if len(got) != len(want) {
				t.Fatalf("%d states of x, want %d", len(got)/dims, len(want)/dims)
			}
			// The floor is the reference's own float32 error at the end; another
			// order of the same float32 operations may cost as much again, twice.
			tolerance := 3 * result.Floor
			for row := 0; row < len(got); row += dims {
				var largest float64
				for _, v := range want[row : row+dims] {
					largest = max(largest, math.Abs(float64(v)))
				}
				if d := largestDifference(got[row:row+dims], want[row:row+dims]); d > tolerance*largest {
					t.Fatalf("row %d is off by %g of %g, want at most %g", row/dims, d, largest, tolerance*largest)
				}
			}
			var off, largest float64
			for i, v := range final {
				off, largest = max(off, math.Abs(float64(x[i])-v)), max(largest, math.Abs(v))
			}
			if off > tolerance*largest {
				t.Errorf("x_0 is off the float64 result by %g of %g, want at most %g", off, largest, tolerance*largest)
			}
		})
	}
	if tested != 20 {
		t.Errorf("%d trajectories were compared, want 20", tested)
	}
}

// outputVariance is exact: with Gaussian data and no clipping a sampler
// is linear in x_T and in each step's noise, so the output's variance is the sum
// of its squared responses to a unit of each. Element 0 of the batch starts at
// x_T = 1, and element 1+k gets noise 1 at step k only.
func outputVariance(t *testing.T, sample Sampler, s *Schedule, p Prediction, v float64, opt Options) float64 {
	t.Helper()
	x := make([]float32, 1+len(opt.Timesteps))
	x[0] = 1
	unit := func(step int, dst []float32) {
		clear(dst)
		dst[1+step] = 1
	}
	execute(t, sample, gaussian(s, p, make([]float64, len(x)), v), x, opt, callbacks{noise: unit})
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

func TestSamplersReproduceGaussianData(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for _, name := range SamplerNames() {
		sample, err := SamplerByName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range PredictionNames() {
			p, _ := ParsePrediction(kind)
			for _, v := range []float64{0.25, 1, 2} {
				for _, c := range []struct {
					steps     int
					tolerance float64
				}{
					{1000, 0.02},
					{250, 0.06}, // four times the step, and first order in it
				} {
					got := outputVariance(t, sample, s, p, v, Options{Timesteps: mustTimesteps(t, "leading", s, c.steps)})
					if !within(got, v, c.tolerance) {
						t.Errorf("%s, %s prediction, %d steps: variance %.4f of data with %g, want it within %g%%", name, p, c.steps, got, v, 100*c.tolerance)
					}
				}
			}
		}
	}
}

// The other settings of the two samplers, where the generic test does not go.
func TestSamplerSettingsReproduceGaussianData(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for _, c := range []struct {
		name      string
		sample    Sampler
		spacing   string
		steps     int
		opt       Options
		tolerance float64
	}{
		{"ddpm, fixed_large", DDPM, "leading", 1000, Options{Variance: FixedLarge}, 0.02},
		{"ddim, 250 even steps", DDIM, "leading", 250, Options{}, 0.03},
		{"ddim, 250 linspace steps", DDIM, "linspace", 250, Options{}, 0.03},
		{"ddim, 250 trailing steps", DDIM, "trailing", 250, Options{}, 0.03},
		{"ddim, eta 0.5", DDIM, "trailing", 1000, Options{Eta: 0.5}, 0.02},
		{"ddim, eta 1", DDIM, "trailing", 1000, Options{Eta: 1}, 0.02},
	} {
		for _, v := range []float64{0.25, 1, 2} {
			c.opt.Timesteps = mustTimesteps(t, c.spacing, s, c.steps)
			if got := outputVariance(t, c.sample, s, V, v, c.opt); !within(got, v, c.tolerance) {
				t.Errorf("%s: variance %.4f of data with %g, want it within %g%%", c.name, got, v, 100*c.tolerance)
			}
		}
	}
}

// For data N(0, 1) FixedLarge is the exact reverse process in steps of any
// size, once it starts from the right variance (Ho et al. 2020, section 3.2).
func TestFixedLargeIsExactForNormalData(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	// The last step decodes to the mean: it takes the data's 1 to
	// AlphasCumprod of its timestep.
	timesteps := []int{999, 500, 499, 50, 4}
	got := outputVariance(t, DDPM, s, Eps, 1, Options{Timesteps: timesteps, Variance: FixedLarge})
	if want := s.AlphasCumprod[4]; !within(got, want, 1e-5) {
		t.Errorf("variance %.7f, want %.7f", got, want)
	}
}

// DDIM with eta = 1 is ancestral sampling (Song et al. 2021, section 4.1).
func TestDDIMWithEtaOneIsDDPM(t *testing.T) {
	for _, schedule := range Names() {
		s := mustNew(t, schedule, 1000)
		d := gaussian(s, V, []float64{0.1, -0.2, 0.3, 0.4}, 0.3)
		opt := Options{Timesteps: []int{999, 801, 800, 400, 123, 7}, Eta: 1}
		c := callbacks{noise: func(step int, dst []float32) { copy(dst, normals(len(dst), uint32(step))) }}
		a, b := normals(4, 77), normals(4, 77)
		execute(t, DDPM, d, a, opt, c)
		execute(t, DDIM, d, b, opt, c)
		if diff := largestDifference(a, b); diff > 1e-5 {
			t.Errorf("%s: ddpm %v and ddim %v differ by %g", schedule, a, b, diff)
		}
	}
}

// The noise that a step adds.
func TestDDPMVariances(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	timesteps := []int{999, 600, 200}
	for _, variance := range []Variance{FixedSmall, FixedLarge} {
		for k := range 2 {
			a, aPrev := s.AlphasCumprod[timesteps[k]], s.AlphasCumprod[timesteps[k+1]]
			want := 1 - a/aPrev // beta of the long step
			if variance == FixedSmall {
				want *= (1 - aPrev) / (1 - a)
			}
			steps, err := DDPM(s, Options{Timesteps: timesteps, Variance: variance})
			if err != nil {
				t.Fatal(err)
			}
			added := steps[k].OnNoise
			if !within(added*added, want, 1e-6) {
				t.Errorf("%s, step %d: variance %g, want %g", variance, k, added*added, want)
			}
		}
	}
}

// What every sampler promises its caller.
func TestSamplersKeepTheContract(t *testing.T) {
	s := mustNew(t, "cosine", 100)
	for _, name := range SamplerNames() {
		sample, err := SamplerByName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, timesteps := range [][]int{{99, 70, 69, 20, 3}, {99, 0}, {50}, {0}} {
			t.Run(fmt.Sprint(name, timesteps), func(t *testing.T) {
				d := gaussian(s, Eps, make([]float64, 6), 1e8) // so wide that every x_0 wants clipping
				var calls, seen, noisy []int
				perfect := d.network
				d.network = func(x []float32, step int, out []float32) {
					calls = append(calls, step)
					perfect(x, step, out)
				}
				start := []float32{3, -3, 0.5, 0, -0.5, 1}
				draw := func(clip bool) []float32 {
					calls, seen, noisy = nil, nil, nil
					x := slices.Clone(start)
					execute(t, sample, d, x, Options{Timesteps: timesteps, Eta: 0.7, Clip: clip}, callbacks{
						noise: func(step int, dst []float32) {
							noisy = append(noisy, step)
							copy(dst, normals(len(dst), uint32(step)))
						},
						onStep: func(step, at int, x0 []float32) {
							if timesteps[step] != at {
								t.Errorf("step %d is at t=%d, want %d", step, at, timesteps[step])
							}
							seen = append(seen, at)
						}})
					return x
				}
				free, clipped, again := draw(false), draw(true), draw(true)
				if slices.Equal(free, clipped) {
					t.Error("Clip changed nothing")
				}
				if slices.Max(clipped) > 1 || slices.Min(clipped) < -1 {
					// The last step has aPrev = 1, so it returns the clipped x_0.
					t.Errorf("clipped samples leave [-1, 1]: %v", clipped)
				}
				if !slices.Equal(clipped, again) {
					t.Errorf("two equal runs gave %v and %v", clipped, again)
				}
				if !slices.Equal(seen, calls) {
					t.Errorf("network called at %v, steps at %v", calls, seen)
				}
				if !slices.Equal(slices.Compact(calls), timesteps) {
					t.Errorf("network called at %v, want %v", calls, timesteps)
				}
				for i, step := range noisy {
					if step >= len(timesteps)-1 || i > 0 && step <= noisy[i-1] {
						t.Errorf("noise was drawn at steps %v of %d: want each at most once, in order, and not the last", noisy, len(timesteps))
					}
				}
			})
		}
	}
}

func TestSamplersReportFailures(t *testing.T) {
	s := mustNew(t, "linear", 100)
	for _, name := range SamplerNames() {
		sample, err := SamplerByName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			timesteps []int
			words     string
		}{
			{nil, "timesteps is empty"}, {[]int{40, 80}, "80 follows 40"}, {[]int{100}, "timestep 100"},
		} {
			_, err := sample(s, Options{Timesteps: c.timesteps})
			wantError(t, err, name, c.words)
		}
	}
	for _, eta := range []float64{-0.1, 1.1, math.NaN()} {
		_, err := DDIM(s, Options{Timesteps: []int{80}, Eta: eta})
		wantError(t, err, "ddim", "eta")
	}
}

func TestSamplerConfig(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	good := SamplerConfig{Sampler: "ddpm", Steps: 250, Spacing: "trailing", Eta: 0.5, Variance: "fixed_large", Clip: true}
	opt, err := good.Options(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(opt.Timesteps) != 250 || opt.Timesteps[0] != 999 || opt.Eta != 0.5 || opt.Variance != FixedLarge || !opt.Clip {
		t.Errorf("options %+v of config %+v", opt, good)
	}
	for _, name := range SamplerNames() {
		c := good
		c.Sampler = name
		if err := c.Validate(1000); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct {
		change func(*SamplerConfig)
		words  []string
	}{
		{func(c *SamplerConfig) { c.Sampler = "dpm" }, []string{`sample.sampler "dpm"`, "ddim, ddpm"}},
		{func(c *SamplerConfig) { c.Steps = 0 }, []string{"sample.steps 0", "1 to 1000"}},
		{func(c *SamplerConfig) { c.Steps = 1001 }, []string{"sample.steps 1001", "only 1000 diffusion steps"}},
		{func(c *SamplerConfig) { c.Spacing = "" }, []string{`sample.spacing ""`, "leading, linspace, trailing"}},
		{func(c *SamplerConfig) { c.Eta = 1.5 }, []string{"sample.eta 1.5", "0", "1"}},
		{func(c *SamplerConfig) { c.Eta = math.NaN() }, []string{"sample.eta NaN"}},
		{func(c *SamplerConfig) { c.Variance = "learned" }, []string{`sample.variance "learned"`, "fixed_small, fixed_large"}},
	} {
		bad := good
		c.change(&bad)
		wantError(t, bad.Validate(1000), c.words...)
		_, err := bad.Options(s)
		wantError(t, err, c.words...)
	}
}

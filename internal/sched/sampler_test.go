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

// number is what a sampler is executed in: float32 as on a device, float64 where a test
// looks at the method and not at rounding.
type number interface{ float32 | float64 }

// denoiser is a model: the raw output of its network on a flat batch x at a node, and
// how it is read as x_0 and eps. A learned variance is in a second half of out.
type denoiser[F number] struct {
	parametrization Parametrization
	network         func(x []F, n Node, out []F)
	clip, learned   bool
}

// callbacks watch a sampling run and give it its noise.
type callbacks[F number] struct {
	noise  func(step int, dst []F)
	onStep func(step int, n Node, x0 []F)
}

// execute runs steps on x, in the order in which graph.PSample does.
func execute[F number](steps []Step, d denoiser[F], x []F, c callbacks[F]) {
	size := len(x)
	var kept, next [MaxKept][]F
	for i := range kept {
		kept[i], next[i] = make([]F, size), make([]F, size)
	}
	out, x0, eps, z, prev := make([]F, 2*size), make([]F, size), make([]F, size), make([]F, size), make([]F, size)
	if !d.learned {
		out = out[:size]
	}
	for k, step := range steps {
		d.network(x, step.Node, out)
		onXt, onOut := d.parametrization.XStartCoefs(step.Node)
		mix(x0, onXt, x, onOut, out)
		onXt, onOut = d.parametrization.EpsCoefs(step.Node)
		mix(eps, onXt, x, onOut, out)
		if d.clip {
			for i, v := range x0 {
				x0[i] = min(max(v, -1), 1)
			}
		}
		if c.onStep != nil {
			c.onStep(k, step.Node, x0)
		}
		if step.Prev.OnNoise != 0 {
			c.noise(k, z)
			if d.learned {
				for i, v := range out[size:] {
					z[i] *= F(math.Exp(0.5 * (float64(1+v)/2*step.LogVarMax + float64(1-v)/2*step.LogVarMin)))
				}
			}
		}
		sum := func(dst []F, r Row) {
			clear(dst)
			for _, term := range []struct {
				on     float64
				values []F
			}{
				{r.OnXt, x}, {r.OnX0, x0}, {r.OnEps, eps}, {r.OnNoise, z},
				{r.OnKept[0], kept[0]}, {r.OnKept[1], kept[1]}, {r.OnKept[2], kept[2]},
			} {
				if term.on != 0 {
					mix(dst, 1, dst, term.on, term.values)
				}
			}
		}
		for j, row := range step.Kept {
			sum(next[j], row)
		}
		sum(prev, step.Prev)
		copy(x, prev)
		kept, next = next, kept
	}
}

// mix sets dst to a x + b y.
func mix[F number](dst []F, a float64, x []F, b float64, y []F) {
	for i := range dst {
		dst[i] = F(a)*x[i] + F(b)*y[i]
	}
}

// steps lists the steps of a sampler with its settings.
func steps(t testing.TB, name string, s *Schedule, nodes []Node, opt Options) []Step {
	t.Helper()
	sampler, err := SamplerByName(name)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := sampler.Steps(s, nodes, opt)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// nodesAt are the places of timesteps, then the end.
func nodesAt(s *Schedule, timesteps ...int) []Node {
	var nodes []Node
	for _, t := range timesteps {
		nodes = append(nodes, s.Node(float64(t)))
	}
	return append(nodes, Clean)
}

// spaced are the places that a sampler visits in so many calls, then the end.
func spaced(t testing.TB, sampler, spacing string, s *Schedule, calls int) []Node {
	t.Helper()
	nodes, err := SamplerConfig{Sampler: sampler, Steps: calls, Spacing: spacing, Variance: "fixed_small"}.Nodes(s)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

// gaussian is the perfect network for data N(mean, v): of r = (x_t - signal mean) / (signal^2 v + noise^2),
// eps = noise r and x_0 = mean + signal v r.
func gaussian[F number](p Prediction, mean []float64, v float64) denoiser[F] {
	return denoiser[F]{parametrization: Parametrization{Prediction: p}, network: func(x []F, n Node, out []F) {
		spread := n.Signal*n.Signal*v + n.Noise*n.Noise
		for i := range x {
			d := x[i] - F(n.Signal*mean[i])
			eps, x0 := F(n.Noise/spread)*d, F(mean[i])+F(n.Signal*v/spread)*d
			out[i] = predicted(p, n, x0, eps)
		}
	}}
}

// predicted is what a network that predicts p outputs.
func predicted[F number](p Prediction, n Node, x0, eps F) F {
	switch p {
	case V:
		return F(n.Signal)*eps - F(n.Noise)*x0
	case XStart:
		return x0
	}
	return eps
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
		Timesteps map[string][]int `json:"dpmpp2m_timesteps"`
		Results   map[string]json.RawMessage
	}
	readJSON(t, "../../testdata/samplers.json", &info)

	s := mustNew(t, "linear", 1000)
	xT, noise := float32s("x_T"), float32s("noise")
	mean := make([]float64, dims)
	for i := range mean {
		mean[i] = 0.5 * math.Sin(float64(i)) // `mu` before it was rounded
	}
	models := map[string]denoiser[float32]{
		"standard": gaussian[float32](Eps, make([]float64, dims), 1),
		"shifted":  gaussian[float32](Eps, mean, 0.3*0.3),
	}
	tested := 0
	for key, text := range info.Results {
		toy, run, ofModel := strings.Cut(key, ".")
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
		model := models[toy]
		given := callbacks[float32]{noise: func(step int, dst []float32) { copy(dst, noise[step*dims:]) }}
		var sampler string
		var nodes []Node
		var got []float32
		// after decides which states x the golden array holds, by the t just done.
		after := func(float64) bool { return true }
		switch {
		case strings.HasPrefix(run, "ddpm_"):
			sampler, nodes = "ddpm", spaced(t, "ddpm", "leading", s, 1000)
			if strings.Contains(run, "large") {
				opt.Variance = FixedLarge
			}
			model.clip = strings.HasSuffix(run, "_clip")
			after = func(t float64) bool { return math.Mod(t, 100) == 0 }
		case strings.HasPrefix(run, "ddim50_"):
			spacing, eta, _ := strings.Cut(strings.TrimPrefix(run, "ddim50_"), "_eta")
			sampler, nodes = "ddim", spaced(t, "ddim", spacing, s, 50)
			got = append(got, xT...)
			if eta == "1" {
				opt.Eta = 1
			}
		case strings.HasPrefix(run, "dpmpp2m20_"):
			choice := strings.TrimPrefix(run, "dpmpp2m20_")
			sampler, nodes = "dpmpp_2m", nodesAt(s, info.Timesteps[choice]...)
			if choice != "linspace_zero" {
				nodes[len(nodes)-1] = s.Node(0)
			}
			got = append(got, xT...)
		default:
			t.Fatalf("%s: no sampler for it", key)
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
			spy := model
			k := 0
			spy.network = func(x []float32, n Node, out []float32) {
				if k > 0 && after(nodes[k-1].T) {
					got = append(got, x...)
				}
				k++
				model.network(x, n, out)
			}
			execute(steps(t, sampler, s, nodes, opt), spy, x, given)
			got = append(got, x...)

			if len(got) != len(want) {
				t.Fatalf("%d states of x, want %d", len(got)/dims, len(want)/dims)
			}
			// The floor is the reference's own float32 error at the end; another
			// order of the same float32 operations may cost as much again, twice. The
			// luckiest of the references end within two roundings.
			tolerance := 3 * max(result.Floor, 0x1p-22)
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
	if tested != 26 {
		t.Errorf("%d trajectories were compared, want 26", tested)
	}
}

// outputVariance is exact: with Gaussian data and no clipping a sampler
// is linear in x_T and in each step's noise, so the output's variance is the sum
// of its squared responses to a unit of each. Element 0 of the batch starts at
// x_T = 1, and element 1+k gets noise 1 at step k only.
func outputVariance(steps []Step, p Prediction, v float64) float64 {
	x := make([]float32, 1)
	if slices.ContainsFunc(steps, func(s Step) bool { return s.Prev.OnNoise != 0 }) {
		x = make([]float32, 1+len(steps))
	}
	x[0] = 1
	unit := func(step int, dst []float32) {
		clear(dst)
		dst[1+step] = 1
	}
	execute(steps, gaussian[float32](p, make([]float64, len(x)), v), x, callbacks[float32]{noise: unit})
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

// solvers are the samplers that follow the process to data of any distribution.
func solvers(t testing.TB) []string {
	var names []string
	for _, name := range SamplerNames() {
		sampler, err := SamplerByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if sampler.Order > 0 {
			names = append(names, name)
		}
	}
	return names
}

func TestSamplersReproduceGaussianData(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for _, name := range solvers(t) {
		for _, kind := range PredictionNames() {
			p, _ := ParsePrediction(kind)
			for _, v := range []float64{0.25, 1, 2} {
				for _, c := range []struct {
					calls     int
					tolerance float64
				}{
					{1000, 0.02},
					{250, 0.06}, // four times the step, and first order in it
				} {
					got := outputVariance(steps(t, name, s, spaced(t, name, "trailing", s, c.calls), Options{}), p, v)
					if !within(got, v, c.tolerance) {
						t.Errorf("%s, %s prediction, %d calls: variance %.4f of data with %g, want it within %g%%",
							name, p, c.calls, got, v, 100*c.tolerance)
					}
				}
			}
		}
	}
}

// The other settings of the samplers, where the generic test does not go.
func TestSamplerSettingsReproduceGaussianData(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for _, c := range []struct {
		name      string
		sampler   string
		spacing   string
		steps     int
		opt       Options
		tolerance float64
	}{
		{"ddpm, fixed_large", "ddpm", "leading", 1000, Options{Variance: FixedLarge}, 0.02},
		{"ddim, 250 even steps", "ddim", "leading", 250, Options{}, 0.03},
		{"ddim, 250 linspace steps", "ddim", "linspace", 250, Options{}, 0.03},
		{"ddim, 250 trailing steps", "ddim", "trailing", 250, Options{}, 0.03},
		{"ddim, eta 0.5", "ddim", "trailing", 1000, Options{Eta: 0.5}, 0.02},
		{"ddim, eta 1", "ddim", "trailing", 1000, Options{Eta: 1}, 0.02},
	} {
		for _, v := range []float64{0.25, 1, 2} {
			nodes := spaced(t, c.sampler, c.spacing, s, c.steps)
			if got := outputVariance(steps(t, c.sampler, s, nodes, c.opt), V, v); !within(got, v, c.tolerance) {
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
	nodes := nodesAt(s, 999, 500, 499, 50, 4)
	got := outputVariance(steps(t, "ddpm", s, nodes, Options{Variance: FixedLarge}), Eps, 1)
	if want := s.AlphasCumprod[4]; !within(got, want, 1e-5) {
		t.Errorf("variance %.7f, want %.7f", got, want)
	}
}

// DDIM with eta = 1 is ancestral sampling (Song et al. 2021, section 4.1).
func TestDDIMWithEtaOneIsDDPM(t *testing.T) {
	for _, schedule := range Names() {
		s := mustNew(t, schedule, 1000)
		d := gaussian[float32](V, []float64{0.1, -0.2, 0.3, 0.4}, 0.3)
		nodes := nodesAt(s, 999, 801, 800, 400, 123, 7)
		c := callbacks[float32]{noise: func(step int, dst []float32) { copy(dst, normals(len(dst), uint32(step))) }}
		a, b := normals(4, 77), normals(4, 77)
		execute(steps(t, "ddpm", s, nodes, Options{}), d, a, c)
		execute(steps(t, "ddim", s, nodes, Options{Eta: 1}), d, b, c)
		if diff := largestDifference(a, b); diff > 1e-5 {
			t.Errorf("%s: ddpm %v and ddim %v differ by %g", schedule, a, b, diff)
		}
	}
}

// The noise that a step adds.
func TestDDPMVariances(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	nodes := nodesAt(s, 999, 600, 200)
	for _, variance := range []Variance{FixedSmall, FixedLarge} {
		steps := steps(t, "ddpm", s, nodes, Options{Variance: variance})
		for k := range 2 {
			a, aPrev := s.AlphasCumprod[int(nodes[k].T)], s.AlphasCumprod[int(nodes[k+1].T)]
			want := 1 - a/aPrev // beta of the long step
			if variance == FixedSmall {
				want *= (1 - aPrev) / (1 - a)
			}
			added := steps[k].Prev.OnNoise
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
		for _, timesteps := range [][]int{{99, 70, 69, 20, 3}, {99, 0}, {50}, {0}} {
			t.Run(fmt.Sprint(name, timesteps), func(t *testing.T) {
				d := gaussian[float32](Eps, make([]float64, 6), 1e8) // so wide that every x_0 wants clipping
				var calls, seen []float64
				var noisy []int
				perfect := d.network
				d.network = func(x []float32, n Node, out []float32) {
					calls = append(calls, n.T)
					perfect(x, n, out)
				}
				steps := steps(t, name, s, nodesAt(s, timesteps...), Options{Eta: 0.7})
				start := []float32{3, -3, 0.5, 0, -0.5, 1}
				draw := func(clip bool) []float32 {
					calls, seen, noisy = nil, nil, nil
					x := slices.Clone(start)
					d.clip = clip
					execute(steps, d, x, callbacks[float32]{
						noise: func(step int, dst []float32) {
							noisy = append(noisy, step)
							copy(dst, normals(len(dst), uint32(step)))
						},
						onStep: func(_ int, n Node, _ []float32) { seen = append(seen, n.T) },
					})
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
				at := 0 // in timesteps: a solver may look between them too
				for i, c := range calls {
					if i > 0 && c > calls[i-1] {
						t.Errorf("network called at t = %v, want them falling", calls)
					}
					if at < len(timesteps) && c == float64(timesteps[at]) {
						at++
					}
				}
				if at < len(timesteps) {
					t.Errorf("network called at t = %v, want %v among them", calls, timesteps)
				}
				for i, step := range noisy {
					if step >= len(steps)-1 || i > 0 && step <= noisy[i-1] {
						t.Errorf("noise was drawn at steps %v of %d: want each at most once, in order, and not the last", noisy, len(steps))
					}
				}
			})
		}
	}
}

func TestSamplersReportFailures(t *testing.T) {
	s := mustNew(t, "linear", 100)
	for _, name := range SamplerNames() {
		c := SamplerConfig{Sampler: name, Steps: 2, Spacing: "leading", Variance: "fixed_small"}
		for _, bad := range []struct {
			nodes []Node
			words string
		}{
			{nil, "0 nodes"}, {[]Node{Clean}, "1 nodes"},
			{nodesAt(s, 40, 80), "t = 80 follows t = 40"}, {nodesAt(s, 40, 40), "t = 40 follows"},
		} {
			_, err := c.StepList(s, bad.nodes)
			wantError(t, err, name, bad.words)
		}
	}
	for _, eta := range []float64{-0.1, 1.1, math.NaN()} {
		c := SamplerConfig{Sampler: "ddim", Steps: 2, Spacing: "leading", Variance: "fixed_small", Eta: eta}
		_, err := c.StepList(s, nodesAt(s, 80))
		wantError(t, err, "ddim", "eta")
	}
}

func TestSamplerConfig(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	good := SamplerConfig{Sampler: "ddpm", Steps: 250, Spacing: "trailing", Eta: 0.5, Variance: "fixed_large", Clip: true}
	nodes, err := good.Nodes(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 251 || nodes[0] != s.Node(999) || nodes[250] != Clean {
		t.Errorf("nodes %v of config %+v", nodes, good)
	}
	steps, err := good.StepList(s, nodes)
	if err != nil {
		t.Fatal(err)
	}
	large := math.Sqrt(1 - s.AlphasCumprod[999]/s.AlphasCumprod[995])
	if len(steps) != 250 || !within(steps[0].Prev.OnNoise, large, 1e-9) {
		t.Errorf("%d steps, first %+v, of config %+v", len(steps), steps[0], good)
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
		{func(c *SamplerConfig) { c.Spacing = "" }, []string{`sample.spacing ""`, "leading, ", "linspace, ", "trailing"}},
		{func(c *SamplerConfig) { c.Eta = 1.5 }, []string{"sample.eta 1.5", "0", "1"}},
		{func(c *SamplerConfig) { c.Eta = math.NaN() }, []string{"sample.eta NaN"}},
		{func(c *SamplerConfig) { c.Variance = "large" }, []string{`sample.variance "large"`, "fixed_small, fixed_large, learned"}},
	} {
		bad := good
		c.change(&bad)
		wantError(t, bad.Validate(1000), c.words...)
		_, err := bad.Nodes(s)
		wantError(t, err, c.words...)
	}
}

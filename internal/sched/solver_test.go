package sched

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
)

// ways are processes to sample from, one of them without signal at its start.
func ways(t *testing.T) map[string]*Schedule {
	zero := config("linear", 1000)
	zero.ZeroTerminalSNR, zero.Prediction = true, "v"
	noSignal, err := New(zero)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*Schedule{
		"linear": mustNew(t, "linear", 1000), "cosine": mustNew(t, "cosine", 1000), "zero terminal SNR": noSignal,
	}
}

// What every list of steps promises: see Sampler and Step.
func TestStepsKeepTheirPromises(t *testing.T) {
	for way, s := range ways(t) {
		for _, name := range SamplerNames() {
			sampler, _ := SamplerByName(name)
			if sampler.Kept > MaxKept || sampler.Calls < 1 || sampler.About == "" {
				t.Errorf("%s: %+v", name, sampler)
			}
			for _, spacing := range SpacingNames() {
				for calls := 1; calls <= 50; calls++ {
					c := SamplerConfig{Sampler: name, Steps: calls, Spacing: spacing, Variance: "fixed_small"}
					nodes, err := c.Nodes(s)
					if err != nil {
						t.Fatal(err)
					}
					steps, err := c.StepList(s, nodes)
					if err != nil {
						t.Fatal(err)
					}
					if problem := badSteps(sampler, steps, calls); problem != "" {
						t.Errorf("%s, %s, %s, %d calls: %s", name, way, spacing, calls, problem)
					}
				}
			}
		}
	}
}

func badSteps(sampler Sampler, steps []Step, calls int) string {
	if len(steps) > calls || len(steps) == 0 {
		return "another number of calls"
	}
	for k, step := range steps {
		for i, row := range append([]Row{step.Prev}, step.Kept[:]...) {
			values := append([]float64{row.OnXt, row.OnX0, row.OnEps, row.OnNoise}, row.OnKept[:]...)
			for _, v := range values {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					return "a coefficient that is not finite"
				}
			}
			for j, on := range row.OnKept {
				if on != 0 && (j >= sampler.Kept || k == 0) {
					return "a kept value is used that there is not"
				}
			}
			switch {
			case i > 0 && row.OnNoise != 0:
				return "noise in a kept value"
			case i > sampler.Kept && row != Row{}:
				return "a kept value too many"
			case i == 0 && !sampler.Stochastic && row.OnNoise != 0:
				return "noise"
			case i == 0 && sampler.Stochastic && k < len(steps)-1 && row.OnNoise == 0:
				return "no noise"
			}
		}
	}
	last := steps[len(steps)-1].Prev
	if rest := last; !within(last.OnX0, 1, 1e-9) {
		return "the image is not x_0"
	} else if rest.OnX0 = 0; rest != (Row{}) {
		return "the image is more than x_0"
	}
	return ""
}

// All calls are used where no step is too long for heun.
func TestStepsSpendAllCalls(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for _, name := range SamplerNames() {
		for calls := 16; calls <= 60; calls++ {
			nodes := spaced(t, name, "logsnr", s, calls)
			steps := steps(t, name, s, nodes, Options{Calls: calls})
			if len(steps) != calls {
				t.Errorf("%s: %d calls of %d", name, len(steps), calls)
			}
		}
	}
}

// A later part of the nodes has the later part of the steps, but for the history of multistep solvers.
func TestLaterNodesHaveTheLaterSteps(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for _, name := range SamplerNames() {
		sampler, _ := SamplerByName(name)
		if sampler.Kept > 0 && sampler.Calls == 1 {
			continue
		}
		for _, calls := range []int{20, 21, 22} {
			opt := Options{Calls: calls}
			nodes := spaced(t, name, "trailing", s, calls)
			all := steps(t, name, s, nodes, opt)
			for first := range nodes[1:] {
				later := steps(t, name, s, nodes[first:], opt)
				if want := all[len(all)-len(later):]; !slices.Equal(later, want) {
					t.Errorf("%s, %d calls: steps from node %d are\n%v, want\n%v", name, calls, first, later, want)
				}
			}
		}
	}
}

// Data of a single point has constant x_0 and eps on each way, with which every solver is exact in
// steps of any size: each x it gives to the network is Signal x_0 + Noise eps. Methods on eps
// multiply rounding by exp(h), up to 10^7 in the few steps of the cosine schedule.
func TestPointDataIsSolvedExactly(t *testing.T) {
	const point, eps, tolerance = 0.7, -1.3, 1e-7
	for way, s := range ways(t) {
		for _, name := range solvers(t) {
			sampler, _ := SamplerByName(name)
			if sampler.Stochastic {
				continue
			}
			for _, spacing := range []string{"trailing", "leading", "logsnr"} {
				for calls := 1; calls <= 24; calls++ {
					x := []float64{0}
					d := mixture{[]float64{point}, []float64{1}, 0}.denoiser(V)
					perfect := d.network
					d.network = func(x []float64, n Node, out []float64) {
						perfect(x, n, out)
						if want := n.Signal*point + n.Noise*eps; math.Abs(x[0]-want) > tolerance {
							t.Errorf("%s, %s, %s, %d calls: x = %.12f at t = %g, want %.12f",
								name, way, spacing, calls, x[0], n.T, want)
						}
					}
					nodes := spaced(t, name, spacing, s, calls)
					x[0] = nodes[0].Signal*point + nodes[0].Noise*eps
					execute(steps(t, name, s, nodes, Options{Calls: calls}), d, x, callbacks[float64]{})
					if math.Abs(x[0]-point) > tolerance {
						t.Errorf("%s, %s, %s, %d calls: x_0 = %.12f, want %g", name, way, spacing, calls, x[0], point)
					}
				}
			}
		}
	}
}

// Samplers that are one and the same in different words.
func TestIdentities(t *testing.T) {
	for way, s := range ways(t) {
		first := 1000.0
		if way == "zero terminal SNR" {
			first = 999
		}
		single := []Node{s.Node(620), s.Node(310)}
		some := nodesAt(s, 999, 801, 800, 400, 123, 7)
		between := []Node{s.Node(first - 1), s.Node(700.3), s.Node(420.7), s.Node(33.2), s.Node(5)}
		for _, c := range []struct {
			name, a, b string
			optA, optB Options
			nodes      []Node
		}{
			{name: "euler is ddim", a: "euler", b: "ddim", nodes: some},
			{name: "euler is ddim between timesteps", a: "euler", b: "ddim", nodes: between},
			{name: "euler_ancestral is ddim with eta 1", a: "euler_ancestral", b: "ddim", optB: Options{Eta: 1}, nodes: between},
			{name: "euler_ancestral is ddpm", a: "euler_ancestral", b: "ddpm", nodes: some},
			{name: "ddim with eta 1 is ddpm", a: "ddim", b: "ddpm", optA: Options{Eta: 1}, nodes: some},
			{name: "ddim is ddpm between timesteps", a: "ddim", b: "ddpm", optA: Options{Eta: 1}, nodes: between},
			{name: "the first step of dpmpp_2m is ddim", a: "dpmpp_2m", b: "ddim", nodes: single},
			{name: "unipc without a history is ddim", a: "unipc", b: "ddim", nodes: single},
			{name: "unipc_3 without a history is ddim", a: "unipc_3", b: "ddim", nodes: single},
			{name: "the first step of dpmpp_sde_2m is ddpm", a: "dpmpp_sde_2m", b: "ddpm", nodes: single},
			{name: "unipc_3 begins as unipc", a: "unipc", b: "unipc_3", nodes: nodesAt(s, 620, 310)},
		} {
			d := mixture{[]float64{-0.8, 1}, []float64{0.4, 0.6}, 0.16}.denoiser(V)
			noise := callbacks[float64]{noise: func(step int, dst []float64) {
				for i, z := range normals(len(dst), uint32(step)) {
					dst[i] = float64(z)
				}
			}}
			a, b := []float64{-1.5, -0.3, 0.2, 1.1}, []float64{-1.5, -0.3, 0.2, 1.1}
			execute(steps(t, c.a, s, c.nodes, c.optA), d, a, noise)
			execute(steps(t, c.b, s, c.nodes, c.optB), d, b, noise)
			for i := range a {
				if !(math.Abs(a[i]-b[i]) <= 1e-9) {
					t.Errorf("%s, %s: %v and %v", way, c.name, a, b)
					break
				}
			}
		}
	}
}

// The closed form of the posterior between any two nodes is that of the tables.
func TestPosteriorBetweenNodes(t *testing.T) {
	for way, s := range ways(t) {
		for _, k := range []int{1, 2, 50, 500, 998} {
			mean, small, large := ancestral(s.Node(float64(k)), s.Node(float64(k-1)))
			for _, c := range []struct {
				name      string
				got, want float64
			}{
				{"x_0", mean.OnX0, s.PosteriorMeanCoef1[k]}, {"x_t", mean.OnXt, s.PosteriorMeanCoef2[k]},
				{"variance", math.Exp(small), s.PosteriorVariance[k]}, {"beta", math.Exp(large), s.Betas[k]},
			} {
				if !within(c.got, c.want, 1e-9) {
					t.Errorf("%s, t = %d, %s: %.12g, want %.12g", way, k, c.name, c.got, c.want)
				}
			}
		}
	}
}

// The bounds of the learned variance are those of the process seen at the chosen timesteps.
func TestLearnedVarianceBounds(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for name, nodes := range map[string][]Node{
		"whole": nodesAt(s, 999, 600, 200), "between": {s.Node(999), s.Node(600.5), s.Node(200)},
	} {
		small := steps(t, "ddpm", s, nodes, Options{Variance: FixedSmall})
		large := steps(t, "ddpm", s, nodes, Options{Variance: FixedLarge})
		for k, step := range steps(t, "ddpm", s, nodes, Options{Variance: Learned}) {
			low, high := 2*math.Log(small[k].Prev.OnNoise), 2*math.Log(large[k].Prev.OnNoise)
			if nodes[k+1] == Clean {
				if step.Prev.OnNoise != 0 {
					t.Errorf("%s: noise %g in the last step", name, step.Prev.OnNoise)
				}
				continue
			}
			if step.Prev.OnNoise != 1 || !within(step.LogVarMin, low, 1e-12) || !within(step.LogVarMax, high, 1e-12) {
				t.Errorf("%s, step %d: %g times the root of a variance between exp(%g) and exp(%g), want 1, %g and %g",
					name, k, step.Prev.OnNoise, step.LogVarMin, step.LogVarMax, low, high)
			}
		}
	}
}

func TestNodeAtTheEnds(t *testing.T) {
	for way, s := range ways(t) {
		for _, at := range []float64{0, 0.4, 3, 997.5, 998, 998.25, 998.9} {
			if back := s.NodeAt(s.Node(at).Lambda()); math.Abs(back.T-at) > 1e-9 {
				t.Errorf("%s: t = %g became %g", way, at, back.T)
			}
		}
	}
	s := mustNew(t, "linear", 1000)
	for _, c := range []struct{ lambda, t float64 }{{-7, 999}, {7, 0}} {
		n := s.NodeAt(c.lambda)
		if n.T != c.t || !within(n.Lambda(), c.lambda, 1e-9) || !within(n.Signal*n.Signal+n.Noise*n.Noise, 1, 1e-12) {
			t.Errorf("node %+v of lambda %g, want t = %g", n, c.lambda, c.t)
		}
	}
}

// Near the start Noise rounds to 1, near the end Signal does.
func TestNodesNearTheEndsAreInOrder(t *testing.T) {
	for _, c := range []struct {
		nodes []Node
		words string
	}{
		{[]Node{{T: 99, Noise: 1}, nodeOf(98.5, -20), nodeOf(50, 0), nodeOf(0.5, 20), nodeOf(0, 21), Clean}, ""},
		{[]Node{nodeOf(98, -20), nodeOf(99, -21)}, "t = 99 follows t = 98 at step 1"},
		{[]Node{nodeOf(0, 21), nodeOf(1, 20)}, "t = 1 follows t = 0 at step 1"},
		{[]Node{nodeOf(5, 1), nodeOf(5, 1)}, "t = 5 follows t = 5 at step 1"},
	} {
		err := checkNodes(c.nodes)
		if c.words != "" {
			wantError(t, err, c.words)
		} else if err != nil {
			t.Error(err)
		}
	}
}

// The second-order slope of heun would be multiplied by half of sigma's ratio.
func TestLongStepsAreOfFirstOrder(t *testing.T) {
	s := mustNew(t, "cosine", 1000)
	nodes := []Node{s.NodeAt(-7), s.NodeAt(-4.4), s.NodeAt(-2)}
	euler := steps(t, "euler", s, nodes, Options{})
	for _, name := range []string{"heun", "dpm_solver_2", "dpm_solver_3"} {
		sampler, _ := SamplerByName(name)
		got := steps(t, name, s, nodes, Options{})
		if len(got) != 1+sampler.Calls || !nearRow(got[0].Prev, euler[0].Prev) {
			t.Errorf("%s: steps %+v: want one call for the step that is longer than 2.5 in lambda, all for the other", name, got)
		}
	}
}

// What a network gets wrong about x_0 is not multiplied out of measure, whatever the schedule, the
// spacing and the number of calls.
func TestErrorsOfTheNetworkStaySmall(t *testing.T) {
	for way, s := range ways(t) {
		for _, name := range SamplerNames() {
			for _, calls := range []int{5, 10, 20, 50} {
				for _, spacing := range SpacingNames() {
					nodes := spaced(t, name, spacing, s, calls)
					for k, step := range steps(t, name, s, nodes, Options{Calls: calls}) {
						if on := math.Abs(step.Prev.OnX0); on > 6 {
							t.Errorf("%s, %s, %s, %d calls: step %d takes x_0 %g times", way, name, spacing, calls, k, on)
						}
					}
				}
			}
		}
	}
}

// nearRow compares the coefficients of x_t and x_0.
func nearRow(a, b Row) bool {
	return math.Abs(a.OnXt-b.OnXt) < 1e-12 && math.Abs(a.OnX0-b.OnX0) < 1e-12
}

func TestAuto(t *testing.T) {
	s := mustNew(t, "cosine", 1000)
	auto := SamplerConfig{Sampler: Auto, Spacing: "leading", Variance: "fixed_large", Clip: true}
	chosen := map[string]bool{}
	for auto.Steps = 1; auto.Steps <= 1000; auto.Steps++ {
		if err := auto.Validate(1000); err != nil {
			t.Fatal(err)
		}
		c := auto.Resolve(Traits{})
		chosen[c.Sampler] = true
		nodes, err := c.Nodes(s)
		if err != nil {
			t.Fatal(err)
		}
		if steps, err := c.StepList(s, nodes); err != nil || len(steps) > c.Steps {
			t.Errorf("%d steps of %d, %v", len(steps), c.Steps, err)
		}
		if c.Steps != auto.Steps || c.Variance != "fixed_large" || !c.Clip {
			t.Errorf("auto became %+v", c)
		}
	}
	if len(chosen) < 2 || !chosen["ddpm"] {
		t.Errorf("auto chose %v", chosen)
	}
	auto.Steps = 4
	if c := auto.Resolve(Traits{Consistency: true}); c.Sampler != "consistency" || c.Spacing != "trailing" {
		t.Errorf("auto for a consistency model is %+v", c)
	}
	if c := auto.Resolve(Traits{Learned: true}); c.Variance != "fixed_large" {
		t.Errorf("auto in few steps changes the variance that its sampler does not use: %+v", c)
	}
	auto.Steps = 1000
	if c := auto.Resolve(Traits{Learned: true}); c.Sampler != "ddpm" || c.Variance != "learned" {
		t.Errorf("auto for a model with learned variance is %+v", c)
	}
	given := SamplerConfig{Sampler: "ddim", Steps: 1000, Spacing: "leading", Variance: "fixed_small"}
	if c := given.Resolve(Traits{Consistency: true, Learned: true}); c != given {
		t.Errorf("a chosen sampler became %+v", c)
	}
	_, err := auto.Nodes(s)
	wantError(t, err, "sample.sampler auto", "not resolved")
	_, err = auto.StepList(s, nodesAt(s, 10))
	wantError(t, err, "sample.sampler auto", "not resolved")
	if choices := SamplerChoices(); choices[0] != Auto || !slices.Equal(choices[1:], SamplerNames()) {
		t.Errorf("choices %v", choices)
	}
	auto.Sampler = "automatic"
	wantError(t, auto.Validate(1000), `sample.sampler "automatic"`, "auto, ", "unipc")
}

func TestWriteSamplers(t *testing.T) {
	var table bytes.Buffer
	if err := WriteSamplers(&table); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(table.String()), "\n")
	method := strings.Index(lines[0], "method")
	var names []string
	for _, line := range lines[1:] {
		names = append(names, strings.Fields(line)[0])
		if len(line) <= method || line[method-1] != ' ' || line[method] == ' ' {
			t.Errorf("column of %q not at %d", line, method)
		}
	}
	if want := append(SamplerNames(), Auto); !slices.Equal(names, want) {
		t.Errorf("table of %v, want %v", names, want)
	}
	for _, want := range []string{
		"ddim 1 1 eta > 0 eta", "ddpm 1 1 always variance", "dpm_solver_3 3 3 none -", "consistency - 1 always -",
	} {
		if !slices.ContainsFunc(lines, func(line string) bool {
			return strings.HasPrefix(strings.Join(strings.Fields(line), " "), want+" ")
		}) {
			t.Errorf("no line %q in\n%s", want, &table)
		}
	}
}

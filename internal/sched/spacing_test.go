package sched

import (
	"math"
	"slices"
	"testing"
)

// times are the t of nodes.
func times(t *testing.T, spacing string, s *Schedule, n int) []float64 {
	t.Helper()
	nodes, err := Nodes(spacing, s, n)
	if err != nil {
		t.Fatal(err)
	}
	ts := make([]float64, len(nodes))
	for i, node := range nodes {
		ts[i] = node.T
	}
	return ts
}

func TestSpacingsMatchGolden(t *testing.T) {
	var golden struct {
		Timesteps map[string][]float64 `json:"ddim_timesteps"`
	}
	readJSON(t, "../../testdata/samplers.json", &golden)
	s := mustNew(t, "linear", 1000)
	for _, name := range []string{"leading", "linspace", "trailing"} {
		if got, want := times(t, name, s, 50), golden.Timesteps[name]; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestSpacingsFallStrictlyForEveryN(t *testing.T) {
	schedules := map[string]func(testing.TB, string, int) *Schedule{"linear": mustNew, "cosine": mustNew, "scaled_linear": mustZero}
	for _, name := range SpacingNames() {
		for schedule, build := range schedules {
			for _, T := range []int{1, 2, 3, 10, 137, 1000} {
				if T == 1 && schedule == "scaled_linear" {
					continue // no zero terminal SNR
				}
				s := build(t, schedule, T)
				for n := 1; n <= T; n++ {
					nodes, err := Nodes(name, s, n)
					if err != nil {
						t.Fatalf("%s, T=%d: %v", schedule, T, err)
					}
					if len(nodes) != n {
						t.Fatalf("%s, T=%d: %d nodes, want %d", name, T, len(nodes), n)
					}
					for i, node := range append(nodes, Clean) {
						if i > 0 && !(node.Noise < nodes[i-1].Noise && node.Signal > nodes[i-1].Signal && node.T < nodes[i-1].T) {
							t.Fatalf("%s, %s, T=%d, n=%d: %+v follows %+v", name, schedule, T, n, node, nodes[i-1])
						}
						if off := node.Signal*node.Signal + node.Noise*node.Noise - 1; math.Abs(off) > 1e-12 {
							t.Fatalf("%s, %s, T=%d, n=%d: %+v is off the circle by %g", name, schedule, T, n, node, off)
						}
					}
					starts := name != "leading" || n == T
					if starts && nodes[0] != s.Node(float64(T-1)) {
						t.Fatalf("%s, %s, T=%d, n=%d: starts at %+v", name, schedule, T, n, nodes[0])
					}
					if ends := name != "trailing" && n > 1 || n == T; ends && nodes[n-1] != s.Node(0) {
						t.Fatalf("%s, %s, T=%d, n=%d: ends at %+v", name, schedule, T, n, nodes[n-1])
					}
				}
			}
		}
	}
}

func TestSpacingsOfFewSteps(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for _, c := range []struct {
		name string
		n    int
		want []float64
	}{
		{"leading", 1, []float64{0}},
		{"trailing", 1, []float64{999}},
		{"linspace", 1, []float64{999}},
		{"karras", 1, []float64{999}},
		{"logsnr", 1, []float64{999}},
		{"leading", 3, []float64{666, 333, 0}},
		{"trailing", 3, []float64{999, 666, 332}},
		{"linspace", 3, []float64{999, 500, 0}}, // 499.5 rounds to even
		{"trailing", 16, []float64{999, 937, 874, 811, 749, 687, 624, 561, 499, 437, 374, 311, 249, 187, 124, 61}},
	} {
		if got := times(t, c.name, s, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%s, %d steps: %v, want %v", c.name, c.n, got, c.want)
		}
	}
}

// The values are from the definitions in decimal arithmetic of 60 digits. T-1 has a Sigma of 157, and so
// stands where 80 would.
func TestSpacingsBetweenTimesteps(t *testing.T) {
	s := mustNew(t, "linear", 1000)
	for _, c := range []struct {
		name string
		of   func(Node) float64
		want []float64
		ts   []float64
	}{
		{"karras", Node.Sigma,
			[]float64{157.40728081040743, 19.813859322647932, 3.460379700251248, 0.336740093287163, 0.010000500037503125},
			[]float64{999, 767.0519797812062, 500.9188036237726, 98.39168951490392, 0}},
		{"logsnr", Node.Lambda,
			[]float64{-5.0588365916505165, -2.13523993013343, 0.11154677440702154, 2.3583334789474732, 4.6051201834879247},
			[]float64{999, 648.9301323702683, 237.26059788771275, 24.72152876988067, 0}},
	} {
		nodes, err := Nodes(c.name, s, len(c.want))
		if err != nil {
			t.Fatal(err)
		}
		for i, node := range nodes {
			if got := c.of(node); !within(got, c.want[i], 1e-11) || math.Abs(node.T-c.ts[i]) > 1e-8 {
				t.Errorf("%s: node %d is %.17g at t = %.17g, want %.17g at %.17g", c.name, i, got, node.T, c.want[i], c.ts[i])
			}
		}
	}
}

// Where T-1 has no signal it stands where a Sigma of 80 would.
func TestSpacingsFromZeroTerminalSNR(t *testing.T) {
	s := mustZero(t, "cosine", 100)
	for _, name := range []string{"karras", "logsnr"} {
		nodes, err := Nodes(name, s, 9)
		if err != nil {
			t.Fatal(err)
		}
		steps := func(of func(Node) float64) (first, second float64) {
			return of(nodes[1]) - of(s.NodeAt(-math.Log(80))), of(nodes[2]) - of(nodes[1])
		}
		of := Node.Lambda
		if name == "karras" {
			of = func(n Node) float64 { return math.Pow(n.Sigma(), 1.0/7) }
		}
		if first, second := steps(of); nodes[0] != s.Node(99) || !within(first, second, 1e-9) {
			t.Errorf("%s: starts at %+v, then steps of %g and %g from a Sigma of 80", name, nodes[0], first, second)
		}
	}
}

func TestNodes(t *testing.T) {
	for _, s := range []*Schedule{mustNew(t, "linear", 100), mustZero(t, "linear", 100)} {
		for _, at := range []float64{0, 0.25, 1, 30, 30.5, 97.9, 98, 98.5, 99} {
			n := s.Node(at)
			if back := s.NodeAt(n.Lambda()); math.Abs(back.T-at) > 1e-9 || !within(back.Signal, n.Signal, 1e-12) || !within(back.Noise, n.Noise, 1e-12) {
				t.Errorf("t = %g: %+v is found again at %+v", at, n, back)
			}
			if n.T != at || math.Abs(n.Signal*n.Signal+n.Noise*n.Noise-1) > 1e-12 {
				t.Errorf("t = %g: %+v", at, n)
			}
			if whole := int(at); float64(whole) == at && n.Signal != s.SqrtAlphasCumprod[whole] {
				t.Errorf("t = %g: signal %g, want that of the table", at, n.Signal)
			}
		}
		// Between timesteps.
		low, high := s.Node(30), s.Node(31)
		if mid := s.Node(30.25); !within(mid.Lambda(), 0.75*low.Lambda()+0.25*high.Lambda(), 1e-12) {
			t.Errorf("lambda of t = 30.25 is %g, between %g and %g", mid.Lambda(), low.Lambda(), high.Lambda())
		}
	}
	s := mustZero(t, "linear", 100)
	if n := s.Node(98.5); !within(1/n.Sigma(), 0.5/s.Node(98).Sigma(), 1e-12) {
		t.Errorf("signal is %g times the noise of t = 98.5, want half of what it is at 98, %g", 1/n.Sigma(), 1/s.Node(98).Sigma())
	}
}

func TestBadSpacings(t *testing.T) {
	s := mustNew(t, "linear", 100)
	for _, c := range []struct {
		spacing string
		n       int
		words   []string
	}{
		{"even", 10, []string{`sample.spacing "even"`, "karras, leading, linspace, logsnr, trailing"}},
		{"leading", 0, []string{"sample.steps 0", "1 to 100"}},
		{"leading", -1, []string{"sample.steps -1"}},
		{"leading", 101, []string{"sample.steps 101", "only 100 diffusion steps", "diffusion.t"}},
	} {
		_, err := Nodes(c.spacing, s, c.n)
		wantError(t, err, c.words...)
	}
	for _, c := range []struct {
		timesteps []int
		words     []string
	}{
		{nil, []string{"empty"}},
		{[]int{100}, []string{"timestep 100", "0 to 99"}},
		{[]int{3, -1}, []string{"timestep -1", "step 1"}},
		{[]int{3, 3}, []string{"3 follows 3"}},
		{[]int{3, 4}, []string{"4 follows 3"}},
	} {
		_, err := s.Respace(c.timesteps)
		wantError(t, err, c.words...)
	}
	// A rule that breaks its word is caught, whatever its file.
	spacings.entries["stuck"] = whole(func(T, n int) []int { return []int{5, 5} })
	defer delete(spacings.entries, "stuck")
	_, err := Nodes("stuck", s, 2)
	wantError(t, err, `sample.spacing "stuck"`, "sample.steps 2", "t = 5 at step 1")
}

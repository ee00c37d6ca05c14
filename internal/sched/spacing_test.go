package sched

import (
	"fmt"
	"slices"
	"testing"
)

func TestSpacingsMatchGolden(t *testing.T) {
	var golden struct {
		Timesteps map[string][]int `json:"ddim_timesteps"`
	}
	readJSON(t, "../../testdata/samplers.json", &golden)
	s := mustNew(t, "linear", 1000)
	for _, name := range []string{"leading", "linspace", "trailing"} {
		got, err := Timesteps(name, s, 50)
		if err != nil {
			t.Fatal(err)
		}
		if want := golden.Timesteps[name]; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestSpacingsFallStrictlyForEveryN(t *testing.T) {
	for _, name := range SpacingNames() {
		for _, T := range []int{1, 2, 10, 137, 1000} {
			s := mustNew(t, "linear", T)
			for n := 1; n <= T; n++ {
				ts, err := Timesteps(name, s, n)
				if err != nil {
					t.Fatalf("T=%d: %v", T, err)
				}
				if len(ts) != n {
					t.Fatalf("%s, T=%d: %d timesteps, want %d", name, T, len(ts), n)
				}
				if n == T && (ts[0] != T-1 || ts[T-1] != 0) {
					t.Fatalf("%s: all %d timesteps run from %d to %d", name, T, ts[0], ts[T-1])
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
		want []int
	}{
		{"leading", 1, []int{0}},
		{"trailing", 1, []int{999}},
		{"linspace", 1, []int{999}},
		{"leading", 3, []int{666, 333, 0}},
		{"trailing", 3, []int{999, 666, 332}},
		{"linspace", 3, []int{999, 500, 0}}, // 499.5 rounds to even
		{"trailing", 16, []int{999, 937, 874, 811, 749, 687, 624, 561, 499, 437, 374, 311, 249, 187, 124, 61}},
	} {
		got, err := Timesteps(c.name, s, c.n)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s, %d steps: %v, want %v", c.name, c.n, got, c.want)
		}
	}
}

func TestBadTimesteps(t *testing.T) {
	s := mustNew(t, "linear", 100)
	for _, c := range []struct {
		spacing string
		n       int
		words   []string
	}{
		{"even", 10, []string{`sample.spacing "even"`, "leading, linspace, trailing"}},
		{"leading", 0, []string{"sample.steps 0", "1 to 100"}},
		{"leading", -1, []string{"sample.steps -1"}},
		{"leading", 101, []string{"sample.steps 101", "only 100 diffusion steps", "diffusion.t"}},
	} {
		_, err := Timesteps(c.spacing, s, c.n)
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
	spacings.entries["stuck"] = func(*Schedule, int) []int { return []int{5, 5} }
	defer delete(spacings.entries, "stuck")
	_, err := Timesteps("stuck", s, 2)
	wantError(t, err, `sample.spacing "stuck"`, "sample.steps 2", fmt.Sprint(5))
}

package sched

import (
	"fmt"
	"math"
)

// Spacing picks n of the T timesteps, 1 <= n <= T, strictly falling.
type Spacing func(s *Schedule, n int) []int

var spacings = newRegistry[Spacing]("sample.spacing")

// RegisterSpacing adds a rule for picking timesteps.
func RegisterSpacing(name string, spacing Spacing) { spacings.register(name, spacing) }

// SpacingNames lists the spacings, sorted.
func SpacingNames() []string { return spacings.names() }

// The three rules are those of diffusers, whose names they carry. All of them
// give T-1, ..., 0 for n = T.
func init() {
	RegisterSpacing("leading", leading)
	RegisterSpacing("trailing", trailing)
	RegisterSpacing("linspace", linspace)
}

// leading counts up from 0 in whole steps of T/n, rounded down. It never starts
// at T-1 unless n = T, and well below it where n does not divide T.
func leading(s *Schedule, n int) []int {
	ts := make([]int, n)
	for i := range ts {
		ts[n-1-i] = s.T() / n * i
	}
	return ts
}

// trailing counts down from T-1 in even steps of T/n: each step removes the
// noise of as many timesteps, the last one included.
func trailing(s *Schedule, n int) []int {
	ts := make([]int, n)
	for i := range ts {
		ts[i] = int(math.RoundToEven(float64(s.T())-float64(i*s.T())/float64(n))) - 1
	}
	return ts
}

// linspace divides 0..T-1 evenly, both ends included; a single step is at T-1,
// where sampling starts.
func linspace(s *Schedule, n int) []int {
	if n == 1 {
		return []int{s.T() - 1}
	}
	ts := make([]int, n)
	for i := range ts {
		ts[n-1-i] = int(math.RoundToEven(float64(i*(s.T()-1)) / float64(n-1)))
	}
	return ts
}

// Timesteps lists the n timesteps that a sampler visits, from the noisiest down.
func Timesteps(spacing string, s *Schedule, n int) ([]int, error) {
	pick, err := spacings.find(spacing)
	if err != nil {
		return nil, err
	}
	if err := checkSteps(n, s.T()); err != nil {
		return nil, err
	}
	ts := pick(s, n)
	if err := checkTimesteps(ts, s.T()); err != nil {
		return nil, fmt.Errorf("sample.spacing %q with sample.steps %d: %w", spacing, n, err)
	}
	return ts, nil
}

func checkSteps(n, T int) error {
	switch {
	case n < 1:
		return fmt.Errorf("sample.steps %d: want 1 to %d (diffusion.t)", n, T)
	case n > T:
		return fmt.Errorf("sample.steps %d: the model has only %d diffusion steps (diffusion.t): want 1 to %d", n, T, T)
	}
	return nil
}

// checkTimesteps accepts any non-empty list in 0..T-1 that falls strictly.
func checkTimesteps(timesteps []int, T int) error {
	if len(timesteps) == 0 {
		return fmt.Errorf("the list of timesteps is empty: want at least one")
	}
	for k, t := range timesteps {
		if t < 0 || t >= T {
			return fmt.Errorf("timestep %d at step %d: want 0 to %d", t, k, T-1)
		}
		if k > 0 && t >= timesteps[k-1] {
			return fmt.Errorf("timestep %d follows %d at step %d: want each below the one before", t, timesteps[k-1], k)
		}
	}
	return nil
}

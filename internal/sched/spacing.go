package sched

import (
	"fmt"
	"math"
)

// Spacing places n nodes, 1 <= n <= T, on the way of a schedule: from the noisiest down,
// the end not included.
type Spacing func(s *Schedule, n int) []Node

var spacings = newRegistry[Spacing]("sample.spacing")

// RegisterSpacing adds a rule for placing nodes.
func RegisterSpacing(name string, spacing Spacing) { spacings.register(name, spacing) }

// SpacingNames lists the spacings, sorted.
func SpacingNames() []string { return spacings.names() }

// These three place nodes at whole timesteps. They are those of diffusers, whose names
// they carry. All of them give T-1, ..., 0 for n = T.
func init() {
	RegisterSpacing("leading", whole(leading))
	RegisterSpacing("trailing", whole(trailing))
	RegisterSpacing("linspace", whole(linspace))
}

// whole makes a Spacing of a rule that picks n of T timesteps.
func whole(pick func(T, n int) []int) Spacing {
	return func(s *Schedule, n int) []Node {
		nodes := make([]Node, n)
		for i, t := range pick(s.T(), n) {
			nodes[i] = s.Node(float64(t))
		}
		return nodes
	}
}

// leading counts up from 0 in whole steps of T/n, rounded down. It never starts
// at T-1 unless n = T, and well below it where n does not divide T.
func leading(T, n int) []int {
	ts := make([]int, n)
	for i := range ts {
		ts[n-1-i] = T / n * i
	}
	return ts
}

// trailing counts down from T-1 in even steps of T/n: each step removes the
// noise of as many timesteps, the last one included.
func trailing(T, n int) []int {
	ts := make([]int, n)
	for i := range ts {
		ts[i] = int(math.RoundToEven(float64(T)-float64(i*T)/float64(n))) - 1
	}
	return ts
}

// linspace divides 0..T-1 evenly, both ends included; a single step is at T-1,
// where sampling starts.
func linspace(T, n int) []int {
	if n == 1 {
		return []int{T - 1}
	}
	ts := make([]int, n)
	for i := range ts {
		ts[n-1-i] = int(math.RoundToEven(float64(i*(T-1)) / float64(n-1)))
	}
	return ts
}

// mostSigma is where even steps begin if a schedule has more noise: the sigma_max of Karras et al.
// (2022). The cosine schedule goes to 20,000, but beyond 80 there is nothing to see, and steps spent
// there are missing later.
const mostSigma = 80

// even places n nodes from T-1 to 0 in even steps of a function of Lambda: of is its value at a
// node, and lambda its inverse. A single node is at T-1. Where that has a Sigma above mostSigma, or
// no signal at all, steps are counted from mostSigma, in whose place T-1 stands.
func (s *Schedule) even(n int, of func(Node) float64, lambda func(float64) float64) []Node {
	nodes := make([]Node, n)
	nodes[n-1] = s.Node(0)
	nodes[0] = s.Node(float64(s.T() - 1))
	first := nodes[0]
	if first.Sigma() > mostSigma && n > 1 {
		first = s.NodeAt(-math.Log(mostSigma))
	}
	from, to := of(first), of(nodes[n-1])
	for i := 1; i < n-1; i++ {
		share := float64(i) / float64(n-1)
		nodes[i] = s.NodeAt(lambda((1-share)*from + share*to))
	}
	return nodes
}

// Nodes lists the n nodes that a sampler visits, from the noisiest down, without the end.
func Nodes(spacing string, s *Schedule, n int) ([]Node, error) {
	place, err := spacings.find(spacing)
	if err != nil {
		return nil, err
	}
	if err := checkSteps(n, s.T()); err != nil {
		return nil, err
	}
	nodes := place(s, n)
	for k, node := range nodes {
		if !(node.T >= 0 && node.T <= float64(s.T()-1)) || k > 0 && !(node.T < nodes[k-1].T) {
			return nil, fmt.Errorf("sample.spacing %q with sample.steps %d: t = %g at step %d: want t from %d down to 0, each below the one before",
				spacing, n, node.T, k, s.T()-1)
		}
	}
	return nodes, nil
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

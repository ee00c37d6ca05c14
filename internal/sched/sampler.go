package sched

import "fmt"

// MaxKept is the most values that a sampler keeps from one call of the network to the next.
const MaxKept = 3

// Row is a linear combination of what is known after a call of the network at x_t:
//
//	OnXt x_t + OnX0 x_0 + OnEps eps + OnNoise z + sum_j OnKept[j] kept_j,   z ~ N(0, I)
type Row struct {
	OnXt, OnX0, OnEps, OnNoise float64
	OnKept                     [MaxKept]float64
}

// Step is one call of the network, at its Node, and what is made of it: Prev is the x of the
// next call, and of the last step the image; Kept are the new kept values, all from
// the old ones, without noise.
type Step struct {
	Node
	Prev Row
	Kept [MaxKept]Row
	// LogVarMin and LogVarMax bound the variance that the network chooses, where
	// Options.Variance is Learned: z is multiplied by its root.
	LogVarMin, LogVarMax float64
}

// Options are the settings of one sampling run. A sampler ignores what it does
// not use.
type Options struct {
	Eta      float64  // ddim: 0 to 1
	Variance Variance // ddpm
	Calls    int      // singlestep solvers: the network calls that the nodes are for; 0 is as many as full order takes
}

// Sampler turns x_T into x_0. It writes down the steps; whoever runs them need not
// know what a sampler is.
type Sampler struct {
	// About names the method and its paper in one line.
	About string
	// Order is the order of convergence: the error at a fixed time, or if Stochastic that of the
	// variance, falls with the Order-th power of the number of steps. 0 says that there is
	// no equation to follow.
	Order int
	// Calls are the calls of the network for a step from node to node.
	Calls int
	// Stochastic says that noise is added on the way, whatever the options.
	Stochastic bool
	// Kept is the number of values kept between calls, at most MaxKept.
	Kept int
	// Uses are the settings, among eta and variance, that make a difference.
	Uses []string
	// Nodes is the number of nodes, the end not counted, that so many network calls are
	// spent on; nil is one for each call.
	Nodes func(calls int) int
	// Steps lists the steps that lead through the nodes, strictly falling in noise; the last is
	// the end, Clean or not, where the network is not called. Through Nodes(calls) nodes to Clean
	// they are calls at most.
	Steps func(s *Schedule, nodes []Node, opt Options) ([]Step, error)
}

var samplers = newRegistry[Sampler]("sample.sampler")

// RegisterSampler adds a sampler.
func RegisterSampler(name string, sampler Sampler) { samplers.register(name, sampler) }

// SamplerNames lists the samplers, sorted.
func SamplerNames() []string { return samplers.names() }

// SamplerByName finds a registered sampler.
func SamplerByName(name string) (Sampler, error) { return samplers.find(name) }

// Nodes are the places that c visits with a model trained with s, the end included.
func (c SamplerConfig) Nodes(s *Schedule) ([]Node, error) {
	if err := c.Validate(s.T()); err != nil {
		return nil, err
	}
	sampler, err := c.sampler()
	if err != nil {
		return nil, err
	}
	n := c.Steps
	if sampler.Nodes != nil {
		n = sampler.Nodes(n)
	}
	nodes, err := Nodes(c.Spacing, s, n)
	return append(nodes, Clean), err
}

// StepList are the steps that c describes for a model trained with s, through nodes: those of
// Nodes, or the later ones among them.
func (c SamplerConfig) StepList(s *Schedule, nodes []Node) ([]Step, error) {
	sampler, err := c.sampler()
	if err != nil {
		return nil, err
	}
	variance, err := ParseVariance(c.Variance)
	if err != nil {
		return nil, err
	}
	if err := checkNodes(nodes); err != nil {
		return nil, fmt.Errorf("sched: %s: %w", c.Sampler, err)
	}
	return sampler.Steps(s, nodes, Options{Eta: c.Eta, Variance: variance, Calls: c.Steps})
}

// checkNodes accepts two nodes or more whose noise falls strictly.
func checkNodes(nodes []Node) error {
	if len(nodes) < 2 {
		return fmt.Errorf("%d nodes: want a start and an end", len(nodes))
	}
	for k := 1; k < len(nodes); k++ {
		// Each rounds to 1 at one of the ends.
		if !(nodes[k].Noise < nodes[k-1].Noise || nodes[k].Signal > nodes[k-1].Signal) {
			return fmt.Errorf("t = %g follows t = %g at step %d: want less noise at each step",
				nodes[k].T, nodes[k-1].T, k)
		}
	}
	return nil
}

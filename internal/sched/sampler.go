package sched

import "fmt"

// Step is one step of a sampler: a call of the network at timestep T, whose
// output Prediction reads as x_0 and eps, and
//
//	x_prev = OnXt x_t + OnX0 x_0 + OnEps eps + OnNoise z,   z ~ N(0, I)
type Step struct {
	T                          int
	OnXt, OnX0, OnEps, OnNoise float64
}

// Options are the settings of one sampling run. A sampler ignores what it does
// not use.
type Options struct {
	Timesteps []int    // visited in this order, strictly falling; see Timesteps
	Eta       float64  // ddim: 0 to 1
	Variance  Variance // ddpm
	Clip      bool     // clip each prediction of x_0 to [-1, 1]; eps stays as it is
}

// Sampler writes down the steps that turn x_T into x_0 by visiting the
// timesteps. Whoever runs them need not know what a sampler is.
type Sampler func(s *Schedule, opt Options) ([]Step, error)

var samplers = newRegistry[Sampler]("sample.sampler")

// RegisterSampler adds a sampler.
func RegisterSampler(name string, sampler Sampler) { samplers.register(name, sampler) }

// SamplerNames lists the samplers, sorted.
func SamplerNames() []string { return samplers.names() }

// SamplerByName finds a registered sampler.
func SamplerByName(name string) (Sampler, error) { return samplers.find(name) }

// Options are the Options that c describes for a model trained with s.
func (c SamplerConfig) Options(s *Schedule) (Options, error) {
	if err := c.Validate(s.T()); err != nil {
		return Options{}, err
	}
	variance, err := ParseVariance(c.Variance)
	if err != nil {
		return Options{}, err
	}
	timesteps, err := Timesteps(c.Spacing, s, c.Steps)
	if err != nil {
		return Options{}, err
	}
	return Options{Timesteps: timesteps, Eta: c.Eta, Variance: variance, Clip: c.Clip}, nil
}

// StepList are the steps that c describes for a model trained with s.
func (c SamplerConfig) StepList(s *Schedule) ([]Step, error) {
	opt, err := c.Options(s)
	if err != nil {
		return nil, err
	}
	sampler, err := SamplerByName(c.Sampler)
	if err != nil {
		return nil, err
	}
	return sampler(s, opt)
}

// check refuses timesteps that the named sampler cannot visit.
func (o *Options) check(sampler string, s *Schedule) error {
	if err := checkTimesteps(o.Timesteps, s.T()); err != nil {
		return fmt.Errorf("sched: %s: %w", sampler, err)
	}
	return nil
}

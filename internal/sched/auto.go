package sched

import (
	"fmt"
	"math"
	"slices"
)

// Auto in place of a sampler's name stands for one that is good for so many steps, see Resolve.
const Auto = "auto"

// autoChoices are what Auto stands for, by the number of network calls. The noise that
// dpmpp_sde_2m adds makes up for errors of the network on the way: on the shapes data its images are
// the best from 4 calls on. Fewer calls leave no room for that. A few calls are better spent
// evenly in t than in Lambda, since schedules that begin with hardly any signal have much Lambda
// there and little to see.
var autoChoices = []struct {
	upTo             int // calls
	sampler, spacing string
}{
	{3, "unipc", "trailing"},
	{249, "dpmpp_sde_2m", "trailing"},
	{math.MaxInt, "ddpm", "trailing"},
}

// Traits is what the choice of a sampler depends on.
type Traits struct {
	Consistency bool // the model is a consistency model
	Learned     bool // the model predicts variances
}

// SamplerChoices lists the values of sample.sampler.
func SamplerChoices() []string { return append([]string{Auto}, SamplerNames()...) }

// Resolve replaces Auto by a sampler with the spacing that fits it, and for ddpm takes the
// learned variance if the model has one.
func (c SamplerConfig) Resolve(m Traits) SamplerConfig {
	if c.Sampler != Auto {
		return c
	}
	if m.Consistency {
		c.Sampler, c.Spacing = "consistency", "trailing"
		return c
	}
	for _, choice := range autoChoices {
		if c.Steps <= choice.upTo {
			c.Sampler, c.Spacing = choice.sampler, choice.spacing
			break
		}
	}
	if m.Learned && c.Sampler == "ddpm" {
		c.Variance = Learned.String()
	}
	return c
}

// checkSampler accepts the SamplerChoices.
func checkSampler(name string) error {
	if !slices.Contains(SamplerChoices(), name) {
		return unknown(samplers.key, name, SamplerChoices())
	}
	return nil
}

// sampler is the one that c names.
func (c SamplerConfig) sampler() (Sampler, error) {
	if c.Sampler == Auto {
		return Sampler{}, fmt.Errorf("sample.sampler auto: it is not resolved for a model")
	}
	return SamplerByName(c.Sampler)
}

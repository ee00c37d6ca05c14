package sched

import (
	"math"
	"testing"
)

func TestSamplerConfigs(t *testing.T) {
	good := SamplerConfig{Sampler: "ddpm", Steps: 10, Spacing: "karras", Variance: "learned", Guidance: 1, GuidanceTo: 1}
	for _, change := range []func(*SamplerConfig){
		func(*SamplerConfig) {},
		func(c *SamplerConfig) { c.Threshold = 1 },
		func(c *SamplerConfig) { c.Threshold, c.Clip = 0.995, true },
		func(c *SamplerConfig) { c.Guidance = 0 },
		func(c *SamplerConfig) { c.Guidance, c.GuidanceFrom, c.GuidanceTo, c.GuidanceRescale = 7.5, 0.5, 0.5, 1 },
	} {
		c := good
		change(&c)
		if err := c.Validate(10); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, test := range []struct {
		change func(*SamplerConfig)
		words  []string
	}{
		{func(c *SamplerConfig) { c.Spacing = "even" }, []string{`sample.spacing "even"`, "karras, leading, linspace, logsnr, trailing"}},
		{func(c *SamplerConfig) { c.Variance = "large" }, []string{`sample.variance "large"`, "learned"}},
		{func(c *SamplerConfig) { c.Steps = 11 }, []string{"sample.steps 11", "1 to 10"}},
		{func(c *SamplerConfig) { c.Threshold = -0.1 }, []string{"sample.threshold -0.1", "0 for none"}},
		{func(c *SamplerConfig) { c.Threshold = 1.01 }, []string{"sample.threshold 1.01"}},
		{func(c *SamplerConfig) { c.Threshold = math.NaN() }, []string{"sample.threshold NaN"}},
		{func(c *SamplerConfig) { c.Guidance = -1 }, []string{"sample.guidance -1", "1 (none)"}},
		{func(c *SamplerConfig) { c.Guidance = 101 }, []string{"sample.guidance 101: want 0 to 100"}},
		{func(c *SamplerConfig) { c.Guidance = math.Inf(1) }, []string{"sample.guidance +Inf"}},
		{func(c *SamplerConfig) { c.Guidance = math.NaN() }, []string{"sample.guidance NaN"}},
		{func(c *SamplerConfig) { c.GuidanceFrom = -0.5 }, []string{"sample.guidance_from -0.5", "0 to 1"}},
		{func(c *SamplerConfig) { c.GuidanceTo = 1.5 }, []string{"sample.guidance_to 1.5", "0 to 1"}},
		{func(c *SamplerConfig) { c.GuidanceTo = math.NaN() }, []string{"sample.guidance_to NaN"}},
		{func(c *SamplerConfig) { c.GuidanceRescale = 2 }, []string{"sample.guidance_rescale 2", "0 to 1"}},
		{func(c *SamplerConfig) { c.GuidanceFrom, c.GuidanceTo = 0.6, 0.5 }, []string{"sample.guidance_from 0.6", "sample.guidance_to (0.5)"}},
	} {
		c := good
		test.change(&c)
		wantError(t, c.Validate(10), test.words...)
	}
}

package sched

import "fmt"

// maxT bounds the tables' memory: about 100 MB at the limit.
const maxT = 1_000_000

// maxGuidance is far beyond any weight that draws images.
const maxGuidance = 100

// Config is the diffusion process.
type Config struct {
	T          int     `mapstructure:"t" doc:"diffusion steps"`
	Schedule   string  `mapstructure:"schedule" doc:"noise schedule"`
	BetaStart  float64 `mapstructure:"beta_start" doc:"first beta of the schedules linear, quadratic (scaled_linear) and sigmoid"`
	BetaEnd    float64 `mapstructure:"beta_end" doc:"last beta of these schedules"`
	Prediction string  `mapstructure:"prediction" doc:"what the network predicts"`

	ZeroTerminalSNR bool `mapstructure:"zero_terminal_snr" doc:"rescale the schedule so that no signal is left at the last t (Lin et al. 2024); for the predictions v and x0"`
	Consistency     bool `mapstructure:"consistency" doc:"the network is a consistency model, as ddpm distill makes them: it predicts x0 from any t, and at t 0 returns its input"`
}

// Validate names the first key whose value cannot be used. The betas are those
// of the chosen schedule only.
func (c Config) Validate() error {
	if _, err := New(c); err != nil {
		return err
	}
	p, err := ParsePrediction(c.Prediction)
	if err == nil && p == Eps && c.ZeroTerminalSNR {
		return fmt.Errorf("diffusion.zero_terminal_snr true: the noise tells nothing of x_0 where there is no signal: want diffusion.prediction v or x0, not eps")
	}
	return err
}

// SamplerConfig is how images are drawn from a trained network.
type SamplerConfig struct {
	Sampler  string  `mapstructure:"sampler" doc:"sampler"`
	Steps    int     `mapstructure:"steps" doc:"network calls an image; ddpm takes any strided subset of t"`
	Spacing  string  `mapstructure:"spacing" doc:"which t the steps visit; those of karras and logsnr lie between whole ones"`
	Eta      float64 `mapstructure:"eta" doc:"ddim: 0 is deterministic, 1 adds as much noise as ddpm"`
	Variance string  `mapstructure:"variance" doc:"ddpm, and the bound of ddpm eval: variance of the reverse step; learned is for models with model.learn_sigma"`
	Clip     bool    `mapstructure:"clip" doc:"clip the prediction of x0 to [-1, 1]"`

	Threshold       float64 `mapstructure:"threshold" doc:"dynamic thresholding in place of clip: the share of an image's values of x0 that is scaled to [-1, 1], such as 0.995, the rest is cut off; 0 is none"`
	Guidance        float64 `mapstructure:"guidance" doc:"weight of classifier-free guidance; 1 is none"`
	GuidanceFrom    float64 `mapstructure:"guidance_from" doc:"least noise at which there is guidance, as a share of t"`
	GuidanceTo      float64 `mapstructure:"guidance_to" doc:"most noise at which there is guidance, as a share of t"`
	GuidanceRescale float64 `mapstructure:"guidance_rescale" doc:"how far guided predictions get back the contrast of unguided ones, 0 to 1"`
}

// Validate names the first key whose value cannot be used with a model of T
// diffusion steps.
func (c SamplerConfig) Validate(T int) error {
	if err := checkSampler(c.Sampler); err != nil {
		return err
	}
	if _, err := spacings.find(c.Spacing); err != nil {
		return err
	}
	if _, err := ParseVariance(c.Variance); err != nil {
		return err
	}
	if !(c.Eta >= 0 && c.Eta <= 1) {
		return fmt.Errorf("sample.eta %g: want 0 (deterministic) to 1 (as much noise as ddpm)", c.Eta)
	}
	if !(c.Threshold >= 0 && c.Threshold <= 1) {
		return fmt.Errorf("sample.threshold %g: want a share above 0, such as 0.995, up to 1, or 0 for none", c.Threshold)
	}
	if !(c.Guidance >= 0 && c.Guidance <= maxGuidance) {
		return fmt.Errorf("sample.guidance %g: want 0 to %d, where 1 (none) is the plain network", c.Guidance, maxGuidance)
	}
	for _, share := range []struct {
		key   string
		value float64
	}{{"guidance_from", c.GuidanceFrom}, {"guidance_to", c.GuidanceTo}, {"guidance_rescale", c.GuidanceRescale}} {
		if !(share.value >= 0 && share.value <= 1) {
			return fmt.Errorf("sample.%s %g: want 0 to 1", share.key, share.value)
		}
	}
	if c.GuidanceFrom > c.GuidanceTo {
		return fmt.Errorf("sample.guidance_from %g: want at most sample.guidance_to (%g)", c.GuidanceFrom, c.GuidanceTo)
	}
	return checkSteps(c.Steps, T)
}

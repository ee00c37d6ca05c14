package sched

import "fmt"

// maxT bounds the tables' memory: about 100 MB at the limit.
const maxT = 1_000_000

// Config is the diffusion process.
type Config struct {
	T          int     `mapstructure:"t" doc:"diffusion steps"`
	Schedule   string  `mapstructure:"schedule" doc:"noise schedule"`
	BetaStart  float64 `mapstructure:"beta_start" doc:"first beta of the linear schedule"`
	BetaEnd    float64 `mapstructure:"beta_end" doc:"last beta of the linear schedule"`
	Prediction string  `mapstructure:"prediction" doc:"what the network predicts"`
}

// Validate names the first key whose value cannot be used. The betas are those
// of the chosen schedule only.
func (c Config) Validate() error {
	if _, err := New(c); err != nil {
		return err
	}
	_, err := ParsePrediction(c.Prediction)
	return err
}

// SamplerConfig is how images are drawn from a trained network.
type SamplerConfig struct {
	Sampler  string  `mapstructure:"sampler" doc:"sampler"`
	Steps    int     `mapstructure:"steps" doc:"network calls an image; ddpm takes any strided subset of t"`
	Spacing  string  `mapstructure:"spacing" doc:"which t the steps visit"`
	Eta      float64 `mapstructure:"eta" doc:"ddim: 0 is deterministic, 1 adds as much noise as ddpm"`
	Variance string  `mapstructure:"variance" doc:"ddpm: variance of the reverse step"`
	Clip     bool    `mapstructure:"clip" doc:"clip the prediction of x0 to [-1, 1]"`
}

// Validate names the first key whose value cannot be used with a model of T
// diffusion steps.
func (c SamplerConfig) Validate(T int) error {
	if _, err := SamplerByName(c.Sampler); err != nil {
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
	return checkSteps(c.Steps, T)
}

package sched

// Config is the diffusion process.
type Config struct {
	T          int     `mapstructure:"t" doc:"diffusion steps"`
	Schedule   string  `mapstructure:"schedule" doc:"noise schedule"`
	BetaStart  float64 `mapstructure:"beta_start" doc:"first beta of the linear schedule"`
	BetaEnd    float64 `mapstructure:"beta_end" doc:"last beta of the linear schedule"`
	Prediction string  `mapstructure:"prediction" doc:"what the network predicts"`
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

package train

// Config is one training run.
type Config struct {
	Steps           int     `mapstructure:"steps" doc:"optimiser steps of the whole run"`
	Batch           int     `mapstructure:"batch" doc:"images an optimiser step"`
	Accumulate      int     `mapstructure:"accumulate" doc:"parts a batch is split into; gradients are added up"`
	Recompute       bool    `mapstructure:"recompute" doc:"compute normalisations and dropout again in the backward pass: same results, less memory, a little slower"`
	Loss            string  `mapstructure:"loss" doc:"what is minimised: simple (the mean squared error), vlb (the variational bound, bits/dim), or hybrid (simple and a little of vlb, for model.learn_sigma)"`
	VLBWeight       float64 `mapstructure:"vlb_weight" doc:"hybrid: weight of the bound beside the squared error"`
	Weighting       string  `mapstructure:"weighting" doc:"weight of the squared error at each t: none, min_snr (error of x0 times min(snr, gamma)) or p2 (error of eps times (k + snr)^-gamma)"`
	MinSNRGamma     float64 `mapstructure:"min_snr_gamma" doc:"min_snr: gamma, the signal-to-noise ratio beyond which the weight rises no more"`
	P2Gamma         float64 `mapstructure:"p2_gamma" doc:"p2: gamma; 0 is the plain error of eps"`
	P2K             float64 `mapstructure:"p2_k" doc:"p2: k, the signal-to-noise ratio below which the weight is about constant"`
	Timesteps       string  `mapstructure:"timesteps" doc:"how t is drawn: uniform, importance (larger losses more often, the objective unchanged) or lognormal (by the noise relative to the signal)"`
	LognormalMean   float64 `mapstructure:"lognormal_mean" doc:"lognormal: mean of the logarithm of noise / signal"`
	LognormalStd    float64 `mapstructure:"lognormal_std" doc:"lognormal: its standard deviation"`
	ClassDropout    float64 `mapstructure:"class_dropout" doc:"with model.classes: probability that an image goes without its class, which guidance needs"`
	LR              float64 `mapstructure:"lr" doc:"learning rate of Adam"`
	Warmup          int     `mapstructure:"warmup" doc:"steps over which the learning rate rises linearly"`
	Decay           string  `mapstructure:"decay" doc:"constant, or cosine: the learning rate, warm-up included, times a cosine from 1 to 0 over the run"`
	Beta1           float64 `mapstructure:"beta1" doc:"Adam's decay of the first moment"`
	Beta2           float64 `mapstructure:"beta2" doc:"Adam's decay of the second moment"`
	AdamEps         float64 `mapstructure:"adam_eps" doc:"Adam's epsilon"`
	Clip            float64 `mapstructure:"clip" doc:"largest global gradient norm; 0 does not clip"`
	EMA             float64 `mapstructure:"ema" doc:"decay of the averaged weights; starts as (1+step)/(10+step)"`
	LogEvery        int     `mapstructure:"log_every" doc:"steps between lines of metrics.jsonl and metrics.csv"`
	PlotEvery       int     `mapstructure:"plot_every" doc:"steps between sample grids and loss curves; 0 draws them at the end only"`
	Samples         int     `mapstructure:"samples" doc:"images in a sample grid"`
	CheckpointEvery int     `mapstructure:"checkpoint_every" doc:"steps between checkpoints; 0 writes one at the end only"`
	KeepLast        int     `mapstructure:"keep_last" doc:"newest checkpoints kept"`
	KeepEvery       int     `mapstructure:"keep_every" doc:"checkpoints at multiples of this step are kept for good; 0 keeps none"`
}

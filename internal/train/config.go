package train

// Config is one training run.
type Config struct {
	Steps           int     `mapstructure:"steps" doc:"optimiser steps of the whole run"`
	Batch           int     `mapstructure:"batch" doc:"images an optimiser step"`
	Accumulate      int     `mapstructure:"accumulate" doc:"parts a batch is split into; gradients are added up"`
	Recompute       bool    `mapstructure:"recompute" doc:"compute normalisations and dropout again in the backward pass: same results, less memory, a little slower"`
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

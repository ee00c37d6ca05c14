package train

import (
	"math"
	"testing"
)

func valid() Config {
	return Config{
		Steps: 100, Batch: 16, Accumulate: 1, LR: 1e-3, Decay: "cosine",
		Loss: "simple", VLBWeight: 1e-3, Weighting: "none", MinSNRGamma: 5, P2Gamma: 1, P2K: 1,
		Timesteps: "uniform", LognormalMean: -1.2, LognormalStd: 1.2,
		Beta1: 0.9, Beta2: 0.999, AdamEps: 1e-8, EMA: 0.99, LogEvery: 1, Samples: 16, KeepLast: 1,
	}
}

func TestValidate(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatalf("valid config: %v", err)
	}
	for _, c := range []struct {
		edit func(*Config)
		want string
	}{
		{func(c *Config) { c.Steps = 0 }, "train.steps 0: want at least 1"},
		{func(c *Config) { c.Steps = 1 << 32 }, "train.steps 4294967296: want at most 4294967295"},
		{func(c *Config) { c.Batch = 0 }, "train.batch 0: want at least 1"},
		{func(c *Config) { c.Batch = -4 }, "train.batch -4: want at least 1"},
		{func(c *Config) { c.Accumulate = 0 }, "train.accumulate 0: want at least 1"},
		{func(c *Config) { c.Accumulate = 3 }, "train.accumulate 3: want a divisor of train.batch 16"},
		{func(c *Config) { c.Accumulate = 32 }, "train.accumulate 32: want a divisor of train.batch 16"},
		{func(c *Config) { c.Loss = "mse" }, `train.loss "mse": want one of simple, vlb, hybrid`},
		{func(c *Config) { c.VLBWeight = 0 }, "train.vlb_weight 0: want a number above 0"},
		{func(c *Config) { c.Weighting = "snr" }, `train.weighting "snr": want one of none, min_snr, p2`},
		{func(c *Config) { c.MinSNRGamma = -5 }, "train.min_snr_gamma -5: want a number above 0"},
		{func(c *Config) { c.P2Gamma = -1 }, "train.p2_gamma -1: want a number above 0, or 0 for the plain error of eps"},
		{func(c *Config) { c.P2K = 0 }, "train.p2_k 0: want a number above 0"},
		{func(c *Config) { c.Timesteps = "edm" }, `train.timesteps "edm": want one of importance, lognormal, uniform`},
		{func(c *Config) { c.LognormalMean = math.Inf(1) }, "train.lognormal_mean +Inf: want a number"},
		{func(c *Config) { c.LognormalStd = math.NaN() }, "train.lognormal_std NaN: want a number above 0"},
		{func(c *Config) { c.ClassDropout = 1.5 }, "train.class_dropout 1.5: want 0 to 1"},
		{func(c *Config) { c.LR = 0 }, "train.lr 0: want a number above 0"},
		{func(c *Config) { c.LR = math.NaN() }, "train.lr NaN: want a number above 0"},
		{func(c *Config) { c.LR = math.Inf(1) }, "train.lr +Inf: want a number above 0"},
		{func(c *Config) { c.Warmup = -1 }, "train.warmup -1: want at least 0"},
		{func(c *Config) { c.Decay = "linear" }, `train.decay "linear": want one of constant, cosine`},
		{func(c *Config) { c.Beta1 = 1 }, "train.beta1 1: want at least 0 and less than 1"},
		{func(c *Config) { c.Beta2 = -0.1 }, "train.beta2 -0.1: want at least 0 and less than 1"},
		{func(c *Config) { c.EMA = math.NaN() }, "train.ema NaN: want at least 0 and less than 1"},
		{func(c *Config) { c.AdamEps = 0 }, "train.adam_eps 0: want a number above 0"},
		{func(c *Config) { c.Clip = -1 }, "train.clip -1: want a number above 0, or 0 not to clip"},
		{func(c *Config) { c.LogEvery = 0 }, "train.log_every 0: want at least 1"},
		{func(c *Config) { c.PlotEvery = -1 }, "train.plot_every -1: want at least 0"},
		{func(c *Config) { c.Samples = 0 }, "train.samples 0: want at least 1"},
		{func(c *Config) { c.CheckpointEvery = -1 }, "train.checkpoint_every -1: want at least 0"},
		{func(c *Config) { c.KeepLast = 0 }, "train.keep_last 0: want at least 1"},
		{func(c *Config) { c.KeepEvery = -1 }, "train.keep_every -1: want at least 0"},
	} {
		cfg := valid()
		c.edit(&cfg)
		if err := cfg.Validate(); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestKindsAreValid(t *testing.T) {
	for _, c := range []struct {
		kinds []string
		set   func(*Config, string)
	}{
		{DecayKinds(), func(c *Config, kind string) { c.Decay = kind }},
		{LossKinds(), func(c *Config, kind string) { c.Loss = kind }},
		{WeightingKinds(), func(c *Config, kind string) { c.Weighting = kind }},
		{TimestepKinds(), func(c *Config, kind string) { c.Timesteps = kind }},
	} {
		for _, kind := range c.kinds {
			cfg := valid()
			c.set(&cfg, kind)
			if err := cfg.Validate(); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
	}
}

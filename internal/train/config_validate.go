package train

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// MaxImages is the most images of a batch or a grid. It keeps every size computed
// from a number of images far from overflow.
const MaxImages = 1 << 20

// DecayKinds lists the values of train.decay.
func DecayKinds() []string { return []string{"constant", "cosine"} }

// LossKinds lists the values of train.loss.
func LossKinds() []string { return []string{lossSimple, lossVLB, lossHybrid} }

// Validate checks every value on its own and against the others of the
// section. An error starts with the full key, as in "train.batch 0: want at
// least 1".
func (c Config) Validate() error {
	switch {
	case c.Steps < 1:
		return fmt.Errorf("train.steps %d: want at least 1", c.Steps)
	case uint64(c.Steps) > math.MaxUint32: // a step is one 32-bit word of a random number's counter
		return fmt.Errorf("train.steps %d: want at most %d", c.Steps, uint32(math.MaxUint32))
	case c.Batch < 1:
		return fmt.Errorf("train.batch %d: want at least 1", c.Batch)
	case c.Batch > MaxImages:
		return fmt.Errorf("train.batch %d: want at most %d", c.Batch, MaxImages)
	case c.Samples > MaxImages:
		return fmt.Errorf("train.samples %d: want at most %d", c.Samples, MaxImages)
	case c.Accumulate < 1:
		return fmt.Errorf("train.accumulate %d: want at least 1", c.Accumulate)
	case c.Batch%c.Accumulate != 0:
		return fmt.Errorf("train.accumulate %d: want a divisor of train.batch %d", c.Accumulate, c.Batch)
	case !slices.Contains(LossKinds(), c.Loss):
		return fmt.Errorf("train.loss %q: want one of %s", c.Loss, strings.Join(LossKinds(), ", "))
	case !slices.Contains(WeightingKinds(), c.Weighting):
		return fmt.Errorf("train.weighting %q: want one of %s", c.Weighting, strings.Join(WeightingKinds(), ", "))
	case !slices.Contains(TimestepKinds(), c.Timesteps):
		return fmt.Errorf("train.timesteps %q: want one of %s", c.Timesteps, strings.Join(TimestepKinds(), ", "))
	case !(c.P2Gamma >= 0) || math.IsInf(c.P2Gamma, 1):
		return fmt.Errorf("train.p2_gamma %g: want a number above 0, or 0 for the plain error of eps", c.P2Gamma)
	case math.IsNaN(c.LognormalMean) || math.IsInf(c.LognormalMean, 0):
		return fmt.Errorf("train.lognormal_mean %g: want a number", c.LognormalMean)
	case !(c.ClassDropout >= 0 && c.ClassDropout <= 1):
		return fmt.Errorf("train.class_dropout %g: want 0 to 1", c.ClassDropout)
	case !(c.LR > 0) || math.IsInf(c.LR, 1):
		return fmt.Errorf("train.lr %g: want a number above 0", c.LR)
	case c.Warmup < 0:
		return fmt.Errorf("train.warmup %d: want at least 0", c.Warmup)
	case c.Decay != "constant" && c.Decay != "cosine":
		return fmt.Errorf("train.decay %q: want one of %s", c.Decay, strings.Join(DecayKinds(), ", "))
	case !(c.AdamEps > 0) || math.IsInf(c.AdamEps, 1):
		return fmt.Errorf("train.adam_eps %g: want a number above 0", c.AdamEps)
	case !(c.Clip >= 0) || math.IsInf(c.Clip, 1):
		return fmt.Errorf("train.clip %g: want a number above 0, or 0 not to clip", c.Clip)
	}
	for _, p := range []struct {
		key   string
		value float64
	}{
		{"train.vlb_weight", c.VLBWeight},
		{"train.min_snr_gamma", c.MinSNRGamma},
		{"train.p2_k", c.P2K},
		{"train.lognormal_std", c.LognormalStd},
	} {
		if !(p.value > 0) || math.IsInf(p.value, 1) {
			return fmt.Errorf("%s %g: want a number above 0", p.key, p.value)
		}
	}
	for _, d := range []struct {
		key   string
		value float64
	}{
		{"train.beta1", c.Beta1},
		{"train.beta2", c.Beta2},
		{"train.ema", c.EMA},
	} {
		if !(d.value >= 0 && d.value < 1) {
			return fmt.Errorf("%s %g: want at least 0 and less than 1", d.key, d.value)
		}
	}
	for _, n := range []struct {
		key         string
		value, from int
	}{
		{"train.log_every", c.LogEvery, 1},
		{"train.plot_every", c.PlotEvery, 0},
		{"train.samples", c.Samples, 1},
		{"train.checkpoint_every", c.CheckpointEvery, 0},
		{"train.keep_last", c.KeepLast, 1},
		{"train.keep_every", c.KeepEvery, 0},
	} {
		if n.value < n.from {
			return fmt.Errorf("%s %d: want at least %d", n.key, n.value, n.from)
		}
	}
	return nil
}

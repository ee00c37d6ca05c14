package model

import (
	"math"
	"strings"
	"testing"
)

func valid() Config {
	return Config{
		Block: "resnet", Channels: 16, Mult: []float64{1, 2, 2}, Blocks: 2, Attention: []int{8}, MidAttention: true,
		Groups: 8, NormEps: 1e-6, Init: "pytorch", FreqShift: 1,
	}
}

func TestValidate(t *testing.T) {
	if err := valid().Validate(32, 32, 3); err != nil {
		t.Fatalf("valid config: %v", err)
	}
	if err := valid().Validate(24, 16, 1); err != nil {
		t.Fatalf("images that are not square: %v", err)
	}
	for _, c := range []struct {
		edit          func(*Config)
		width, height int
		want          string
	}{
		{func(c *Config) {}, 0, 32, "model: images of 0x32 pixels with 3 channels: want at least 1 of each"},
		{func(c *Config) { c.Block = "unet" }, 32, 32, `model.block "unet": want one of resnet, simple`},
		{func(c *Config) { c.Init = "" }, 32, 32, `model.init "": want one of pytorch, ddpm`},
		{func(c *Config) { c.Channels = 0 }, 32, 32, "model.channels 0: want at least 1"},
		{func(c *Config) { c.Channels = 25; c.Groups = 1 }, 32, 32, "model.channels 25: the first level has 25 channels, want an even number for the time embedding"},
		{func(c *Config) { c.FreqShift = 8 }, 32, 32, "model.freq_shift 8: want less than 8, half the channels of the first level"},
		{func(c *Config) { c.FreqShift = math.NaN() }, 32, 32, "model.freq_shift NaN: want less than 8, half the channels of the first level"},
		{func(c *Config) { c.Mult = nil }, 32, 32, "model.mult []: want one number a level, such as [1, 2, 2]"},
		{func(c *Config) { c.Mult[1] = 0 }, 32, 32, "model.mult [1, 0, 2]: want numbers above 0"},
		{func(c *Config) { c.Mult[1] = math.NaN() }, 32, 32, "model.mult [1, NaN, 2]: want numbers above 0"},
		{func(c *Config) { c.Mult[1] = 1e6 }, 32, 32, "model.mult [1, 1e+06, 2]: 1e+06 times model.channels 16 is more than 65536 channels"},
		{func(c *Config) { c.Mult[1] = 1.3 }, 32, 32, "model.mult [1, 1.3, 2]: 1.3 times model.channels 16 is 20.8, want a whole number of channels"},
		{func(c *Config) { c.Blocks = 0 }, 32, 32, "model.blocks 0: want 1 to 64"},
		{func(c *Config) { c.Blocks = 65 }, 32, 32, "model.blocks 65: want 1 to 64"},
		{func(c *Config) { c.Groups = 0 }, 32, 32, "model.groups 0: want at least 1"},
		{func(c *Config) { c.NormEps = 0 }, 32, 32, "model.norm_eps 0: want a number above 0"},
		{func(c *Config) { c.Dropout = 1 }, 32, 32, "model.dropout 1: want at least 0 and less than 1"},
		{func(c *Config) { c.Classes = -1 }, 32, 32, "model.classes -1: want 1 to 1048576, or 0 for none"},
		{func(c *Config) { c.DownsamplePadding = 2 }, 32, 32, "model.downsample_padding 2: want 0 or 1"},

		{func(c *Config) {}, 2, 3, "model.mult [1, 2, 2]: images of 2x3 pixels are too small for 3 levels, want at most 2"},
		{func(c *Config) { c.Mult = make([]float64, 70); fill(c.Mult, 1) }, 32, 32,
			"model.mult [" + strings.Repeat("1, ", 69) + "1]: images of 32x32 pixels are too small for 70 levels, want at most 6"},
		{func(c *Config) {}, 30, 28, "model.mult [1, 2, 2]: 3 levels halve images of 30x28 pixels 2 times, want data.width and data.height to be multiples of 4, or at most 2 levels"},

		{func(c *Config) { c.Attention = []int{8, 12} }, 32, 32, "model.attention 12: no feature map has this height, want some of 32, 16, 8"},
		{func(c *Config) { c.Attention = []int{4} }, 32, 32, "model.attention 4: no feature map has this height, want some of 32, 16, 8"},
		{func(c *Config) { c.HeadDim = -1 }, 32, 32, "model.head_dim -1: want at least 1, or 0 for a single head"},
		{func(c *Config) { c.HeadDim = 12 }, 32, 32, "model.head_dim 12: does not divide the 32 channels of the attention at height 8, want 0 (a single head) or one of 1, 2, 4, 8, 16, 32"},
		{func(c *Config) { c.HeadDim = 12; c.Attention = nil }, 32, 32, "model.head_dim 12: does not divide the 32 channels of the attention in the middle, want 0 (a single head) or one of 1, 2, 4, 8, 16, 32"},
		{func(c *Config) { c.HeadDim = 32; c.Attention = []int{32} }, 32, 32, "model.head_dim 32: does not divide the 16 channels of the attention at height 32, want 0 (a single head) or one of 1, 2, 4, 8, 16"},

		{func(c *Config) { c.Groups = 32 }, 32, 32, "model.groups 32: does not divide the 16 channels at height 32, want one of 1, 2, 4, 8, 16"},
		{func(c *Config) { c.Mult[1] = 2.25 }, 32, 32, "model.groups 8: does not divide the 36 channels at height 16, want one of 1, 2, 4"},
	} {
		cfg := valid()
		c.edit(&cfg)
		if err := cfg.Validate(c.width, c.height, 3); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestHeadDimWithoutAttentionIsFree(t *testing.T) {
	cfg := valid()
	cfg.HeadDim, cfg.Attention, cfg.MidAttention = 7, nil, false
	if err := cfg.Validate(32, 32, 3); err != nil {
		t.Error(err)
	}
}

func TestKindsAreValid(t *testing.T) {
	for _, block := range BlockKinds() {
		for _, init := range InitKinds() {
			cfg := valid()
			cfg.Block, cfg.Init = block, init
			if err := cfg.Validate(32, 32, 3); err != nil {
				t.Errorf("%s, %s: %v", block, init, err)
			}
		}
	}
}

func fill(values []float64, v float64) {
	for i := range values {
		values[i] = v
	}
}

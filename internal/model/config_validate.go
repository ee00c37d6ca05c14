package model

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"ddpm/internal/graph"
)

const (
	maxBlocks   = 64
	maxChannels = 1 << 16
	maxClasses  = 1 << 20
)

// BlockKinds lists the values of model.block.
func BlockKinds() []string { return []string{"resnet", "simple"} }

// InitKinds lists the values of model.init.
func InitKinds() []string { return []string{"pytorch", "ddpm"} }

// Validate checks the architecture for images of width x height pixels and the
// given number of channels. An error starts with the full key, as in
// "model.groups 32: ...", and says what would fit.
func (c Config) Validate(width, height, channels int) error {
	if width < 1 || height < 1 || channels < 1 {
		return fmt.Errorf("model: images of %dx%d pixels with %d channels: want at least 1 of each", width, height, channels)
	}
	if err := c.validateRanges(); err != nil {
		return err
	}
	levels, err := c.levelChannels()
	if err != nil {
		return err
	}
	if err := c.validateSize(width, height); err != nil {
		return err
	}
	if err := c.validateAttention(levels, height); err != nil {
		return err
	}
	return c.validateGroups(levels, height)
}

func (c Config) validateRanges() error {
	switch {
	case !slices.Contains(BlockKinds(), c.Block):
		return fmt.Errorf("model.block %q: want one of %s", c.Block, strings.Join(BlockKinds(), ", "))
	case !slices.Contains(InitKinds(), c.Init):
		return fmt.Errorf("model.init %q: want one of %s", c.Init, strings.Join(InitKinds(), ", "))
	case c.Conv != "" && !slices.Contains(graph.ConvAlgorithms(), c.Conv):
		return fmt.Errorf("model.conv %q: want one of %s", c.Conv, strings.Join(graph.ConvAlgorithms(), ", "))
	case c.Channels < 1:
		return fmt.Errorf("model.channels %d: want at least 1", c.Channels)
	case len(c.Mult) == 0:
		return fmt.Errorf("model.mult []: want one number a level, such as [1, 2, 2]")
	case c.Blocks < 1 || c.Blocks > maxBlocks:
		return fmt.Errorf("model.blocks %d: want 1 to %d", c.Blocks, maxBlocks)
	case c.HeadDim < 0:
		return fmt.Errorf("model.head_dim %d: want at least 1, or 0 for a single head", c.HeadDim)
	case c.Groups < 1:
		return fmt.Errorf("model.groups %d: want at least 1", c.Groups)
	case !(c.NormEps > 0) || math.IsInf(c.NormEps, 1):
		return fmt.Errorf("model.norm_eps %g: want a number above 0", c.NormEps)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("model.dropout %g: want at least 0 and less than 1", c.Dropout)
	case c.Classes < 0 || c.Classes > maxClasses:
		return fmt.Errorf("model.classes %d: want 1 to %d, or 0 for none", c.Classes, maxClasses)
	case c.DownsamplePadding != 0 && c.DownsamplePadding != 1:
		return fmt.Errorf("model.downsample_padding %d: want 0 or 1", c.DownsamplePadding)
	}
	return nil
}

// levelChannels is channels*mult, whole numbers.
func (c Config) levelChannels() ([]int, error) {
	levels := make([]int, len(c.Mult))
	for i, mult := range c.Mult {
		product := float64(c.Channels) * mult
		switch {
		case !(mult > 0):
			return nil, fmt.Errorf("model.mult %s: want numbers above 0", list(c.Mult))
		case product > maxChannels:
			return nil, fmt.Errorf("model.mult %s: %g times model.channels %d is more than %d channels", list(c.Mult), mult, c.Channels, maxChannels)
		case product != math.Trunc(product):
			return nil, fmt.Errorf("model.mult %s: %g times model.channels %d is %g, want a whole number of channels", list(c.Mult), mult, c.Channels, product)
		}
		levels[i] = int(product)
	}
	// The time embedding is as wide as the first level: half sines, half
	// cosines, with frequency exponents i / (half - freq_shift).
	first := levels[0]
	if first%2 != 0 {
		return nil, fmt.Errorf("model.channels %d: the first level has %d channels, want an even number for the time embedding", c.Channels, first)
	}
	if half := float64(first / 2); !(c.FreqShift < half) || math.IsInf(c.FreqShift, -1) {
		return nil, fmt.Errorf("model.freq_shift %g: want less than %g, half the channels of the first level", c.FreqShift, half)
	}
	return levels, nil
}

// validateSize checks that every level but the last can be halved.
func (c Config) validateSize(width, height int) error {
	n := len(c.Mult)
	shorter := min(width, height)
	if shorter>>(n-1) == 0 {
		return fmt.Errorf("model.mult %s: images of %dx%d pixels are too small for %d levels, want at most %d",
			list(c.Mult), width, height, n, bits.Len(uint(shorter)))
	}
	if step := 1 << (n - 1); width%step != 0 || height%step != 0 {
		return fmt.Errorf("model.mult %s: %d levels halve images of %dx%d pixels %d times, want data.width and data.height to be multiples of %d, or at most %d levels",
			list(c.Mult), n, width, height, n-1, step, bits.TrailingZeros(uint(width|height))+1)
	}
	return nil
}

// validateAttention checks the heights and that heads divide the channels
// wherever there is attention.
func (c Config) validateAttention(levels []int, height int) error {
	heights := make([]int, len(levels))
	for i := range heights {
		heights[i] = height >> i
	}
	for _, h := range c.Attention {
		if !slices.Contains(heights, h) {
			return fmt.Errorf("model.attention %d: no feature map has this height, want some of %s", h, join(heights))
		}
	}
	if c.HeadDim == 0 {
		return nil
	}
	common, bad, where := 0, 0, ""
	check := func(channels int, place string) {
		common = gcd(common, channels)
		if channels%c.HeadDim != 0 && bad == 0 {
			bad, where = channels, place
		}
	}
	for i, h := range heights {
		if slices.Contains(c.Attention, h) {
			check(levels[i], fmt.Sprintf("at height %d", h))
		}
	}
	if c.MidAttention {
		check(levels[len(levels)-1], "in the middle")
	}
	if bad != 0 {
		return fmt.Errorf("model.head_dim %d: does not divide the %d channels of the attention %s, want 0 (a single head) or one of %s",
			c.HeadDim, bad, where, join(divisors(common)))
	}
	return nil
}

// validateGroups checks every group normalisation. They see the channels of a
// level, or on the way up the sum of two levels' channels (the running
// activation and a skip): groups that divide each level divide every sum.
func (c Config) validateGroups(levels []int, height int) error {
	common, bad, where := 0, 0, 0
	for i, channels := range levels {
		common = gcd(common, channels)
		if channels%c.Groups != 0 && bad == 0 {
			bad, where = channels, height>>i
		}
	}
	if bad != 0 {
		return fmt.Errorf("model.groups %d: does not divide the %d channels at height %d, want one of %s", c.Groups, bad, where, join(divisors(common)))
	}
	return nil
}

// list writes levels' multiples as YAML does.
func list(values []float64) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = strconv.FormatFloat(v, 'g', -1, 64)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func join(values []int) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = strconv.Itoa(v)
	}
	return strings.Join(words, ", ")
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// divisors are those of n >= 1, ascending.
func divisors(n int) []int {
	var all []int
	for d := 1; d <= n; d++ {
		if n%d == 0 {
			all = append(all, d)
		}
	}
	return all
}

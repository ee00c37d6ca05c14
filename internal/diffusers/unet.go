package diffusers

import (
	"fmt"
	"slices"
	"strings"

	"ddpm/internal/graph"
	"ddpm/internal/model"
)

// unetFixed are the parts of UNet2DModel that are one way only here.
var unetFixed = []fixed{
	{"_class_name", []any{modelClass}},
	{"act_fn", []any{"silu", "swish"}}, // two names of one function
	{"center_input_sample", []any{false}},
	{"class_embed_type", []any{nil}},
	{"downsample_type", []any{"conv", nil}},
	{"mid_block_scale_factor", []any{1.0}},
	{"mid_block_type", []any{"UNetMidBlock2D"}},
	{"resnet_time_scale_shift", []any{"default"}},
	{"time_embedding_type", []any{"positional"}},
	{"upsample_type", []any{"conv", nil}},
}

// unetIgnored change nothing of a U-Net with a positional time embedding. All
// but the first are what the library's EMAModel leaves in the configuration of
// averaged weights.
var unetIgnored = []string{
	"num_train_timesteps",
	"decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup",
}

// unetNames are the keys that settings of model.Config come from.
var unetNames = map[string]string{
	"model:":                   "sample_size or in_channels",
	"model.channels":           "block_out_channels",
	"model.mult":               "block_out_channels with sample_size",
	"model.blocks":             "layers_per_block",
	"model.head_dim":           "attention_head_dim",
	"model.groups":             "norm_num_groups",
	"model.norm_eps":           "norm_eps",
	"model.dropout":            "dropout",
	"model.classes":            "num_class_embeds",
	"model.downsample_padding": "downsample_padding",
	"model.freq_shift":         "freq_shift",
}

// readUNet turns the configuration of a UNet2DModel into Model and the extent
// of the images.
func (p *Pipeline) readUNet(path string) error {
	o, err := readObject(path)
	if err != nil {
		return err
	}
	p.config = path
	o.require(unetFixed)
	for _, key := range unetIgnored {
		o.known[key] = true
	}
	p.Height, p.Width = o.sampleSize()
	p.Channels = o.whole("in_channels", 3)
	out := o.whole("out_channels", 3)
	if out != p.Channels && out != 2*p.Channels {
		o.fail("out_channels", fmt.Sprintf("%d, as many as in_channels, or %d with a learned variance", p.Channels, 2*p.Channels))
	}
	channels := read(o, "block_out_channels", []whole{224, 448, 672, 896}, "a list of whole numbers")
	if len(channels) == 0 || slices.Min(channels) < 1 {
		o.fail("block_out_channels", "a number of channels, at least 1, for each level")
	}
	attends := o.levels(len(channels))
	if o.err != nil {
		return o.err
	}

	c := model.Config{
		Block:             "resnet",
		Blocks:            o.whole("layers_per_block", 2),
		MidAttention:      o.flag("add_attention", true),
		HeadDim:           o.headDim(),
		Groups:            o.whole("norm_num_groups", 32),
		NormEps:           o.number("norm_eps", 1e-5),
		Dropout:           o.number("dropout", 0),
		Classes:           o.classes(),
		LearnSigma:        out == 2*p.Channels,
		Init:              "pytorch",
		Conv:              string(graph.AutoConv),
		DownsamplePadding: o.whole("downsample_padding", 1),
		FlipSinToCos:      o.flag("flip_sin_to_cos", true),
		FreqShift:         o.number("freq_shift", 0),
	}
	c.Channels, c.Mult = factor(channels)
	for level, attends := range attends {
		if attends { // heights halve exactly, see Validate: each is of one level
			c.Attention = append(c.Attention, p.Height>>level)
		}
	}
	if !o.null("attn_norm_num_groups") {
		if g := o.whole("attn_norm_num_groups", c.Groups); c.MidAttention && g != c.Groups {
			o.fail("attn_norm_num_groups", fmt.Sprintf("null or %d, as many as norm_num_groups", c.Groups))
		}
	}
	if !o.null("time_embedding_dim") {
		if dim := 4 * int(channels[0]); o.whole("time_embedding_dim", dim) != dim {
			o.fail("time_embedding_dim", fmt.Sprintf("null or %d, 4 times the channels of the first level", dim))
		}
	}
	o.refuseOthers()
	if o.err != nil {
		return o.err
	}
	p.Model = c
	if c.Classes > 0 {
		p.note("%s: num_class_embeds is %d: class %d stands for no class too, as where it is what labels were dropped for; if the model was trained without such a class, it wants one to be named and no guidance",
			path, c.Classes, c.Classes-1)
	}
	return o.explain(c.Validate(p.Width, p.Height, p.Channels), unetNames)
}

// sampleSize reads the height and width of the images.
func (o *object) sampleSize() (height, width int) {
	const key = "sample_size"
	o.known[key] = true
	if side, err := decode[whole](o.fields[key]); err == nil {
		return int(side), int(side)
	}
	size, err := decode[[]whole](o.fields[key])
	if err != nil || len(size) != 2 {
		o.fail(key, "the images' height and width in pixels, as one number or as [height, width]: write into the file what the model was trained on")
		return 0, 0
	}
	return int(size[0]), int(size[1])
}

// classes reads the number of classes, 0 if there are none. The library has a row of its
// embedding for each; here there is one more, see weights.arena.
func (o *object) classes() int {
	const key = "num_class_embeds"
	if o.null(key) {
		return 0
	}
	n := o.whole(key, 0)
	if o.has(key) && n < 1 {
		o.fail(key, "at least 1, or null for none")
	}
	return n
}

// headDim reads the channels of an attention head, 0 for a single head.
func (o *object) headDim() int {
	const key = "attention_head_dim"
	if o.null(key) {
		return 0
	}
	dim := o.whole(key, 8)
	if dim < 1 {
		o.fail(key, "at least 1, or null for a single head")
	}
	return dim
}

// levels tells which of n levels, finest first, have attention. Here they have
// it on the way down and up, or not at all.
func (o *object) levels(n int) []bool {
	const downKey, upKey = "down_block_types", "up_block_types"
	down := o.blocks(downKey, "DownBlock2D", []string{"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"}, n)
	up := o.blocks(upKey, "UpBlock2D", []string{"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"}, n)
	slices.Reverse(up)
	if !slices.Equal(down, up) {
		o.fail(upKey, fmt.Sprintf("the mirror image of %s, attention on the same levels", downKey))
	}
	return down
}

// blocks reads a list of n block types, each plain or, reported by true, with
// attention.
func (o *object) blocks(key, plain string, absent []string, n int) []bool {
	attn := "Attn" + plain
	types := read(o, key, absent, "a list of block types")
	if len(types) != n {
		o.failf("%s has length %d and block_out_channels length %d: want one block a level", key, len(types), n)
	}
	attends := make([]bool, len(types))
	for i, name := range types {
		switch strings.TrimPrefix(name, "UNetRes") { // early versions had this prefix
		case plain:
		case attn:
			attends[i] = true
		default:
			o.failf("%s has %q: want %s, other blocks are not supported", key, name, quoted([]string{plain, attn}))
		}
	}
	return attends
}

// factor writes the channels of the levels as a number and multiples of it
// that give them exactly: the first level's where rounding allows, else their
// greatest common divisor.
func factor(channels []whole) (first int, mult []float64) {
	first = int(channels[0])
	for range 2 {
		mult = mult[:0]
		exact := true
		for _, c := range channels {
			m := float64(c) / float64(first)
			exact = exact && m*float64(first) == float64(c)
			mult = append(mult, m)
		}
		if exact {
			break
		}
		for _, c := range channels {
			first = gcd(first, int(c))
		}
	}
	return first, mult
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

package diffusers

import (
	"reflect"
	"testing"

	"ddpm/internal/model"
)

// cifar10 is the network of Ho et al. (2020) for CIFAR-10 as current versions
// of the library write it.
var cifar10 = map[string]any{
	"_class_name": "UNet2DModel", "_diffusers_version": "0.33.0", "_name_or_path": "ddpm-cifar10-32",
	"act_fn": "silu", "add_attention": true, "attention_head_dim": nil, "attn_norm_num_groups": nil,
	"block_out_channels": []int{128, 256, 256, 256}, "center_input_sample": false, "class_embed_type": nil,
	"down_block_types":   []string{"DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"},
	"downsample_padding": 0, "downsample_type": "conv", "dropout": 0.1, "flip_sin_to_cos": false, "freq_shift": 1,
	"in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2D",
	"norm_eps": 1e-6, "norm_num_groups": 32, "num_class_embeds": nil, "num_train_timesteps": nil, "out_channels": 3,
	"resnet_time_scale_shift": "default", "sample_size": 32, "time_embedding_dim": nil, "time_embedding_type": "positional",
	"up_block_types": []string{"UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"}, "upsample_type": "conv",
}

var cifar10Model = model.Config{
	Block: "resnet", Channels: 128, Mult: []float64{1, 2, 2, 2}, Blocks: 2, Attention: []int{16}, MidAttention: true,
	Groups: 32, NormEps: 1e-6, Dropout: 0.1, Init: "pytorch", Conv: "auto", FreqShift: 1,
}

func readUNet(t *testing.T, config any) (*Pipeline, error) {
	t.Helper()
	f := newFolder(t)
	f.json("unet/config.json", config)
	p := &Pipeline{}
	return p, p.readUNet(f.path + "/unet/config.json")
}

func TestReadsUNets(t *testing.T) {
	change := func(f func(*model.Config)) model.Config {
		c := cifar10Model
		f(&c)
		return c
	}
	defaults := model.Config{
		Block: "resnet", Channels: 224, Mult: []float64{1, 2, 3, 4}, Blocks: 2, Attention: []int{32, 16, 8}, MidAttention: true,
		HeadDim: 8, Groups: 32, NormEps: 1e-5, Init: "pytorch", Conv: "auto", DownsamplePadding: 1, FlipSinToCos: true,
	}
	for _, test := range []struct {
		name   string
		config map[string]any
		want   model.Config
		size   model.Size
	}{
		{"CIFAR-10", cifar10, cifar10Model, model.Size{Height: 32, Width: 32, Channels: 3}},
		{"defaults of the library", map[string]any{"sample_size": 64}, defaults, model.Size{Height: 64, Width: 64, Channels: 3}},
		{"not square", with(cifar10, map[string]any{"sample_size": []int{16, 40}}),
			change(func(c *model.Config) { c.Attention = []int{8} }), model.Size{Height: 16, Width: 40, Channels: 3}},
		{"grey", with(cifar10, map[string]any{"in_channels": 1, "out_channels": 1}),
			cifar10Model, model.Size{Height: 32, Width: 32, Channels: 1}},
		{"heads", with(cifar10, map[string]any{"attention_head_dim": 64}),
			change(func(c *model.Config) { c.HeadDim = 64 }), model.Size{Height: 32, Width: 32, Channels: 3}},
		{"no attention in the middle", with(cifar10, map[string]any{"add_attention": false, "attn_norm_num_groups": 16}),
			change(func(c *model.Config) { c.MidAttention = false }), model.Size{Height: 32, Width: 32, Channels: 3}},
		{"groups of the middle", with(cifar10, map[string]any{"attn_norm_num_groups": 32}),
			cifar10Model, model.Size{Height: 32, Width: 32, Channels: 3}},
		{"time embedding as wide as usual", with(cifar10, map[string]any{"time_embedding_dim": 512}),
			cifar10Model, model.Size{Height: 32, Width: 32, Channels: 3}},
		{"names and numbers of other versions", with(cifar10, map[string]any{
			"down_block_types": []string{"UNetResDownBlock2D", "UNetResAttnDownBlock2D", "UNetResDownBlock2D", "UNetResDownBlock2D"},
			"up_block_types":   []string{"UNetResUpBlock2D", "UNetResUpBlock2D", "UNetResAttnUpBlock2D", "UNetResUpBlock2D"},
			"act_fn":           "swish", "freq_shift": 1.0, "sample_size": 32.0, "mid_block_scale_factor": 1.0,
			"downsample_type": nil, "upsample_type": nil, "attention_legacy_order": false, "some_option": nil, "_other": 3,
			"_class_name": remove,
		}), cifar10Model, model.Size{Height: 32, Width: 32, Channels: 3}},
		{"averaged weights", with(cifar10, map[string]any{
			"decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 100, "power": 0.75,
			"update_after_step": 0, "use_ema_warmup": true, "num_train_timesteps": 1000,
		}), cifar10Model, model.Size{Height: 32, Width: 32, Channels: 3}},
		{"classes", with(cifar10, map[string]any{"num_class_embeds": 11}),
			change(func(c *model.Config) { c.Classes = 11 }), model.Size{Height: 32, Width: 32, Channels: 3}},
		{"variances", with(cifar10, map[string]any{"out_channels": 6}),
			change(func(c *model.Config) { c.LearnSigma = true }), model.Size{Height: 32, Width: 32, Channels: 3}},
		{"one level", map[string]any{
			"sample_size": 5, "block_out_channels": []int{32}, "down_block_types": []string{"AttnDownBlock2D"}, "up_block_types": []string{"AttnUpBlock2D"},
		}, model.Config{
			Block: "resnet", Channels: 32, Mult: []float64{1}, Blocks: 2, Attention: []int{5}, MidAttention: true,
			HeadDim: 8, Groups: 32, NormEps: 1e-5, Init: "pytorch", Conv: "auto", DownsamplePadding: 1, FlipSinToCos: true,
		}, model.Size{Height: 5, Width: 5, Channels: 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := readUNet(t, test.config)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(p.Model, test.want) {
				t.Errorf("%+v\nwant %+v", p.Model, test.want)
			}
			if p.size() != test.size {
				t.Errorf("images of %v, want %v", p.size(), test.size)
			}
		})
	}
}

// 49 times 1/49 is not 1 in floating point.
func TestFactorIsExact(t *testing.T) {
	for _, channels := range [][]whole{{1}, {128, 256}, {16, 24, 32}, {98, 2}, {1000, 3, 49, 10007}, {224, 448, 672, 896}} {
		first, mult := factor(channels)
		for i, c := range (model.Config{Channels: first, Mult: mult}).LevelChannels() {
			if product := float64(first) * mult[i]; c != int(channels[i]) || product != float64(c) {
				t.Errorf("%v: level %d has %d channels as %d times %v", channels, i, c, first, mult[i])
			}
		}
	}
	if first, mult := factor([]whole{16, 24}); first != 16 || mult[1] != 1.5 {
		t.Errorf("16 and 24 are %d times %v, want 16 times 1 and 1.5", first, mult)
	}
	if m := 1.0 / 49; 49*m == 1 {
		t.Error("the case that needs the greatest common divisor does not exist")
	}
	if first, mult := factor([]whole{98, 2}); first != 2 || mult[0] != 49 || mult[1] != 1 {
		t.Errorf("98 and 2 are %d times %v, want 2 times 49 and 1", first, mult)
	}
}

func TestUNetsRefused(t *testing.T) {
	for _, test := range []struct {
		key   string
		value any
		words []string // besides the file, the key and the value
	}{
		{"_class_name", "UNet2DConditionModel", []string{`"UNet2DModel"`}},
		{"act_fn", "mish", []string{`"silu" or "swish"`}},
		{"act_fn", nil, []string{`"silu" or "swish"`}},
		{"center_input_sample", true, []string{"want false"}},
		{"class_embed_type", "timestep", []string{"want null"}},
		{"class_embed_type", "identity", []string{"want null"}},
		{"num_class_embeds", 0, []string{"at least 1, or null"}},
		{"num_class_embeds", "ten", []string{"whole number"}},
		{"num_class_embeds", 1 << 30, []string{"model.classes"}},
		{"downsample_type", "resnet", []string{`"conv"`}},
		{"upsample_type", "resnet", []string{`"conv"`}},
		{"mid_block_scale_factor", 1.4142, []string{"want 1"}},
		{"mid_block_type", nil, []string{`"UNetMidBlock2D"`}},
		{"mid_block_type", "UnCLIPUNetMidBlock2D", []string{`"UNetMidBlock2D"`}},
		{"resnet_time_scale_shift", "scale_shift", []string{`"default"`}},
		{"time_embedding_type", "fourier", []string{`"positional"`}},
		{"time_embedding_type", []any{"positional"}, []string{`"positional"`}},
		{"time_embedding_dim", 256, []string{"512"}},
		{"attn_norm_num_groups", 16, []string{"null or 32"}},
		{"out_channels", 4, []string{"want 3", "6 with a learned variance"}},
		{"in_channels", "3", []string{"whole number"}},
		{"in_channels", nil, []string{"whole number"}},
		{"layers_per_block", 2.5, []string{"whole number"}},
		{"layers_per_block", []int{1, 2, 2, 2}, []string{"whole number"}},
		{"layers_per_block", 0, []string{"model.blocks"}},
		{"layers_per_block", 1e12, []string{"whole number"}},
		{"norm_num_groups", nil, []string{"whole number"}},
		{"norm_num_groups", 48, []string{"model.groups", "128 channels"}},
		{"norm_eps", "1e-5", []string{"a number"}},
		{"norm_eps", -1, []string{"model.norm_eps"}},
		{"dropout", 1, []string{"model.dropout"}},
		{"downsample_padding", 2, []string{"model.downsample_padding"}},
		{"flip_sin_to_cos", 1, []string{"true or false"}},
		{"add_attention", "yes", []string{"true or false"}},
		{"freq_shift", 64, []string{"model.freq_shift"}},
		{"attention_head_dim", 0, []string{"at least 1, or null"}},
		{"attention_head_dim", -8, []string{"at least 1, or null"}},
		{"attention_head_dim", 48, []string{"model.head_dim", "256 channels"}},
		{"attention_head_dim", 512, []string{"model.head_dim", "256 channels"}},
		{"attention_head_dim", []int{8, 8, 8, 8}, []string{"whole number"}},
		{"sample_size", nil, []string{"height and width", "what the model was trained on"}},
		{"sample_size", []int{32}, []string{"[height, width]"}},
		{"sample_size", []any{32, nil}, []string{"[height, width]"}},
		{"sample_size", "32", []string{"[height, width]"}},
		{"sample_size", 36, []string{"block_out_channels", "multiples of 8"}},
		{"sample_size", 0, []string{"images of 0x0 pixels"}},
		{"block_out_channels", []int{}, []string{"at least 1"}},
		{"block_out_channels", []int{128, -1, 256, 256}, []string{"at least 1"}},
		{"block_out_channels", []int{128, 256}, []string{"down_block_types", "length 4", "length 2"}},
		{"block_out_channels", []int{128, 1 << 20, 256, 256}, []string{"model.mult", "65536"}},
		{"block_out_channels", []string{"a"}, []string{"whole numbers"}},
		{"down_block_types", []string{"DownBlock2D"}, []string{"length 1", "length 4"}},
		{"up_block_types", []string{"UpBlock2D"}, []string{"length 1", "length 4"}},
		{"down_block_types", []string{"DownBlock2D", "AttnDownBlock2D", "SkipDownBlock2D", "DownBlock2D"}, []string{`"DownBlock2D" or "AttnDownBlock2D"`}},
		{"up_block_types", []string{"UpBlock2D", "UpBlock2D", "ResnetUpsampleBlock2D", "UpBlock2D"}, []string{`"UpBlock2D" or "AttnUpBlock2D"`}},
		{"up_block_types", []string{"UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"}, []string{"mirror image of down_block_types"}},
		{"up_block_types", []any{nil, "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"}, nil},
		{"encoder_hid_dim", 8, []string{"UNet2DModel"}},
		{"attention_legacy_order", true, []string{"UNet2DModel"}},
	} {
		t.Run(test.key, func(t *testing.T) {
			_, err := readUNet(t, with(cifar10, map[string]any{test.key: test.value}))
			refused(t, err, append(test.words, "unet/config.json", test.key)...)
		})
	}
}

package diffusers

import (
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/graph/reference"
	"ddpm/internal/model"
	"ddpm/internal/safetensors"
)

func open(t *testing.T, f folder) *Pipeline {
	t.Helper()
	p, err := Open(f.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *Pipeline) size() model.Size {
	return model.Size{Height: p.Height, Width: p.Width, Channels: p.Channels}
}

func layout(t *testing.T, p *Pipeline) *graph.Layout {
	t.Helper()
	l, err := model.Layout(p.Model, p.size())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// predict runs the pipeline's network on the golden x and t, and on a class for each image if it
// has classes.
func (g golden) predict(b graph.Backend, p *Pipeline, class ...uint32) []float32 {
	g.t.Helper()
	steps, err := g.file.ReadInt64("golden.t")
	if err != nil {
		g.t.Fatal(err)
	}
	ts := make([]float32, len(steps))
	for i, s := range steps {
		ts[i] = float32(s)
	}
	net, err := model.Inference(p.Model, p.size(), len(ts))
	if err != nil {
		g.t.Fatal(err)
	}
	plan, err := graph.Compile(net, b)
	if err != nil {
		g.t.Fatal(err)
	}
	state, err := b.NewState(net.Layout, false)
	if err != nil {
		g.t.Fatal(err)
	}
	defer state.Close()
	weights, err := p.Weights(net.Layout)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := state.Write(graph.Params, weights); err != nil {
		g.t.Fatal(err)
	}
	program, err := b.Load(plan, state, graph.Params)
	if err != nil {
		g.t.Fatal(err)
	}
	defer program.Close()
	feeds := graph.Feeds{"x": g.nhwc("golden.x"), "t": ts}
	if class != nil {
		feeds["class"] = class
	}
	if err := program.Run(context.Background(), feeds); err != nil {
		g.t.Fatal(err)
	}
	out := make([]float32, plan.Outputs["out"].Shape.TotalSize())
	if err := program.Output("out", out); err != nil {
		g.t.Fatal(err)
	}
	return out
}

// nhwc reads an [N,C,H,W] tensor.
func (g golden) nhwc(name string) []float32 {
	g.t.Helper()
	info, _ := g.file.Tensor(name)
	src, err := g.file.ReadFloat32(name)
	if err != nil {
		g.t.Fatal(err)
	}
	c, pixels := info.Shape[1], info.Shape[2]*info.Shape[3]
	dst := make([]float32, len(src))
	for i, v := range src {
		n, ch, px := i/(c*pixels), i/pixels%c, i%pixels
		dst[(n*pixels+px)*c+ch] = v
	}
	return dst
}

// tolerance is a few times the float32 noise floor of the PyTorch model, which
// testdata's JSON files record, relative to the largest value.
const tolerance = 2e-6

// distance is the largest |got-want| relative to the largest |want|.
func distance(got, want []float32) float64 {
	var diff, scale float64
	for i, w := range want {
		diff = max(diff, math.Abs(float64(got[i])-float64(w)))
		scale = max(scale, math.Abs(float64(w)))
	}
	return diff / scale
}

// forms are the ways in which a pipeline may hold its weights.
var forms = []struct {
	name  string
	write func(f folder, weights []safetensors.Tensor)
}{
	{"one file", func(f folder, weights []safetensors.Tensor) {
		f.tensors("unet/diffusion_pytorch_model.safetensors", weights)
	}},
	{"old names", func(f folder, weights []safetensors.Tensor) {
		f.tensors("unet/diffusion_pytorch_model.safetensors", renamed(weights))
	}},
	{"old names, 2-d convolutions", func(f folder, weights []safetensors.Tensor) {
		f.tensors("unet/diffusion_pytorch_model.safetensors", renamed(convolved(weights, 2)))
	}},
	{"old names, 1-d convolutions", func(f folder, weights []safetensors.Tensor) {
		f.tensors("unet/diffusion_pytorch_model.safetensors", renamed(convolved(weights, 1)))
	}},
	{"variant", func(f folder, weights []safetensors.Tensor) {
		f.tensors("unet/diffusion_pytorch_model.fp16.safetensors", weights)
	}},
	{"one file among variants", func(f folder, weights []safetensors.Tensor) {
		f.tensors("unet/diffusion_pytorch_model.fp16.safetensors", weights[:1])
		f.tensors("unet/diffusion_pytorch_model.safetensors", weights)
		f.write("unet/diffusion_pytorch_model.bin", "a pickle")
	}},
	{"shards", func(f folder, weights []safetensors.Tensor) {
		f.sharded("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model-%05d-of-%05d.safetensors", 3, weights)
	}},
	{"shards of a variant", func(f folder, weights []safetensors.Tensor) {
		f.sharded("diffusion_pytorch_model.safetensors.index.fp16.json", "diffusion_pytorch_model.fp16-%05d-of-%05d.safetensors", 2, weights)
	}},
	{"no sub-folders", func(f folder, weights []safetensors.Tensor) {
		for _, name := range []string{"unet/config.json", "scheduler/scheduler_config.json"} {
			if err := os.Rename(filepath.Join(f.path, name), filepath.Join(f.path, filepath.Base(name))); err != nil {
				f.t.Fatal(err)
			}
		}
		f.tensors("diffusion_pytorch_model.safetensors", weights)
	}},
}

func TestPredictsWhatPyTorchDoes(t *testing.T) {
	for _, name := range []string{"unet_tiny", "unet_heads"} {
		for _, form := range forms {
			t.Run(name+"/"+form.name, func(t *testing.T) {
				g, f := openGolden(t, name), newFolder(t)
				f.pipeline(g)
				form.write(f, g.weights())
				if !Is(f.path) {
					t.Error("not recognised as a pipeline")
				}
				if d := distance(g.predict(reference.Backend{}, open(t, f)), g.nhwc("golden.eps")); d > tolerance {
					t.Errorf("off by %.2g of the largest value, want %.2g", d, tolerance)
				}
			})
		}
	}
}

func TestPredictsWhatPyTorchDoesOnTheCPU(t *testing.T) {
	for _, name := range []string{"unet_tiny", "unet_heads"} {
		for _, set := range isa.Supported() {
			t.Run(name+"/"+set.String(), func(t *testing.T) {
				g, f := complete(t, name)
				b := cpu.New(2, set)
				defer b.Close()
				if d := distance(g.predict(b, open(t, f)), g.nhwc("golden.eps")); d > tolerance {
					t.Errorf("off by %.2g of the largest value, want %.2g", d, tolerance)
				}
			})
		}
	}
}

// wide is the network unet_tiny with classes, of which class 0 changes nothing, and with
// variances twice its predictions.
func wide(t *testing.T) (golden, folder) {
	t.Helper()
	g, f := openGolden(t, "unet_tiny"), newFolder(t)
	f.pipeline(g)
	f.json("unet/config.json", with(g.config, map[string]any{"num_class_embeds": 3, "out_channels": 6}))
	weights := g.weights()
	for i := range weights {
		if w := &weights[i]; strings.HasPrefix(w.Name, "conv_out.") {
			for _, v := range w.Float32 {
				w.Float32 = append(w.Float32, 2*v)
			}
			w.Shape[0] = 6
		}
	}
	const width = 32
	table := make([]float32, 3*width)
	for i := range width {
		table[width+i], table[2*width+i] = float32(i)/10, -1
	}
	f.tensors("unet/diffusion_pytorch_model.safetensors", append(weights,
		safetensors.Tensor{Name: "class_embedding.weight", DType: safetensors.F32, Shape: []int{3, width}, Float32: table}))
	return g, f
}

func TestClassesAndVariances(t *testing.T) {
	g, f := wide(t)
	p := open(t, f)
	if p.Model.Classes != 3 || !p.Model.LearnSigma || !slices.ContainsFunc(p.Notes, func(note string) bool {
		return strings.Contains(note, "num_class_embeds is 3: class 2 stands for no class too")
	}) {
		t.Errorf("%d classes, learn_sigma %t, notes %q", p.Model.Classes, p.Model.LearnSigma, p.Notes)
	}
	want := g.nhwc("golden.eps")
	of := func(class uint32) (prediction, variance []float32) {
		classes := slices.Repeat([]uint32{class}, len(want)/p.size().Values())
		for i, v := range g.predict(reference.Backend{}, p, classes...) {
			if c := p.Channels; i%(2*c) < c {
				prediction = append(prediction, v)
			} else {
				variance = append(variance, v/2)
			}
		}
		return prediction, variance
	}
	prediction, variance := of(0)
	if d := max(distance(prediction, want), distance(variance, want)); d > tolerance {
		t.Errorf("off by %.2g of the largest value, want %.2g", d, tolerance)
	}
	one, _ := of(1)
	last, _ := of(2)
	none, _ := of(uint32(p.Model.NoClass()))
	if distance(one, want) < 0.01 || distance(last, want) < 0.01 || distance(one, last) < 0.01 {
		t.Error("classes make no difference")
	}
	if !slices.Equal(none, last) {
		t.Errorf("no class is off the last class by %.2g", distance(none, last))
	}
}

// A head of all channels is a single head; two heads are another network. In
// both golden networks the number of heads shows.
func TestHeadsMatter(t *testing.T) {
	for _, test := range []struct {
		name    string
		headDim any
		same    bool
	}{
		{"unet_tiny", nil, true}, {"unet_tiny", 16, true}, {"unet_tiny", 8, false}, {"unet_tiny", remove, false},
		{"unet_heads", 4, true}, {"unet_heads", 2, false}, {"unet_heads", nil, false},
	} {
		g, f := complete(t, test.name)
		f.json("unet/config.json", with(g.config, map[string]any{"attention_head_dim": test.headDim}))
		d := distance(g.predict(reference.Backend{}, open(t, f)), g.nhwc("golden.eps"))
		if same := d <= tolerance; same != test.same || !same && d < 1e-3 {
			t.Errorf("%s with attention_head_dim %v: off by %.2g of the largest value", test.name, test.headDim, d)
		}
	}
}

// Everything else that a configuration sets changes the result too, so that the
// golden networks pin it down.
func TestEveryConventionMatters(t *testing.T) {
	for _, test := range []struct {
		name   string
		change map[string]any
	}{
		{"unet_tiny", map[string]any{"downsample_padding": 1}},
		{"unet_tiny", map[string]any{"flip_sin_to_cos": true}},
		{"unet_tiny", map[string]any{"freq_shift": 0}},
		{"unet_tiny", map[string]any{"norm_num_groups": 8}},
		{"unet_heads", map[string]any{"downsample_padding": 0}},
		{"unet_heads", map[string]any{"flip_sin_to_cos": false}},
		{"unet_heads", map[string]any{"freq_shift": 1}},
		{"unet_heads", map[string]any{"norm_eps": 1e-2}},
	} {
		g, f := complete(t, test.name)
		f.json("unet/config.json", with(g.config, test.change))
		if d := distance(g.predict(reference.Backend{}, open(t, f)), g.nhwc("golden.eps")); d < 1e-4 {
			t.Errorf("%s with %v: off by only %.2g of the largest value", test.name, test.change, d)
		}
	}
}

func TestIs(t *testing.T) {
	for _, test := range []struct {
		file, text string
		want       bool
	}{
		{"model_index.json", `{}`, true},
		{"unet/config.json", `{}`, true},
		{"config.json", `{"_class_name": "UNet2DModel"}`, true},
		{"config.json", `{"_class_name": "UNet2DConditionModel"}`, false},
		{"config.json", `{"_class_name": 3}`, false},
		{"config.json", `{}`, false},
		{"config.json", `null`, false},
		{"config.json", `not JSON`, false},
		{"config.yaml", `seed: 1`, false},
	} {
		f := newFolder(t)
		f.write(test.file, test.text)
		if got := Is(f.path); got != test.want {
			t.Errorf("%s with %s: %v, want %v", test.file, test.text, got, test.want)
		}
	}
	if Is(filepath.Join(t.TempDir(), "absent")) {
		t.Error("a folder that does not exist is a pipeline")
	}
}

func TestOpenRefusesFolders(t *testing.T) {
	t.Run("empty", func(t *testing.T) {
		_, err := Open(newFolder(t).path)
		refused(t, err, "unet/config.json", "config.json")
	})
	t.Run("scheduler lost", func(t *testing.T) {
		_, f := complete(t, "unet_tiny")
		if err := os.RemoveAll(filepath.Join(f.path, "scheduler")); err != nil {
			t.Fatal(err)
		}
		_, err := Open(f.path)
		refused(t, err, "model_index.json", "scheduler/scheduler_config.json is missing")
	})
	for name, text := range map[string]string{"not JSON": "{", "null": "null", "a list": "[]", "empty file": ""} {
		for _, file := range []string{"model_index.json", "unet/config.json", "scheduler/scheduler_config.json"} {
			t.Run(name+" in "+file, func(t *testing.T) {
				_, f := complete(t, "unet_tiny")
				f.write(file, text)
				_, err := Open(f.path)
				refused(t, err, file, "JSON object")
			})
		}
	}
	t.Run("other parts", func(t *testing.T) {
		_, f := complete(t, "unet_tiny")
		f.json("model_index.json", map[string]any{
			"_class_name": "LDMPipeline", "scheduler": []string{"diffusers", "DDIMScheduler"},
			"unet": []string{"diffusers", "UNet2DModel"}, "vqvae": []string{"diffusers", "VQModel"}, "bert": []string{"transformers", "BertModel"},
		})
		_, err := Open(f.path)
		refused(t, err, "model_index.json", "bert (BertModel), vqvae (VQModel)", "denoise pixels")
	})
}

func TestIndexOptionsAreIgnored(t *testing.T) {
	_, f := complete(t, "unet_tiny")
	f.json("model_index.json", map[string]any{
		"_class_name": "DDPMPipeline", "requires_safety_checker": true, "safety_checker": []any{nil, nil},
		"force_zeros": []int{1, 2}, "scheduler": []string{"diffusers", "DDPMScheduler"}, "unet": []string{"diffusers", "UNet2DModel"},
	})
	if notes := open(t, f).Notes; notes != nil {
		t.Errorf("notes %q, want none", notes)
	}
}

// The unet of a pipeline, alone.
func TestFolderWithoutScheduler(t *testing.T) {
	_, f := complete(t, "unet_tiny")
	f.path = filepath.Join(f.path, "unet")
	if !Is(f.path) {
		t.Error("not recognised")
	}
	p := open(t, f)
	if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "scheduler_config.json is missing") {
		t.Errorf("notes %q, want one that the scheduler is missing", p.Notes)
	}
	if want := ddpmDefaults; p.Diffusion != want {
		t.Errorf("%+v, want %+v", p.Diffusion, want)
	}
	if want := ddpmSampling; p.Sample != want {
		t.Errorf("%+v, want %+v", p.Sample, want)
	}
}

func TestWeightsRefused(t *testing.T) {
	const file = "unet/diffusion_pytorch_model.safetensors"
	index := func(tensor, name string) map[string]any {
		return map[string]any{"weight_map": map[string]string{tensor: name}}
	}
	for _, test := range []struct {
		name  string
		write func(f folder, weights []safetensors.Tensor)
		words []string
	}{
		{"none", func(f folder, w []safetensors.Tensor) {}, []string{"unet has no weights", "diffusion_pytorch_model.safetensors"}},
		{"shards without a list", func(f folder, w []safetensors.Tensor) {
			f.tensors("unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors", w)
		}, []string{"unet has no weights", "index.json"}},
		{"pickle", func(f folder, w []safetensors.Tensor) {
			f.write("unet/diffusion_pytorch_model.bin", "PK")
		}, []string{"diffusion_pytorch_model.bin", "pickle", "safe_serialization=True"}},
		{"pickle of a variant", func(f folder, w []safetensors.Tensor) {
			f.write("unet/diffusion_pytorch_model.fp16.bin", "PK")
		}, []string{"diffusion_pytorch_model.fp16.bin", "pickle", "safe_serialization=True"}},
		{"two variants", func(f folder, w []safetensors.Tensor) {
			f.tensors("unet/diffusion_pytorch_model.fp16.safetensors", w)
			f.tensors("unet/diffusion_pytorch_model.non_ema.safetensors", w)
		}, []string{"diffusion_pytorch_model.fp16.safetensors, diffusion_pytorch_model.non_ema.safetensors", "rename"}},
		{"not safetensors", func(f folder, w []safetensors.Tensor) {
			f.write(file, "version https://git-lfs.github.com/spec/v1")
		}, []string{file, "not a safetensors file"}},
		{"shard lost", func(f folder, w []safetensors.Tensor) {
			f.json(file+".index.json", index("conv_in.bias", "diffusion_pytorch_model-00001-of-00001.safetensors"))
		}, []string{"diffusion_pytorch_model-00001-of-00001.safetensors", "no such file"}},
		{"shard elsewhere", func(f folder, w []safetensors.Tensor) {
			f.json(file+".index.json", index("conv_in.bias", "../model_index.json"))
		}, []string{file + ".index.json", `"../model_index.json"`, "same folder"}},
		{"shard above", func(f folder, w []safetensors.Tensor) {
			f.json(file+".index.json", index("conv_in.bias", ".."))
		}, []string{file + ".index.json", `".."`, "same folder"}},
		{"empty list", func(f folder, w []safetensors.Tensor) {
			f.json(file+".index.json", map[string]any{})
		}, []string{file + ".index.json", "weight_map"}},
		{"list of something else", func(f folder, w []safetensors.Tensor) {
			f.json(file+".index.json", map[string]any{"weight_map": []int{1}})
		}, []string{file + ".index.json", "weight_map is [1]"}},
		{"both names", func(f folder, w []safetensors.Tensor) {
			q := slices.IndexFunc(w, func(t safetensors.Tensor) bool { return t.Name == "mid_block.attentions.0.to_q.bias" })
			f.tensors(file, append(w, renamed(w[q:q+1])...))
		}, []string{file, "mid_block.attentions.0.to_q.bias is there already, as mid_block.attentions.0.query.bias"}},
		{"twice", func(f folder, w []safetensors.Tensor) {
			f.tensors("unet/a.safetensors", w)
			f.tensors("unet/b.safetensors", w[:1])
			f.json(file+".index.json", map[string]any{"weight_map": map[string]string{"x": "a.safetensors", "y": "b.safetensors"}})
		}, []string{"unet/b.safetensors", w0 + " is there already, as " + w0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, f := openGolden(t, "unet_tiny"), newFolder(t)
			f.pipeline(g)
			test.write(f, g.weights())
			_, err := Open(f.path)
			refused(t, err, test.words...)
		})
	}
}

// w0 is the first tensor of unet_tiny.
const w0 = "conv_in.bias"

func TestWeightsOfAnotherNetwork(t *testing.T) {
	const file = "unet/diffusion_pytorch_model.safetensors"
	rename := func(from, to string) func(*safetensors.Tensor) {
		return func(t *safetensors.Tensor) {
			if t.Name == from {
				t.Name = to
			}
		}
	}
	reshape := func(name string, shape ...int) func(*safetensors.Tensor) {
		return func(t *safetensors.Tensor) {
			if t.Name == name {
				t.Shape = shape
			}
		}
	}
	for _, test := range []struct {
		name   string
		change func(*safetensors.Tensor)
		config map[string]any
		words  []string
	}{
		{"renamed", rename("conv_in.bias", "conv_in.offset"), nil,
			[]string{"its weights lack conv_in.bias, and have in addition conv_in.offset"}},
		{"transposed", reshape("conv_in.weight", 3, 8, 3, 3), nil,
			[]string{"its weights have conv_in.weight [3 8 3 3] where [8 3 3 3] is wanted"}},
		{"flattened", reshape("mid_block.attentions.0.to_q.weight", 256), nil,
			[]string{"to_q.weight [256] where [16 16] is wanted"}},
		{"a convolution the wrong way", reshape("mid_block.attentions.0.to_q.weight", 1, 1, 16, 16), nil,
			[]string{"to_q.weight [1 1 16 16] where [16 16] is wanted"}},
		{"a vector with more dimensions", reshape("conv_in.bias", 8, 1), nil,
			[]string{"conv_in.bias [8 1] where [8] is wanted"}},
		{"more blocks configured", nil, map[string]any{"layers_per_block": 2},
			[]string{"its weights lack down_blocks.0.resnets.1.norm1.weight, ", " more"}},
		{"less attention configured", nil, map[string]any{"add_attention": false},
			[]string{"its weights have in addition mid_block.attentions.0.group_norm.bias, ", "and 7 more"}},
		{"classes configured", nil, map[string]any{"num_class_embeds": 5},
			[]string{"its weights lack class_embedding.weight"}},
		{"other classes configured", rename("conv_in.bias", "class_embedding.weight"), map[string]any{"num_class_embeds": 5},
			[]string{"class_embedding.weight [8] where [5 32] is wanted"}},
		{"wider", nil, map[string]any{"block_out_channels": []int{8, 24}}, []string{"where", "is wanted", "more"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, f := openGolden(t, "unet_tiny"), newFolder(t)
			f.pipeline(g)
			weights := g.weights()
			if test.change != nil {
				for i := range weights {
					test.change(&weights[i])
				}
			}
			f.tensors(file, weights)
			f.json("unet/config.json", with(g.config, test.config))
			p := open(t, f)
			_, err := p.Weights(layout(t, p))
			refused(t, err, append(test.words, file, "unet/config.json")...)
		})
	}
}

func TestWeightsOfIntegers(t *testing.T) {
	g, f := openGolden(t, "unet_tiny"), newFolder(t)
	f.pipeline(g)
	weights := g.weights()
	weights[0].DType, weights[0].Float32 = safetensors.I32, nil
	weights[0].Stream = func(w io.Writer) error { _, err := w.Write(make([]byte, 4*8)); return err }
	f.tensors("unet/diffusion_pytorch_model.safetensors", weights)
	p := open(t, f)
	_, err := p.Weights(layout(t, p))
	refused(t, err, w0, "I32")
}

package diffusers

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/safetensors"
)

const testdata = "../../testdata/"

// golden is a U-Net of testdata: its configuration, weights and, under golden.,
// what the independent PyTorch model made of an input.
type golden struct {
	t      *testing.T
	file   *safetensors.File
	config map[string]any
}

func openGolden(t *testing.T, name string) golden {
	t.Helper()
	f, err := safetensors.Open(testdata + name + ".safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	text, err := os.ReadFile(testdata + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	g := golden{t: t, file: f}
	if err := json.Unmarshal(text, &g.config); err != nil {
		t.Fatal(err)
	}
	delete(g.config, "golden")
	return g
}

// weights are the tensors of the state dict.
func (g golden) weights() []safetensors.Tensor {
	var tensors []safetensors.Tensor
	for _, name := range g.file.Names() {
		if strings.HasPrefix(name, "golden.") || strings.HasPrefix(name, "grad.") {
			continue
		}
		info, _ := g.file.Tensor(name)
		values, err := g.file.ReadFloat32(name)
		if err != nil {
			g.t.Fatal(err)
		}
		tensors = append(tensors, safetensors.Tensor{Name: name, DType: safetensors.F32, Shape: info.Shape, Float32: values})
	}
	return tensors
}

// folder is a pipeline under construction in a temporary folder.
type folder struct {
	t    *testing.T
	path string
}

func newFolder(t *testing.T) folder { return folder{t, t.TempDir()} }

// json writes a value to a file.
func (f folder) json(name string, value any) {
	f.t.Helper()
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(name, string(text))
}

func (f folder) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.path, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		f.t.Fatal(err)
	}
}

func (f folder) tensors(name string, tensors []safetensors.Tensor) {
	f.t.Helper()
	path := filepath.Join(f.path, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		f.t.Fatal(err)
	}
	if err := safetensors.WriteFile(path, map[string]string{"format": "pt"}, tensors); err != nil {
		f.t.Fatal(err)
	}
}

// pipeline writes what save_pretrained does of a golden U-Net, without its
// weights.
func (f folder) pipeline(g golden) {
	f.json("model_index.json", map[string]any{
		"_class_name": "DDPMPipeline", "_diffusers_version": "0.32.2",
		"scheduler": []string{"diffusers", "DDPMScheduler"}, "unet": []string{"diffusers", "UNet2DModel"},
	})
	f.json("unet/config.json", g.config)
	f.json("scheduler/scheduler_config.json", map[string]any{"_class_name": "DDPMScheduler"})
}

// complete is a whole pipeline of a golden U-Net.
func complete(t *testing.T, name string) (golden, folder) {
	g, f := openGolden(t, name), newFolder(t)
	f.pipeline(g)
	f.tensors("unet/diffusion_pytorch_model.safetensors", g.weights())
	return g, f
}

// with is a copy of a JSON object with keys set. The value remove removes one.
func with(object map[string]any, changes map[string]any) map[string]any {
	object = maps.Clone(object)
	for key, value := range changes {
		if object[key] = value; value == remove {
			delete(object, key)
		}
	}
	return object
}

const remove = "\x00remove"

// renamed gives attention layers the names that they had before.
func renamed(tensors []safetensors.Tensor) []safetensors.Tensor {
	old := strings.NewReplacer("to_q", "query", "to_k", "key", "to_v", "value", "to_out.0", "proj_attn")
	tensors = slices.Clone(tensors)
	for i := range tensors {
		tensors[i].Name = old.Replace(tensors[i].Name)
	}
	return tensors
}

// convolved stores the weights of attention layers as convolutions with kernels
// of extent 1 in so many dimensions.
func convolved(tensors []safetensors.Tensor, dimensions int) []safetensors.Tensor {
	tensors = slices.Clone(tensors)
	for i, t := range tensors {
		if strings.Contains(t.Name, "attentions.") && len(t.Shape) == 2 {
			tensors[i].Shape = append(slices.Clone(t.Shape), slices.Repeat([]int{1}, dimensions)...)
		}
	}
	return tensors
}

// sharded writes tensors to n files and their list, and returns nothing but
// what the library would.
func (f folder) sharded(list, shard string, n int, tensors []safetensors.Tensor) {
	files := map[string]string{}
	for i := range n {
		name := fmt.Sprintf(shard, i+1, n)
		var part []safetensors.Tensor
		for j := i; j < len(tensors); j += n {
			part = append(part, tensors[j])
			files[tensors[j].Name] = name
		}
		f.tensors("unet/"+name, part)
	}
	f.json("unet/"+list, map[string]any{"metadata": map[string]any{"total_size": 1}, "weight_map": files})
}

// refused checks that Open, or Weights after it, fails with one sentence that
// has all the words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	text := err.Error()
	if !strings.HasPrefix(text, "diffusers: ") || strings.Contains(text, "\n") {
		t.Errorf("%q is not a single sentence of package diffusers", text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q lacks %q", text, word)
		}
	}
}

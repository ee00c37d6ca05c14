package checkpoint

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/model"
	"ddpm/internal/safetensors"
)

type counters struct {
	Step int     `json:"step"`
	Loss float64 `json:"loss"`
}

func tiny() model.Config {
	return model.Config{
		Block: "resnet", Channels: 4, Mult: []float64{1, 2}, Blocks: 1, MidAttention: true,
		Groups: 2, NormEps: 1e-6, Init: "pytorch", FreqShift: 1,
	}
}

// newState is a training state; every arena holds other numbers.
func newState(t *testing.T, c model.Config, fill bool) graph.State {
	t.Helper()
	layout, err := model.Layout(c, model.Size{Height: 4, Width: 4, Channels: 3})
	if err != nil {
		t.Fatal(err)
	}
	b := cpu.New(1, isa.Generic)
	t.Cleanup(func() { b.Close() })
	s, err := b.NewState(layout, true)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range arenas {
		if !fill {
			break
		}
		if err := s.Write(a, layout.InitialWeights(uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func read(t *testing.T, s graph.State, a graph.Arena) []float32 {
	t.Helper()
	values := make([]float32, s.Layout().Size)
	if err := s.Read(a, values); err != nil {
		t.Fatal(err)
	}
	return values
}

func save(t *testing.T, s graph.State) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.safetensors")
	if err := Write(path, "seed: 1\n", counters{7, 0.1}, s, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %v, want %q", err, w)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	s := newState(t, tiny(), true)
	path := save(t, s)
	f := open(t, path)
	var c counters
	if err := f.Counters(&c); err != nil || c != (counters{7, 0.1}) || f.Config != "seed: 1\n" {
		t.Errorf("counters %v, %v, config %q", c, err, f.Config)
	}
	if err := f.Check(s.Layout()); err != nil {
		t.Error(err)
	}
	restored := newState(t, tiny(), false)
	if err := f.Restore(restored); err != nil {
		t.Fatal(err)
	}
	for _, a := range arenas {
		if !slices.Equal(read(t, s, a), read(t, restored, a)) {
			t.Errorf("the %v changed", a)
		}
	}
	again := save(t, restored)
	one, _ := os.ReadFile(path)
	two, _ := os.ReadFile(again)
	if len(one) == 0 || string(one) != string(two) {
		t.Error("equal states give files that differ")
	}
}

func TestObjective(t *testing.T) {
	s := newState(t, tiny(), true)
	plain := save(t, s)
	path := filepath.Join(t.TempDir(), "c.safetensors")
	objective := map[string][]float32{"history": {1, 2, 3}, "counts": {4}, "waiting": {}}
	if err := Write(path, "seed: 1\n", counters{7, 0.1}, s, objective); err != nil {
		t.Fatal(err)
	}
	f := open(t, path)
	got := map[string][]float32{"history": make([]float32, 3), "counts": make([]float32, 1), "waiting": {}}
	if ok, err := f.Objective(got); !ok || err != nil || !reflect.DeepEqual(got, objective) {
		t.Errorf("objective %v, %t, %v", got, ok, err)
	}
	// It is no part of the network.
	if err := f.Check(s.Layout()); err != nil {
		t.Error(err)
	}
	restored := newState(t, tiny(), false)
	if err := f.Restore(restored); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "c.safetensors")
	if err := Write(again, "seed: 1\n", counters{7, 0.1}, restored, got); err != nil {
		t.Fatal(err)
	}
	one, _ := os.ReadFile(path)
	two, _ := os.ReadFile(again)
	if len(one) == 0 || string(one) != string(two) {
		t.Error("equal states give files that differ")
	}

	// What is not there as it should be leaves everything as it was.
	for _, c := range []struct {
		file *File
		name string
		size int
	}{{f, "other", 1}, {f, "history", 4}, {open(t, plain), "history", 3}} {
		tensors := map[string][]float32{"counts": {9}, c.name: make([]float32, c.size)}
		ok, err := c.file.Objective(tensors)
		if ok || err != nil || tensors["counts"][0] != 9 {
			t.Errorf("%s of %d values: %t, %v, counts %v", c.name, c.size, ok, err, tensors["counts"])
		}
	}
	if ok, err := open(t, plain).Objective(nil); !ok || err != nil {
		t.Errorf("an objective that remembers nothing: %t, %v", ok, err)
	}
}

// Other programs read the weights under the names of diffusers, in PyTorch's
// order.
func TestWeightsAreAsPyTorchHasThem(t *testing.T) {
	s := newState(t, tiny(), true)
	f, err := safetensors.Open(save(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Metadata()["format"] != "pt" {
		t.Errorf("metadata %v, want the format pt", f.Metadata())
	}
	const name = "down_blocks.0.downsamplers.0.conv.weight"
	for prefix, arena := range map[string]graph.Arena{"": graph.Params, "ema.": graph.EMA, "adam_m.": graph.AdamM, "adam_v.": graph.AdamV} {
		info, ok := f.Tensor(prefix + name)
		if !ok || !slices.Equal(info.Shape, []int{4, 4, 3, 3}) {
			t.Fatalf("%s%s is %v, want [4 4 3 3]", prefix, name, info.Shape)
		}
		values, err := f.ReadFloat32(prefix + name)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(s.Layout().Params, func(p graph.ParamSpec) bool { return p.Name == name })
		kernel := read(t, s, arena)[s.Layout().Params[i].Offset:]
		// Output channel 3, input channel 1, row 2, column 0.
		if got, want := values[((3*4+1)*3+2)*3+0], kernel[((2*3+0)*4+1)*4+3]; got != want {
			t.Errorf("%v: %v, want %v", arena, got, want)
		}
	}
}

func TestAnotherArchitecture(t *testing.T) {
	f := open(t, save(t, newState(t, tiny(), true)))
	for _, c := range []struct {
		edit func(*model.Config)
		want string
	}{
		{func(c *model.Config) { c.Channels = 8 }, "is [16 4], this network's is [32 8]"},
		{func(c *model.Config) { c.Blocks = 2 }, "it lacks down_blocks.0.resnets.1."},
		{func(c *model.Config) { c.MidAttention = false }, "it holds mid_block.attentions.0."},
	} {
		config := tiny()
		c.edit(&config)
		s := newState(t, config, false)
		wantError(t, f.Check(s.Layout()), "is of another architecture: ", c.want)
		wantError(t, f.Restore(s), "is of another architecture: ", c.want)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, metadata map[string]string) string {
		path := filepath.Join(dir, name)
		if err := safetensors.WriteFile(path, metadata, nil); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, err := Open(file("other", map[string]string{"format": "pt"}))
	wantError(t, err, "was not written by ddpm train")
	_, err = Open(file("future", map[string]string{formatKey: "2", configKey: "x", countersKey: "{}"}))
	wantError(t, err, `has format "2", this program reads "1"`)
	_, err = Open(filepath.Join(dir, "missing"))
	wantError(t, err, "missing")

	f := open(t, file("counters", map[string]string{formatKey: format, configKey: "x", countersKey: `{"epoch": 1}`}))
	wantError(t, f.Counters(&counters{}), "counters of", "epoch")
}

// A checkpoint that cannot be written leaves the one before as it was.
func TestWriteFails(t *testing.T) {
	s := newState(t, tiny(), true)
	err := Write(filepath.Join(t.TempDir(), "missing", "c.safetensors"), "", counters{}, s, nil)
	wantError(t, err, "cannot write")
	path := save(t, s)
	before, _ := os.ReadFile(path)
	wantError(t, Write(path, "\xff", counters{}, s, nil), "cannot write", "left as it was")
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("the file changed")
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("%d files are left, want 1", len(entries))
	}
}

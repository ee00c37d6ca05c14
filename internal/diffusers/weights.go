package diffusers

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ddpm/internal/graph"
	"ddpm/internal/safetensors"
)

// How save_pretrained names weights: base.safetensors; with a variant,
// base.fp16.safetensors; in several files, base-00001-of-00002.safetensors or
// base.fp16-00001-of-00002.safetensors and a list of them,
// base.safetensors.index.json or base.safetensors.index.fp16.json.
const (
	weightsBase  = "diffusion_pytorch_model"
	weightsFile  = weightsBase + ".safetensors"
	weightsIndex = weightsFile + ".index.json"
)

// weights are the tensors of a model, in one file or several.
type weights struct {
	path    string // of the file, or of the list of files
	files   []*safetensors.File
	tensors map[string]tensor // by the newer names
}

type tensor struct {
	file *safetensors.File
	name string // in the file
}

// openWeights finds the weights in a folder.
func openWeights(dir string) (*weights, error) {
	path, err := findWeights(dir)
	if err != nil {
		return nil, err
	}
	paths := []string{path}
	if strings.HasSuffix(path, ".json") {
		if paths, err = readShards(path); err != nil {
			return nil, err
		}
	}
	w := &weights{path: path, tensors: map[string]tensor{}}
	for _, path := range paths {
		if err := w.open(path); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	return w, nil
}

// findWeights picks the file of the weights, or the list of their files.
func findWeights(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("diffusers: %w", err)
	}
	var variants, pickles []string
	for _, e := range entries {
		switch name := e.Name(); {
		case name == weightsFile:
			return filepath.Join(dir, name), nil
		case isVariant(name):
			variants = append(variants, name)
		case strings.HasPrefix(name, weightsBase) && strings.HasSuffix(name, ".bin"):
			pickles = append(pickles, name)
		}
	}
	switch {
	case slices.Contains(variants, weightsIndex):
		return filepath.Join(dir, weightsIndex), nil
	case len(variants) == 1:
		return filepath.Join(dir, variants[0]), nil
	case len(variants) > 1:
		return "", fmt.Errorf("diffusers: %s has weights in several variants, %s: rename the one to use to %s", dir, strings.Join(variants, ", "), weightsFile)
	case len(pickles) > 0:
		return "", fmt.Errorf("diffusers: %s has its weights in %s, a Python pickle, which can run code and is not read: load the model in Python and save it with save_pretrained(folder, safe_serialization=True)",
			dir, pickles[0])
	}
	return "", fmt.Errorf("diffusers: %s has no weights: want %s, or %s with the files it lists", dir, weightsFile, weightsIndex)
}

// isVariant recognises the weights of a variant in one file, and any list of
// files, whose names have had the variant in several places.
func isVariant(name string) bool {
	rest, ok := strings.CutPrefix(name, weightsBase+".")
	switch {
	case !ok:
		return false
	case strings.HasSuffix(rest, ".json"):
		return strings.Contains(rest, "safetensors") && strings.Contains(rest, ".index.")
	}
	return strings.HasSuffix(rest, ".safetensors") && !strings.Contains(rest, "-of-")
}

// readShards lists the files of weights that are in several.
func readShards(path string) ([]string, error) {
	o, err := readObject(path)
	if err != nil {
		return nil, err
	}
	files := read(o, "weight_map", map[string]string(nil), "an object of tensor names and file names")
	names := slices.Compact(slices.Sorted(maps.Values(files)))
	if len(names) == 0 {
		o.failf("weight_map is absent or empty: want the files of the weights")
	}
	for i, name := range names {
		// The list may come from anyone: it must not reach out of its folder.
		if name != filepath.Base(name) || !filepath.IsLocal(name) {
			o.failf("weight_map names the file %q: want a file in the same folder", name)
		}
		names[i] = filepath.Join(filepath.Dir(path), name)
	}
	return names, o.err
}

func (w *weights) open(path string) error {
	f, err := safetensors.Open(path)
	if err != nil {
		return fmt.Errorf("diffusers: %w", err)
	}
	w.files = append(w.files, f)
	for _, name := range f.Names() {
		key := newer.Replace(name)
		if other, ok := w.tensors[key]; ok {
			return fmt.Errorf("diffusers: %s: %s is there already, as %s: want a parameter once", path, name, other.name)
		}
		w.tensors[key] = tensor{f, name}
	}
	return nil
}

func (w *weights) close() error {
	var errs []error
	for _, f := range w.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// newer gives a parameter the name that it has since attention layers were
// renamed.
var newer = strings.NewReplacer(".query.", ".to_q.", ".key.", ".to_k.", ".value.", ".to_v.", ".proj_attn.", ".to_out.0.")

// arena reads every parameter of a layout. config is the file that the layout
// is from, for messages.
func (w *weights) arena(l *graph.Layout, config string) ([]float32, error) {
	if err := w.check(l, config); err != nil {
		return nil, err
	}
	arena := make([]float32, l.Size)
	for _, p := range l.Params {
		t := w.tensors[p.Name]
		values, err := t.file.ReadFloat32(t.name)
		if err != nil {
			return nil, fmt.Errorf("diffusers: %w", err)
		}
		if p.Kind == graph.Table { // the row of no class: the last class is that, if any is
			values = append(values, values[len(values)-p.Shape[1]:]...)
		}
		p.FromTorch(arena[p.Offset:p.Offset+p.Len], values)
	}
	return arena, nil
}

// check compares the tensors that are there with those of a layout.
func (w *weights) check(l *graph.Layout, config string) error {
	var missing, misshapen, extra []string
	known := map[string]bool{}
	for _, p := range l.Params {
		known[p.Name] = true
		t, ok := w.tensors[p.Name]
		if !ok {
			missing = append(missing, p.Name)
			continue
		}
		info, _ := t.file.Tensor(t.name)
		if !fits(info.Shape, p) {
			misshapen = append(misshapen, fmt.Sprintf("%s %v where %v is wanted", t.name, info.Shape, stored(p)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.tensors)) {
		if !known[name] {
			extra = append(extra, w.tensors[name].name)
		}
	}
	var faults []string
	add := func(verb string, what []string) {
		if len(what) > 0 {
			faults = append(faults, verb+" "+some(what))
		}
	}
	add("lack", missing)
	add("have", misshapen)
	add("have in addition", extra)
	if faults == nil {
		return nil
	}
	return fmt.Errorf("diffusers: %s is not the network of %s: its weights %s", w.path, config, strings.Join(faults, ", and "))
}

// stored is the shape of a parameter in the library. Its table of classes has no row for none.
func stored(p graph.ParamSpec) []int {
	shape := p.TorchShape()
	if p.Kind == graph.Table {
		shape = append([]int{shape[0] - 1}, shape[1:]...)
	}
	return shape
}

// fits compares a stored shape with a parameter's. The weights of attention have
// been 1x1 convolutions at times: what is linear may have 1s at the end.
func fits(shape []int, p graph.ParamSpec) bool {
	want := stored(p)
	if p.Kind == graph.LinearWeight {
		for len(shape) > len(want) && shape[len(shape)-1] == 1 {
			shape = shape[:len(shape)-1]
		}
	}
	return slices.Equal(shape, want)
}

// some names the first few of many.
func some(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

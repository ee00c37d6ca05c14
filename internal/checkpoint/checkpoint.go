// Package checkpoint stores a training run in one safetensors file: the weights
// under their diffusers names, so that other programs read them as they are,
// the averaged weights and Adam's moments under the same names with a prefix,
// and the resolved configuration and the counters in the metadata. What a training
// objective remembers is there too, under names that start with "objective.".
//
// The bytes of a file depend on the state alone: two runs that agree write equal
// files.
package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"ddpm/internal/graph"
	"ddpm/internal/safetensors"
)

const (
	formatKey   = "ddpm.format"
	format      = "1"
	configKey   = "ddpm.config"
	countersKey = "ddpm.counters"
)

// prefixes are what the arenas of a checkpoint are stored under.
var prefixes = map[graph.Arena]string{
	graph.Params: "",
	graph.EMA:    "ema.",
	graph.AdamM:  "adam_m.",
	graph.AdamV:  "adam_v.",
}

// objectivePrefix is what the tensors of an objective are stored under.
const objectivePrefix = "objective."

// arenas is the order in which a state is read and written.
var arenas = []graph.Arena{graph.Params, graph.EMA, graph.AdamM, graph.AdamV}

// Write stores a training state at path. The file appears whole or not at all.
// config is the resolved configuration; counters is any value that JSON holds; objective
// is what the objective of the training remembers, by name.
func Write(path, config string, counters any, state graph.State, objective map[string][]float32) error {
	count, err := json.Marshal(counters)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	layout := state.Layout()
	host := reader{state: state, arena: make([]float32, layout.Size), holds: -1}
	var tensors []safetensors.Tensor
	for _, a := range arenas {
		for _, p := range layout.Params {
			tensors = append(tensors, host.tensor(a, p))
		}
	}
	for name, values := range objective {
		tensors = append(tensors, safetensors.Tensor{
			Name: objectivePrefix + name, DType: safetensors.F32, Shape: []int{len(values)}, Float32: values,
		})
	}
	return safetensors.WriteFile(path, map[string]string{
		// What diffusers and transformers ask of a file of PyTorch weights.
		"format":    "pt",
		formatKey:   format,
		configKey:   config,
		countersKey: string(count),
	}, tensors)
}

// reader copies one arena of a state at a time to the host: a checkpoint needs no
// more memory than that. Tensors are written in the order of their names, so
// each arena is read once or twice.
type reader struct {
	state graph.State
	arena []float32
	holds graph.Arena // -1 is none
}

// tensor is a parameter, turned into PyTorch's order as it is written.
func (r *reader) tensor(a graph.Arena, p graph.ParamSpec) safetensors.Tensor {
	return safetensors.Tensor{
		Name: prefixes[a] + p.Name, DType: safetensors.F32, Shape: p.TorchShape(),
		Stream: func(w io.Writer) error {
			if r.holds != a {
				if err := r.state.Read(a, r.arena); err != nil {
					return fmt.Errorf("reading the %v: %w", a, err)
				}
				r.holds = a
			}
			ordered := make([]float32, p.Len)
			p.ToTorch(ordered, r.arena[p.Offset:p.Offset+p.Len])
			return binary.Write(w, binary.LittleEndian, ordered)
		},
	}
}

// File is an open checkpoint.
type File struct {
	Path string
	// Config is the resolved configuration of the run that wrote it.
	Config string

	counters string
	file     *safetensors.File
}

// Open reads the header of a checkpoint.
func Open(path string) (*File, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	meta := f.Metadata()
	switch {
	case meta[configKey] == "" || meta[countersKey] == "":
		f.Close()
		return nil, fmt.Errorf("checkpoint: %s was not written by ddpm train: its metadata holds no configuration", path)
	case meta[formatKey] != format:
		f.Close()
		return nil, fmt.Errorf("checkpoint: %s has format %q, this program reads %q: use the version of ddpm that wrote it", path, meta[formatKey], format)
	}
	return &File{Path: path, Config: meta[configKey], counters: meta[countersKey], file: f}, nil
}

// Counters decodes the counters into v.
func (f *File) Counters(v any) error {
	d := json.NewDecoder(strings.NewReader(f.counters))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("checkpoint: counters of %s: %w", f.Path, err)
	}
	return nil
}

// Check reports an error if the checkpoint is of another network than layout. It
// reads nothing but the header.
func (f *File) Check(layout *graph.Layout) error {
	for _, a := range arenas {
		if err := f.check(a, layout); err != nil {
			return err
		}
	}
	return nil
}

func (f *File) check(a graph.Arena, layout *graph.Layout) error {
	prefix := prefixes[a]
	known := make(map[string]bool, len(layout.Params))
	for _, p := range layout.Params {
		name := prefix + p.Name
		known[name] = true
		info, ok := f.file.Tensor(name)
		if !ok {
			return f.another("it lacks %s", name)
		}
		if want := p.TorchShape(); !slices.Equal(info.Shape, want) {
			return f.another("its %s is %v, this network's is %v", name, info.Shape, want)
		}
	}
	for _, name := range f.file.Names() {
		if belongs(name, prefix) && !known[name] {
			return f.another("it holds %s, which this network does not have", name)
		}
	}
	return nil
}

// Arena reads one arena in the order of layout, the layout of the network the
// checkpoint is meant for.
func (f *File) Arena(a graph.Arena, layout *graph.Layout) ([]float32, error) {
	if err := f.check(a, layout); err != nil {
		return nil, err
	}
	arena := make([]float32, layout.Size)
	for _, p := range layout.Params {
		values, err := f.file.ReadFloat32(prefixes[a] + p.Name)
		if err != nil {
			return nil, err
		}
		p.FromTorch(arena[p.Offset:p.Offset+p.Len], values)
	}
	return arena, nil
}

func (f *File) another(format string, args ...any) error {
	return fmt.Errorf("checkpoint: %s is of another architecture: %s", f.Path, fmt.Sprintf(format, args...))
}

// belongs reports whether a tensor is in the arena of a prefix.
func belongs(name, prefix string) bool {
	if prefix != "" {
		return strings.HasPrefix(name, prefix)
	}
	for _, other := range prefixes {
		if other != "" && strings.HasPrefix(name, other) {
			return false
		}
	}
	return !strings.HasPrefix(name, objectivePrefix)
}

// Objective fills in what the objective remembered, and reports whether it could: if the
// checkpoint lacks one of the tensors or has it in another length, as that of another
// objective does, it changes none.
func (f *File) Objective(tensors map[string][]float32) (bool, error) {
	for name, values := range tensors {
		if info, ok := f.file.Tensor(objectivePrefix + name); !ok || !slices.Equal(info.Shape, []int{len(values)}) {
			return false, nil
		}
	}
	for name, values := range tensors {
		if err := f.file.Float32s(objectivePrefix+name, values); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Restore writes everything the checkpoint holds into a training state.
func (f *File) Restore(state graph.State) error {
	for _, a := range arenas {
		values, err := f.Arena(a, state.Layout())
		if err != nil {
			return err
		}
		if err := state.Write(a, values); err != nil {
			return fmt.Errorf("checkpoint: writing the %v: %w", a, err)
		}
	}
	return nil
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

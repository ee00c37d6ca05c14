package trained

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/checkpoint"
	"ddpm/internal/config"
	"ddpm/internal/data"
	"ddpm/internal/data/shapes"
	"ddpm/internal/eval"
	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/picture"
	"ddpm/internal/progress"
	"ddpm/internal/runs"
	"ddpm/internal/sched"
	"ddpm/internal/train"
)

// newRun trains the smallest network there can be for two steps.
func newRun(t *testing.T, b graph.Backend, set ...string) (runs.Dir, *config.Config) {
	t.Helper()
	r, err := config.Load(config.Options{Set: append([]string{
		"seed=4", "model.channels=4", "model.groups=2", "diffusion.t=10",
		"train.steps=2", "train.batch=2", "train.samples=1", "sample.steps=2", "sample.batch=3",
	}, set...)})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "run")
	if err := runs.Create(path); err != nil {
		t.Fatal(err)
	}
	c := &r.Config
	err = train.Run(context.Background(), train.Setup{
		Seed: c.Seed, Data: c.Data, Model: c.Model, Size: c.Size(), Diffusion: c.Diffusion, Train: c.Train,
		Sample: c.Sample.SamplerConfig, Batch: c.Sample.Batch,
		Config: string(config.Marshal(c)), Backend: b, Dir: runs.Dir(path),
		Progress: progress.New(&strings.Builder{}, progress.Options{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return runs.Dir(path), c
}

func newBackend(t *testing.T) graph.Backend {
	b := cpu.New(1, isa.Detect())
	t.Cleanup(func() { b.Close() })
	return b
}

func TestOpen(t *testing.T) {
	b := newBackend(t)
	dir, want := newRun(t, b)
	alone := filepath.Join(t.TempDir(), "copy.safetensors")
	bytes, err := os.ReadFile(dir.Checkpoint(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(alone, bytes, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, name string
		run        runs.Dir
	}{
		{string(dir), "step_0000002", dir},
		{dir.Checkpoint(2), "step_0000002", dir},
		{alone, "copy", ""},
	} {
		m, err := Open(c.path, b)
		if err != nil {
			t.Fatal(err)
		}
		if m.Name() != c.name || m.Run != c.run || m.Step != 2 || !m.Averaged || !reflect.DeepEqual(&m.Config, want) {
			t.Errorf("%s: name %s, run %q, step %d, averaged %t, config %+v", c.path, m.Name(), m.Run, m.Step, m.Averaged, m.Config)
		}
		if m.Size != want.Size() || m.Schedule.T() != 10 || m.Parametrization.String() != "v" || !m.DrawsShapes() {
			t.Errorf("%s: size %v, T %d, prediction %v, shapes %t", c.path, m.Size, m.Schedule.T(), m.Parametrization, m.DrawsShapes())
		}
		f, err := checkpoint.Open(dir.Checkpoint(2))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []graph.Arena{graph.Params, graph.EMA} {
			saved, err := f.Arena(a, m.State.Layout())
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, len(saved))
			if err := m.State.Read(a, got); err != nil || !slices.Equal(got, saved) {
				t.Errorf("%s: the %v are not those of the checkpoint (%v)", c.path, a, err)
			}
		}
		f.Close()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	b := newBackend(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(file, []byte("no model"), 0o666); err != nil {
		t.Fatal(err)
	}
	started := filepath.Join(dir, "started")
	if err := runs.Create(started); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"): "does not exist: name a run's folder",
		dir:                           "is neither a run's folder",
		file:                          "notes.txt",
		started:                       "holds no checkpoint yet",
	} {
		if _, err := Open(path, b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}

func TestEvaluateAndScore(t *testing.T) {
	b := newBackend(t)
	dir, _ := newRun(t, b)
	m, err := Open(string(dir), b)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ds, err := data.Open(m.Config.Data, data.Test)
	if err != nil {
		t.Fatal(err)
	}
	defer ds.Close()
	done := 0
	r, err := m.Evaluate(context.Background(), graph.EMA, ds, Evaluation{Images: 2, Stride: 1, OnProgress: func(d, total int) {
		if done = d; total != 20 {
			t.Errorf("%d evaluations, want 20", total)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	// A fresh network predicts about nothing: the loss is about the target's size.
	if done != 20 || r.Images != 2 || !(r.LSimple > 0.2 && r.LSimple < 2) || !(r.BitsPerDim > r.Prior+r.Decoder) {
		t.Errorf("after %d evaluations: %+v", done, r)
	}
	moments := 0
	s, err := m.ShapesScore(context.Background(), graph.EMA, 4, func(generate.Moment) error { moments++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if s.Images != 4 || s.Score != 0 || moments != 4 { // two batches, two steps
		t.Errorf("%d moments, %v", moments, s)
	}
}

func TestClasses(t *testing.T) {
	b := newBackend(t)
	dir, _ := newRun(t, b, "model.classes=5", "sample.sampler=auto", "sample.guidance=2", "sample.guidance_to=0.5")
	m, err := Open(string(dir), b)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if !slices.Equal(m.Classes, shapes.Classes[:]) {
		t.Errorf("classes %v, want those of shapes", m.Classes)
	}
	if c := m.Sampling(); c.Sampler == sched.Auto || m.Config.Sample.Sampler != sched.Auto {
		t.Errorf("auto is resolved to %q, and the setting to %q", c.Sampler, m.Config.Sample.Sampler)
	}
	const n = 20 // of a network that knows nothing; a few happen to be nearest to their class
	s, err := m.ShapesScore(context.Background(), graph.EMA, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := m.Generator()
	g.Class = func(image int) int { return image % 5 }
	if err := m.Compile(g, graph.EMA, n); err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	asked, images := make([]int, n), []byte(nil)
	for i := range asked {
		asked[i] = g.Class(i)
	}
	err = g.Draw(context.Background(), n, nil, func(_ int, x []float32) error {
		images = append(images, picture.ToBytes(x)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := eval.Score(images, n, asked)
	if err != nil {
		t.Fatal(err)
	}
	if s.Asked == nil || *s.Asked != *want.Asked || s.ClassAccuracy == 0 || !(s.Seconds > 0) {
		t.Errorf("of the asked classes %+v, want %+v; %v s", s.Asked, want.Asked, s.Seconds)
	}
}

// damaged is a set of n images, of which some cannot be read.
type damaged struct {
	n   int
	bad map[int]bool
}

func (d damaged) Info() data.Info { return data.Info{Len: d.n, Width: 1, Height: 1, Channels: 1} }
func (d damaged) Close() error    { return nil }

func (d damaged) Read(i int, dst []byte) (int, error) {
	if d.bad[i] {
		return 0, fmt.Errorf("%d.png: damaged", i)
	}
	dst[0] = byte(i)
	return i, nil
}

func TestReadableStandsInForDamagedImages(t *testing.T) {
	ds := damaged{n: 4, bad: map[int]bool{1: true, 3: true}}
	var told []string
	read := readable(ds, data.Config{MaxSkipped: 2}, func(err error) { told = append(told, err.Error()) })
	dst := make([]byte, 1)
	for range 2 { // told once
		for i, want := range []byte{0, 2, 2, 0} {
			if class, err := read(i, dst); err != nil || dst[0] != want || class != int(want) {
				t.Errorf("image %d: %d, %v, want image %d", i, dst[0], err, want)
			}
		}
	}
	if !slices.Equal(told, []string{"1.png: damaged", "3.png: damaged"}) {
		t.Errorf("told %q", told)
	}
	for name, c := range map[string]struct {
		ds     damaged
		config data.Config
	}{
		"strict":        {ds, data.Config{MaxSkipped: 2, Strict: true}},
		"over limit":    {ds, data.Config{MaxSkipped: 0}},
		"none readable": {damaged{n: 1, bad: map[int]bool{0: true}}, data.Config{MaxSkipped: 9}},
	} {
		read := readable(c.ds, c.config, nil)
		_, first := read(0, dst)
		if _, second := read(1%c.ds.n, dst); errors.Join(first, second) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

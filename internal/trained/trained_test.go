package trained

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/checkpoint"
	"ddpm/internal/config"
	"ddpm/internal/data"
	"ddpm/internal/generate"
	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/gemm"
	"ddpm/internal/progress"
	"ddpm/internal/runs"
	"ddpm/internal/train"
)

// newRun trains the smallest network there can be for two steps.
func newRun(t *testing.T, b graph.Backend) (runs.Dir, *config.Config) {
	t.Helper()
	r, err := config.Load(config.Options{Set: []string{
		"seed=4", "model.channels=4", "model.groups=2", "diffusion.t=10",
		"train.steps=2", "train.batch=2", "train.samples=1", "sample.steps=2", "sample.batch=3",
	}})
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
	b := cpu.New(1, gemm.Detect())
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
		if m.Size != want.Size() || m.Schedule.T() != 10 || m.Prediction.String() != "v" || !m.DrawsShapes() {
			t.Errorf("%s: size %v, T %d, prediction %v, shapes %t", c.path, m.Size, m.Schedule.T(), m.Prediction, m.DrawsShapes())
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
	s, err := m.ShapesScore(context.Background(), graph.EMA, 4, func(generate.Moment) { moments++ })
	if err != nil {
		t.Fatal(err)
	}
	if s.Images != 4 || s.Score != 0 || moments != 4 { // two batches, two steps
		t.Errorf("%d moments, %v", moments, s)
	}
}

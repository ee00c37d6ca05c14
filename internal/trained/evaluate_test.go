package trained

import (
	"context"
	"strings"
	"testing"

	"ddpm/internal/config"
	"ddpm/internal/data"
	"ddpm/internal/eval"
	"ddpm/internal/graph"
	"ddpm/internal/rng"
)

// drawn is a model of random weights.
func drawn(t *testing.T, settings ...string) *Model {
	t.Helper()
	r, err := config.Load(config.Options{Set: append([]string{
		"model.channels=4", "model.groups=2", "model.mult=[1]", "diffusion.t=10", "sample.steps=2", "sample.batch=3",
	}, settings...)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := (&Model{Config: r.Config, backend: newBackend(t)}).load(func(_ graph.Arena, l *graph.Layout) ([]float32, error) {
		values := make([]float32, l.Size)
		rng.Key{Seed: 3, Stream: rng.Init}.Normals(values)
		for i := range values {
			values[i] *= 0.2
		}
		return values, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// relabelled is a data set whose images are of other classes.
type relabelled struct {
	data.Dataset
	classes int
	class   func(class int) int
}

func (r relabelled) Info() data.Info {
	info := r.Dataset.Info()
	info.Classes = make([]string, r.classes)
	return info
}

func (r relabelled) Read(i int, dst []byte) (int, error) {
	class, err := r.Dataset.Read(i, dst)
	return r.class(class), err
}

func measure(t *testing.T, m *Model, change func(data.Dataset) data.Dataset, e Evaluation) (*eval.Report, error) {
	t.Helper()
	ds, err := data.Open(m.Config.Data, data.Test)
	if err != nil {
		t.Fatal(err)
	}
	defer ds.Close()
	if change != nil {
		ds = change(ds)
	}
	e.Images, e.Stride = 4, 3
	return m.Evaluate(context.Background(), graph.EMA, ds, e)
}

func TestEvaluateTakesTheLearnedVariance(t *testing.T) {
	m := drawn(t, "model.learn_sigma=true", "sample.variance=fixed_large")
	seen := map[float64]string{}
	for asked, want := range map[string]string{"": "learned", "learned": "learned", "fixed_small": "fixed_small", "fixed_large": "fixed_large"} {
		r, err := measure(t, m, nil, Evaluation{Variance: asked})
		if err != nil {
			t.Fatal(err)
		}
		if r.Variance != want {
			t.Errorf("asked for %q: measured with %s, want %s", asked, r.Variance, want)
		}
		if other, ok := seen[r.BitsPerDim]; ok && other != want {
			t.Errorf("%s and %s both give %g bits/dim", other, want, r.BitsPerDim)
		}
		seen[r.BitsPerDim] = want
	}

	fixed := drawn(t, "sample.variance=fixed_small")
	if r, err := measure(t, fixed, nil, Evaluation{}); err != nil || r.Variance != "fixed_small" {
		t.Errorf("without a learned variance: %+v, %v, want that of sample.variance", r, err)
	}
	for asked, want := range map[string]string{"learned": "sample.variance learned: want a model with model.learn_sigma", "small": `sample.variance "small"`} {
		if _, err := measure(t, fixed, nil, Evaluation{Variance: asked}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("asked for %q: error %v, want %q", asked, err, want)
		}
	}
}

func TestEvaluateTellsTheClasses(t *testing.T) {
	m := drawn(t, "model.classes=30")
	loss := func(class func(int) int) float64 {
		r, err := measure(t, m, func(ds data.Dataset) data.Dataset { return relabelled{ds, 30, class} }, Evaluation{})
		if err != nil {
			t.Fatal(err)
		}
		return r.LSimple
	}
	own := loss(func(c int) int { return c })
	none := loss(func(int) int { return -1 })
	if own == none || own == loss(func(c int) int { return (c + 1) % 30 }) || none == loss(func(int) int { return 29 }) {
		t.Errorf("L_simple is %g with the classes and %g without: the network was not told", own, none)
	}
	if again := loss(func(int) int { return m.Config.Model.NoClass() }); again != none {
		t.Errorf("L_simple is %g for no class, %g for label -1", again, none)
	}
	_, err := measure(t, m, func(ds data.Dataset) data.Dataset { return relabelled{ds, 31, func(c int) int { return c }} }, Evaluation{})
	if err == nil || !strings.Contains(err.Error(), `data.name "shapes"`) || !strings.Contains(err.Error(), "31 classes and the model knows 30") {
		t.Errorf("data of more classes than the model: %v", err)
	}
}

func TestEvaluateRefusesOtherClasses(t *testing.T) {
	m := Model{Classes: []string{"cat", "dog"}}
	m.Config.Model.Classes = 2
	for _, c := range []struct {
		classes []string
		fine    bool
	}{{nil, true}, {[]string{"cat", "dog"}, true}, {[]string{"dog", "cat"}, false}, {[]string{"cat"}, false}} {
		err := m.checkClasses(data.Info{Name: "folder", Classes: c.classes})
		if (err == nil) != c.fine || err != nil && !strings.Contains(err.Error(), "the model knows cat, dog") {
			t.Errorf("%q: error %v", c.classes, err)
		}
	}
}

package generate

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/model"
	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

var size = model.Size{Height: 4, Width: 8, Channels: 3}

var config = model.Config{
	Block: "resnet", Channels: 4, Mult: []float64{1, 2}, Blocks: 1, MidAttention: true,
	Groups: 2, NormEps: 1e-6, Init: "pytorch", FreqShift: 1,
}

// conditional is the same network, which knows three classes and predicts variances.
func conditional() model.Config {
	c := config
	c.Classes, c.LearnSigma = 3, true
	return c
}

// newState holds random averaged weights.
func newState(t *testing.T, c model.Config) (graph.Backend, graph.State) {
	t.Helper()
	b := cpu.New(1, isa.Detect())
	t.Cleanup(func() { b.Close() })
	layout, err := model.Layout(c, size)
	if err != nil {
		t.Fatal(err)
	}
	state, err := b.NewState(layout, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := state.Write(graph.EMA, layout.InitialWeights(3)); err != nil {
		t.Fatal(err)
	}
	return b, state
}

func newNetwork(t *testing.T, c model.Config, batch int) *Network {
	t.Helper()
	b, state := newState(t, c)
	net, err := NewNetwork(b, state, graph.EMA, c, size, batch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { net.Close() })
	if net.Size() != size || net.Batch() != batch {
		t.Errorf("size %v, batch %d", net.Size(), net.Batch())
	}
	return net
}

// newGenerator draws from a network with random weights.
func newGenerator(t *testing.T, sampler string, batch int) *Generator {
	return compiled(t, config, sampling(sampler), batch)
}

// compiled draws from a network with random weights.
func compiled(t *testing.T, m model.Config, c sched.SamplerConfig, batch int) *Generator {
	t.Helper()
	b, state := newState(t, m)
	g := newPlain(t, c)
	if err := g.Compile(b, state, graph.EMA, m, size, batch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	if g.Reverse.Size() != size || g.Reverse.Batch() != batch {
		t.Errorf("size %v, batch %d", g.Reverse.Size(), g.Reverse.Batch())
	}
	return g
}

// newPlain is not compiled.
func newPlain(t *testing.T, c sched.SamplerConfig) *Generator {
	t.Helper()
	schedule, err := sched.New(sched.Config{T: 20, Schedule: "cosine"})
	if err != nil {
		t.Fatal(err)
	}
	return &Generator{Schedule: schedule, Parametrization: sched.Parametrization{Prediction: sched.V}, Seed: 5, Config: c}
}

// sampling takes four calls of the network.
func sampling(sampler string) sched.SamplerConfig {
	return sched.SamplerConfig{Sampler: sampler, Steps: 4, Spacing: "trailing", Eta: 1, Variance: "fixed_large", Clip: true, Guidance: 1, GuidanceTo: 1}
}

// limited is a device with so many bytes of memory.
type limited struct {
	graph.Backend
	memory int64
}

func (l limited) Memory() int64 { return l.memory }

func TestTooLargeABatchNamesOneThatFits(t *testing.T) {
	b, state := newState(t, config)
	g, err := Graph(sampling("ddim"), config, size, 8)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := graph.Compile(g, limited{b, 0})
	if err != nil {
		t.Fatal(err)
	}
	for memory, want := range map[int64]string{4 * int64(plan.Arena+plan.Kept): "a batch of 8 would fit", 1: "not even one image fits"} {
		_, err := NewReverse(limited{b, memory}, state, graph.EMA, sampling("ddim"), config, size, 33)
		if err == nil || !strings.Contains(err.Error(), "a batch of 33 images: this needs ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v, want %q", memory, err, want)
		}
	}
}

func draw(t *testing.T, g *Generator, n int, noise []float32) []float32 {
	t.Helper()
	var images []float32
	err := g.Draw(context.Background(), n, noise, func(first int, batch []float32) error {
		if first != len(images)/size.Values() {
			t.Errorf("a batch starts at image %d, want %d", first, len(images)/size.Values())
		}
		images = append(images, batch...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != n*size.Values() {
		t.Fatalf("%d values, want %d images", len(images), n)
	}
	return images
}

// ways are all samplers, and all that a step can do beside.
func ways() map[string]way {
	all := map[string]way{}
	for _, sampler := range sched.SamplerNames() {
		all[sampler] = way{config, sampling(sampler)}
		c := sampling(sampler)
		c.Clip, c.Guidance, c.GuidanceFrom, c.GuidanceTo, c.GuidanceRescale = false, 3, 0.3, 0.8, 0.5 // of t = 19, 14, 9 and 4 the middle two
		all[sampler+", guided"] = way{conditional(), c}
	}
	c := sampling("ddpm")
	c.Threshold = 0.8
	all["ddpm, dynamic thresholding"] = way{config, c}
	c.Variance = "learned"
	all["ddpm, dynamic thresholding, learned variance"] = way{conditional(), c}
	return all
}

type way struct {
	m model.Config
	c sched.SamplerConfig
}

func TestImageDependsOnSeedAndNumberAlone(t *testing.T) {
	for name, w := range ways() {
		want := draw(t, compiled(t, w.m, w.c, 5), 5, nil)
		for _, batch := range []int{1, 2, 8} {
			if !slices.Equal(draw(t, compiled(t, w.m, w.c, batch), 5, nil), want) {
				t.Errorf("%s: batches of %d give other images", name, batch)
			}
		}
		if fewer := draw(t, compiled(t, w.m, w.c, 2), 3, nil); !slices.Equal(fewer, want[:len(fewer)]) {
			t.Errorf("%s: the first 3 of 3 are not the first 3 of 5", name)
		}
		if slices.Equal(want[:size.Values()], want[size.Values():2*size.Values()]) {
			t.Errorf("%s: the first two images are equal", name)
		}
		g := compiled(t, w.m, w.c, 5)
		g.Seed++
		if slices.Equal(draw(t, g, 5, nil), want) {
			t.Errorf("%s: another seed gives the same images", name)
		}
	}
}

func TestDrawStartsFromGivenNoise(t *testing.T) {
	g := newGenerator(t, "ddim", 2)
	noise := make([]float32, 3*size.Values())
	g.Prior(noise, 0)
	if !slices.Equal(draw(t, g, 3, noise), draw(t, g, 3, nil)) {
		t.Error("the noise of the prior, given, draws other images")
	}
	for i := range noise {
		noise[i] = -noise[i]
	}
	kept := slices.Clone(noise)
	if slices.Equal(draw(t, g, 3, noise), draw(t, g, 3, nil)) {
		t.Error("other noise draws the same images")
	}
	if !slices.Equal(noise, kept) {
		t.Error("the noise was overwritten")
	}
}

func TestPredictPadsBatches(t *testing.T) {
	values := size.Values()
	x := make([]float32, 5*values)
	rng.Key{Seed: 1, Stream: rng.Noise}.Normals(x)
	steps := []float64{0, 3, 19, 7, 7}
	predict := func(batch int) []float32 {
		out := make([]float32, len(x))
		if err := newNetwork(t, config, batch).Predict(context.Background(), x, steps, nil, out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if !slices.Equal(predict(2), predict(5)) {
		t.Error("the output depends on the batch")
	}
	net := newNetwork(t, config, 2)
	if err := net.Predict(context.Background(), x, steps[:4], nil, x); err == nil {
		t.Error("5 images with 4 timesteps: want an error")
	}
}

func TestMoments(t *testing.T) {
	g := newGenerator(t, "ddim", 2)
	var got []Moment
	g.OnMoment = func(m Moment) error {
		x0, err := m.X0()
		if len(x0) != m.Count*size.Values() || slices.Max(x0) > 1 || slices.Min(x0) < -1 {
			t.Errorf("%d values for %d images, from %v to %v", len(x0), m.Count, slices.Min(x0), slices.Max(x0))
		}
		got = append(got, m)
		return err
	}
	draw(t, g, 3, nil)
	want := []Moment{
		{First: 0, Count: 2, Step: 1, Steps: 4, T: 19}, {First: 0, Count: 2, Step: 2, Steps: 4, T: 14},
		{First: 0, Count: 2, Step: 3, Steps: 4, T: 9}, {First: 0, Count: 2, Step: 4, Steps: 4, T: 4},
		{First: 2, Count: 1, Step: 1, Steps: 4, T: 19}, {First: 2, Count: 1, Step: 2, Steps: 4, T: 14},
		{First: 2, Count: 1, Step: 3, Steps: 4, T: 9}, {First: 2, Count: 1, Step: 4, Steps: 4, T: 4},
	}
	if len(got) != len(want) {
		t.Fatalf("%d moments, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].First != want[i].First || got[i].Count != want[i].Count || got[i].Step != want[i].Step || got[i].T != want[i].T || got[i].Steps != 4 {
			t.Errorf("moment %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestDrawEnds(t *testing.T) {
	g := newGenerator(t, "ddpm", 2)
	ctx, cancel := context.WithCancel(context.Background())
	batches := 0
	err := g.Draw(ctx, 6, nil, func(int, []float32) error {
		batches++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || batches != 1 {
		t.Errorf("after %d batches: %v, want to end after the first", batches, err)
	}
	full := errors.New("full")
	if err := g.Draw(context.Background(), 6, nil, func(int, []float32) error { return full }); !errors.Is(err, full) {
		t.Errorf("got %v, want the error of take", err)
	}
	g.OnMoment = func(Moment) error { return full }
	if err := g.Draw(context.Background(), 6, nil, nil); !errors.Is(err, full) {
		t.Errorf("got %v, want the error of OnMoment", err)
	}
	g.OnMoment = nil
	nan := make([]float32, size.Values())
	nan[5] = float32(math.NaN())
	if err := g.Draw(context.Background(), 1, nan, nil); err == nil || !strings.Contains(err.Error(), "not finite") {
		t.Errorf("noise with a NaN: got %v, want an error", err)
	}
	g.Config.Sampler = "midnight"
	if err := g.Draw(context.Background(), 1, nil, nil); err == nil {
		t.Error("an unknown sampler: want an error")
	}
}

func TestTrajectoryChoosesEvenly(t *testing.T) {
	for steps := 1; steps <= 300; steps++ {
		r := Trajectory{Images: 2, Moments: 10}
		var at []int
		for k := range steps {
			if r.chosen(k, steps) {
				at = append(at, k)
			}
		}
		if want := min(steps, 10); len(at) != want {
			t.Fatalf("%d steps: %d moments %v, want %d", steps, len(at), at, want)
		}
		if at[0] != 0 || at[len(at)-1] != steps-1 {
			t.Errorf("%d steps: moments %v, want the first and the last", steps, at)
		}
		for i := 1; i < len(at); i++ {
			if gap, even := at[i]-at[i-1], (steps-1)/max(1, len(at)-1); gap < even || gap > even+1 {
				t.Errorf("%d steps: moments %v are not evenly spaced", steps, at)
			}
		}
	}
	r := Trajectory{Images: 8, Moments: 10}
	g := newGenerator(t, "ddim", 2)
	g.OnMoment = r.Add
	draw(t, g, 3, nil)
	if len(r.t) != 4 || len(r.x0[0]) != 2*size.Values() {
		t.Errorf("moments %v of %d bytes, want 4 of the 2 images of the first batch", r.t, len(r.x0[0]))
	}
	if got := r.Picture(size).Bounds(); got.Empty() {
		t.Error("the picture is empty")
	}
}

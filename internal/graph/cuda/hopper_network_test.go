//go:build gpu && !cpu

package cuda

import (
	"context"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/rng"
)

// hopperNetwork is a training step of a U-Net that is wide enough for kernels of
// compute capability 9.0: eight images of 8x8 pixels.
func hopperNetwork(t *testing.T) (*graph.Graph, graph.Feeds) {
	const n, size = 8, 8
	config := model.Config{
		Block: "resnet", Channels: 128, Mult: []float64{1}, Blocks: 1,
		Groups: 32, NormEps: 1e-6, Init: "pytorch", FreqShift: 1,
	}
	b := graph.NewBuilder(graph.Float32)
	perSample := func(name string) *graph.Node { return b.Input(name, graph.Float32, n) }
	keys := b.Input("keys", graph.Uint32, n, 4)
	xt, target := b.QSample(rng.Noise, b.Input("images", graph.Uint8, n, size, size, 3), perSample("flip"), keys,
		perSample("signal"), perSample("noise"), perSample("target signal"), perSample("target noise"))
	loss := b.Mean(b.SquaredError(model.UNet(b, config, model.Inputs{X: xt, T: perSample("t"), Keys: keys}), target))
	g, err := b.Finish(loss, map[string]*graph.Node{"loss": loss})
	if err != nil {
		t.Fatal(err)
	}
	feeds := graph.Feeds{"flip": make([]float32, n)}
	for name, value := range map[string]float32{"signal": 0.7, "noise": 0.7, "target signal": 0, "target noise": 1, "t": 400} {
		feeds[name] = slices.Repeat([]float32{value}, n)
	}
	images, words := make([]uint8, n*size*size*3), make([]uint32, n*4)
	for i := range images {
		images[i] = uint8(i * 37)
	}
	for i := range words {
		words[i] = uint32(i)
	}
	feeds["images"], feeds["keys"] = images, words
	return g, feeds
}

// stepsOf runs optimiser steps and returns their losses and norms, and the weights.
func stepsOf(t *testing.T, d *device, g *graph.Graph, feeds graph.Feeds, steps int) (results []graph.StepResult, weights []float32, ran map[string]int) {
	t.Helper()
	b := &Backend{d}
	plan, err := graph.Compile(g, b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.NewState(g.Layout, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	initial := g.Layout.InitialWeights(7)
	for _, a := range []graph.Arena{graph.Params, graph.EMA} {
		if err := s.Write(a, initial); err != nil {
			t.Fatal(err)
		}
	}
	loaded, err := b.LoadStep(plan, s, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	ran = map[string]int{}
	for _, launches := range loaded.(*step).code {
		for _, l := range launches {
			ran[l.kernel]++
		}
	}
	for i := range steps {
		if err := loaded.Stage(0, feeds); err != nil {
			t.Fatal(err)
		}
		u := graph.Update{Step: i + 1, LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Clip: 1, EMADecay: 0.99}
		if err := loaded.Start(context.Background(), u); err != nil {
			t.Fatal(err)
		}
		r, err := loaded.Wait()
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	weights = make([]float32, g.Layout.Size)
	if err := s.Read(graph.Params, weights); err != nil {
		t.Fatal(err)
	}
	return results, weights, ran
}

// TestHopperNetwork trains with the kernels for compute capability 9.0 and with those
// for all GPUs.
func TestHopperNetwork(t *testing.T) {
	g, feeds := hopperNetwork(t)
	d := hopper(t)
	plain := *d
	plain.trust = func(string) bool { return false }
	const steps = 2
	want, _, others := stepsOf(t, &plain, g, feeds, steps)
	got, weights, ran := stepsOf(t, d, g, feeds, steps)
	again, same, _ := stepsOf(t, d, g, feeds, steps)
	if !reflect.DeepEqual(got, again) || !slices.Equal(weights, same) {
		t.Errorf("two runs differ: %v and %v", got, again)
	}
	for i, w := range want {
		t.Logf("step %d: loss %v and %v, norm %v and %v", i, got[i].Loss, w.Loss, got[i].GradNorm, w.GradNorm)
		if off := math.Abs(got[i].Loss/w.Loss - 1); !(off < 2e-3) {
			t.Errorf("step %d: loss %v, want %v", i, got[i].Loss, w.Loss)
		}
		if off := math.Abs(got[i].GradNorm/w.GradNorm - 1); !(off < 2e-2) {
			t.Errorf("step %d: norm %v, want %v", i, got[i].GradNorm, w.GradNorm)
		}
	}
	count := func(of map[string]int, part string) (n int) {
		for name, times := range of {
			if strings.Contains(name, part) {
				n += times
			}
		}
		return n
	}
	for _, part := range []string{"tma_conv_forward", "tma_conv_data", "tma_conv_data_norm", "tma_weight", "norm_stats_found"} {
		if count(ran, part) == 0 {
			t.Errorf("no kernel %s ran", part)
		}
		if n := count(others, part); n > 0 {
			t.Errorf("%d kernels %s ran that are not trusted", n, part)
		}
	}
}

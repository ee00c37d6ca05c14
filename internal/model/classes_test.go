package model

import (
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
	"ddpm/internal/rng"
)

// infer runs a network on the golden inputs, with the golden weights as edit leaves them;
// parameters that the golden network lacks are 0 before.
func (g golden) infer(c Config, class []uint32, edit func(param func(name string) []float32)) []float32 {
	g.t.Helper()
	net, err := Inference(c, Size{Height: goldenSize, Width: goldenSize, Channels: 3}, goldenBatch)
	if err != nil {
		g.t.Fatal(err)
	}
	b := cpu.New(2, isa.Detect())
	g.t.Cleanup(func() { b.Close() })
	plan, err := graph.Compile(net, b)
	if err != nil {
		g.t.Fatal(err)
	}
	arena := make([]float32, net.Layout.Size)
	for _, p := range net.Layout.Params {
		if strings.HasPrefix(p.Name, "class_embedding.") || strings.HasPrefix(p.Name, "conv_out.") {
			continue
		}
		p.FromTorch(arena[p.Offset:p.Offset+p.Len], g.floats(p.Name))
	}
	edit(func(name string) []float32 {
		for _, p := range net.Layout.Params {
			if p.Name == name {
				return arena[p.Offset : p.Offset+p.Len]
			}
		}
		g.t.Fatalf("no parameter %s", name)
		return nil
	})
	state, err := b.NewState(net.Layout, false)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := state.Write(graph.Params, arena); err != nil {
		g.t.Fatal(err)
	}
	program, err := b.Load(plan, state, graph.Params)
	if err != nil {
		g.t.Fatal(err)
	}
	feeds := graph.Feeds{"x": g.nhwc("golden.x"), "t": g.feeds()["t"]}
	if c.Classes > 0 {
		feeds["class"] = class
	}
	if err := program.Run(g.t.Context(), feeds); err != nil {
		g.t.Fatal(err)
	}
	out := make([]float32, plan.Outputs["out"].Len())
	if err := program.Output("out", out); err != nil {
		g.t.Fatal(err)
	}
	return out
}

// A class adds its row of the table to the time embedding, as a bias of it would; none is the
// last row.
func TestClassesShiftTheTimeEmbedding(t *testing.T) {
	g := openGolden(t)
	const dim = 4 * 8
	shift := make([]float32, dim)
	rng.Key{Seed: 1, Stream: rng.Init}.Normals(shift)
	output := func(param func(string) []float32) {
		rng.Key{Seed: 2, Stream: rng.Init}.Normals(param("conv_out.weight"))
	}
	plain := g.infer(tiny, nil, output)
	shifted := g.infer(tiny, nil, func(param func(string) []float32) {
		output(param)
		for i := range shift {
			param("time_embedding.linear_2.bias")[i] += shift[i]
		}
	})

	c := tiny
	c.Classes = 3
	if c.NoClass() != 3 {
		t.Errorf("no class is %d, want 3", c.NoClass())
	}
	rows := func(param func(string) []float32) {
		output(param)
		table := param("class_embedding.weight")
		if len(table) != 4*dim {
			t.Fatalf("a table of %d values, want one row of %d for each class and one for none", len(table), dim)
		}
		copy(table[1*dim:], shift)
	}
	image := len(plain) / goldenBatch
	mixed := append(slices.Clone(plain[:image]), shifted[image:]...)
	for _, test := range []struct {
		class []uint32
		want  []float32
	}{{[]uint32{0, 3}, plain}, {[]uint32{1, 1}, shifted}, {[]uint32{2, 1}, mixed}} {
		if d := worst(g.infer(c, test.class, rows), test.want); d > 1e-5 {
			t.Errorf("classes %v: the output is off by %g", test.class, d)
		}
	}
	if worst(plain, shifted) < 1e-2 {
		t.Error("a shift of the time embedding changes nothing")
	}
}

// The variance is in channels of its own behind the prediction.
func TestLearnedVarianceHasChannelsOfItsOwn(t *testing.T) {
	g := openGolden(t)
	c := tiny
	c.LearnSigma = true
	const in, out = 8, 3
	output := make([]float32, 9*in*out)
	rng.Key{Seed: 2, Stream: rng.Init}.Normals(output)
	want := g.infer(tiny, nil, func(param func(string) []float32) { copy(param("conv_out.weight"), output) })
	got := g.infer(c, nil, func(param func(string) []float32) {
		kernel := param("conv_out.weight") // [3,3,in,2 out]
		for i := range 9 * in {
			copy(kernel[i*2*out:], output[i*out:(i+1)*out])
		}
		copy(param("conv_out.bias")[out:], []float32{1, 2, 3})
	})
	if len(got) != 2*len(want) {
		t.Fatalf("%d values, want twice %d", len(got), len(want))
	}
	for i := range len(want) / out {
		prediction, variance := got[2*i*out:(2*i+1)*out], got[(2*i+1)*out:2*(i+1)*out]
		if d := worst(prediction, want[i*out:(i+1)*out]); d > 1e-5 || !slices.Equal(variance, []float32{1, 2, 3}) {
			t.Fatalf("pixel %d: prediction off by %g, variance %v", i, d, variance)
		}
	}
}

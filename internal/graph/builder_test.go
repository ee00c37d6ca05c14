package graph_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/reference"
	"ddpm/internal/rng"
)

// TestErrorsNameTheirScope builds graphs with one mistake each. What follows it
// must neither panic nor replace the error.
func TestErrorsNameTheirScope(t *testing.T) {
	for _, c := range []struct {
		want  string
		build func(b *graph.Builder, x *graph.Node) // x is [2,4,4,30]
	}{
		{"graph: down.1.norm: group norm: 30 channels not divisible by 8 groups", func(b *graph.Builder, x *graph.Node) {
			norm := b.Scope("down.1").Scope("norm")
			gamma, beta := norm.Param("weight", graph.Vector, graph.Init{}, 30), norm.Param("bias", graph.Vector, graph.Init{}, 30)
			norm.GroupNorm(x, gamma, beta, 8, 1e-5, true)
		}},
		{"graph: add: shapes (2, 4, 4, 30) and (2, 8, 8, 30) differ", func(b *graph.Builder, x *graph.Node) {
			b.Add(x, b.Upsample(x))
		}},
		{`graph: mid: two nodes named "mid.weight"`, func(b *graph.Builder, x *graph.Node) {
			mid := b.Scope("mid")
			mid.Param("weight", graph.Vector, graph.Init{}, 3)
			mid.Param("weight", graph.Vector, graph.Init{}, 3)
		}},
		{`graph: two nodes named "x"`, func(b *graph.Builder, x *graph.Node) { b.Input("x", graph.Float32, 1) }},
		{`graph: two nodes named "x"`, func(b *graph.Builder, x *graph.Node) { b.Param("x", graph.Vector, graph.Init{}, 1) }},
		{"graph: conv: conv2d: weights for 3 channels, input has 30", func(b *graph.Builder, x *graph.Node) {
			conv := b.Scope("conv")
			conv.Conv(graph.Conv2D{Stride: 1}, x, conv.Param("w", graph.ConvWeight, graph.Init{}, 1, 1, 3, 5), conv.Param("b", graph.Vector, graph.Init{}, 5))
		}},
		{"graph: conv2d: a 9x9 kernel does not fit into a 4x4 image", func(b *graph.Builder, x *graph.Node) {
			b.Conv(graph.Conv2D{Stride: 1, Top: 1, Left: 4}, x, b.Param("w", graph.ConvWeight, graph.Init{}, 9, 9, 30, 5), b.Param("b", graph.Vector, graph.Init{}, 5))
		}},
		{"graph: attention: (2, 4, 4, 30) not divisible into 4 heads", func(b *graph.Builder, x *graph.Node) {
			b.Attention(x, x, x, 4)
		}},
		{"graph: squared error: a network's output (2, 4, 4, 30) does not fit images (2, 8, 8, 30): want as many channels, or twice as many", func(b *graph.Builder, x *graph.Node) {
			b.SquaredError(x, b.Upsample(x))
		}},
		{"graph: keys (3, 4), want [2,4]", func(b *graph.Builder, x *graph.Node) {
			b.Dropout(x, b.Input("keys", graph.Uint32, 3, 4), 0.1, rng.Dropout)
		}},
		{"graph: timestep embedding: a frequency shift of 1 leaves dimension 2 no frequency", func(b *graph.Builder, _ *graph.Node) {
			b.TimestepEmbedding(graph.TimestepEmbedding{Dim: 2, FreqShift: 1}, b.Input("t", graph.Float32, 2))
		}},
		{"graph: level.3: my own words", func(b *graph.Builder, _ *graph.Node) { b.Scope("level.3").Failf("my own %s", "words") }},
	} {
		b := graph.NewBuilder(graph.Float32)
		x := b.Input("x", graph.Float32, 2, 4, 4, 30)
		c.build(b, x)
		if b.Err() == nil || b.Err().Error() != c.want {
			t.Errorf("have %q, want %q", b.Err(), c.want)
		}
		first := b.Err()
		y := b.SiLU(b.Add(nil, b.Scope("later").Param("p", graph.Vector, graph.Init{}, 3)))
		b.Failf("another error")
		if y != nil || b.Err() != first {
			t.Errorf("after %q: node %v and error %q", first, y, b.Err())
		}
		if _, err := b.Finish(nil, map[string]*graph.Node{"y": y}); !errors.Is(err, first) {
			t.Errorf("Finish returns %v, want %v", err, first)
		}
	}
}

// TestInferRejects has, for each operation, operands that do not fit.
func TestInferRejects(t *testing.T) {
	image, flat := graph.Shape{2, 4, 4, 6}, graph.Shape{2, 6}
	for _, c := range []struct {
		op graph.Op
		in []graph.Shape
	}{
		{graph.SiLUGrad{}, []graph.Shape{image, flat}},
		{graph.Add{}, []graph.Shape{image, flat}},
		{graph.AddPerSample{}, []graph.Shape{image, {3, 6}}},
		{graph.AddPerSample{}, []graph.Shape{flat, flat}},
		{graph.View{Index: 2}, []graph.Shape{image}},
		{graph.View{Index: 0}, []graph.Shape{{5}}},
		{graph.Upsample{}, []graph.Shape{flat}},
		{graph.Concat{}, []graph.Shape{image, {2, 4, 5, 6}}},
		{graph.Concat{}, []graph.Shape{image, flat}},
		{graph.SliceChannels{From: 3, Width: 4}, []graph.Shape{image}},
		{graph.Linear{}, []graph.Shape{image, {5, 3}, {3}}},
		{graph.Linear{}, []graph.Shape{image, {6, 3}, {4}}},
		{graph.LinearGradData{}, []graph.Shape{{6, 3}, {2, 4}}},
		{graph.LinearGradWeight{}, []graph.Shape{image, {3, 5}}},
		{graph.Conv2D{Stride: 1}, []graph.Shape{flat, {1, 1, 6, 3}, {3}}},
		{graph.Conv2D{Stride: 1}, []graph.Shape{image, {1, 1, 6, 3}, {4}}},
		{graph.Conv2DGradData{Conv2D: graph.Conv2D{Stride: 1}, Height: 4, Width: 4}, []graph.Shape{{1, 1, 6, 3}, {2, 5, 4, 3}}},
		{graph.Attention{Heads: 2}, []graph.Shape{flat, flat, flat}},
		{graph.Attention{Heads: 2}, []graph.Shape{image, image, {2, 4, 4, 8}}},
		{graph.AttentionGrad{Heads: 2}, []graph.Shape{image, image, image, flat}},
		{graph.GroupNormStats{Groups: 2}, []graph.Shape{flat}},
		{graph.GroupNormStats{Groups: 0}, []graph.Shape{image}},
		{graph.GroupNorm{Groups: 2}, []graph.Shape{image, {2, 3, 2}, {6}, {6}}},
		{graph.GroupNorm{Groups: 2}, []graph.Shape{image, {2, 2, 2}, {6}, {5}}},
		{graph.GroupNormGradData{Groups: 2}, []graph.Shape{image, {2, 2, 2}, {6}, {6}, flat}},
		{graph.QSample{}, []graph.Shape{image, {3}, {2, 4}, {2}, {2}, {2}, {2}}},
		{graph.QSample{}, []graph.Shape{image, {2}, {2, 3}, {2}, {2}, {2}, {2}}},
		{graph.QSample{}, []graph.Shape{flat, {2}, {2, 4}, {2}, {2}, {2}, {2}}},
		{graph.QSample{}, []graph.Shape{image, {2}, {2, 4}, {2}, {2}, {2}, {1}}},
		{graph.PSample{}, []graph.Shape{image, flat, {2, 4}, {graph.PSampleCoefs}}},
		{graph.PSample{}, []graph.Shape{image, image, {3, 4}, {graph.PSampleCoefs}}},
		{graph.PSample{}, []graph.Shape{image, image, {2, 4}, {7}}},
		{graph.PSample{}, []graph.Shape{image, {2, 4, 4, 18}, {2, 4}, {graph.PSampleCoefs}}},
		{graph.PSample{Learned: true}, []graph.Shape{image, image, {2, 4}, {graph.PSampleCoefs}}},
		{graph.PSample{Limited: true}, []graph.Shape{image, image, {2, 4}, {graph.PSampleCoefs}}},
		{graph.PSample{Limited: true}, []graph.Shape{image, image, {2, 4}, {graph.PSampleCoefs}, {3}}},
		{graph.PSample{}, []graph.Shape{image, image, {2, 4}, {graph.PSampleCoefs}, image}},
		{graph.PSample{Kept: 1}, []graph.Shape{image, image, {2, 4}, {graph.PSampleCoefs}, image}},
		{graph.PSample{Kept: 1}, []graph.Shape{image, image, {2, 4}, {graph.PSampleCoefs + 5}}},
		{graph.PSample{Kept: 1}, []graph.Shape{image, image, {2, 4}, {graph.PSampleCoefs + 5}, flat}},
		{graph.X0Limit{Quantile: 0.5}, []graph.Shape{image, flat, {graph.PSampleCoefs}}},
		{graph.X0Limit{Quantile: 0.5}, []graph.Shape{image, image, {graph.PSampleCoefs - 1}}},
		{graph.X0Limit{}, []graph.Shape{image, image, {graph.PSampleCoefs}}},
		{graph.X0Limit{Quantile: 1.5}, []graph.Shape{image, image, {graph.PSampleCoefs}}},
		{graph.SquaredError{}, []graph.Shape{image, flat}},
		{graph.SquaredError{}, []graph.Shape{{2, 4, 4, 18}, image}},
		{graph.SquaredError{}, []graph.Shape{image, {2, 4, 4, 12}}},
		{graph.SquaredErrorGrad{}, []graph.Shape{image, {2, 4, 4, 12}, {2}}},
		{graph.VLB{}, []graph.Shape{flat, image, image, {2, graph.VLBCoefs}}},
		{graph.VLB{}, []graph.Shape{image, image, flat, {2, graph.VLBCoefs}}},
		{graph.VLB{}, []graph.Shape{image, image, image, {3, graph.VLBCoefs}}},
		{graph.VLB{}, []graph.Shape{{}, {}, {}, {}}},
		{graph.VLBGrad{}, []graph.Shape{image, image, image, {2, 6}, {2}}},
		{graph.VLBGrad{}, []graph.Shape{image, image, image, {2, graph.VLBCoefs}, {3}}},
		{graph.Weigh{}, []graph.Shape{{2}, {3}}},
		{graph.Weigh{}, []graph.Shape{image, image}},
		{graph.PseudoHuber{}, []graph.Shape{{2}}},
		{graph.PseudoHuber{C: 1}, []graph.Shape{flat}},
		{graph.PseudoHuberGrad{C: 1}, []graph.Shape{{2}, {3}}},
		{graph.Twice{}, []graph.Shape{{}}},
		{graph.Guidance{Channels: 3}, []graph.Shape{{3, 6}, {1}}},
		{graph.Guidance{Channels: 3}, []graph.Shape{image, {2}}},
		{graph.Guidance{Channels: 7}, []graph.Shape{image, {1}}},
		{graph.Guidance{}, []graph.Shape{image, {1}}},
		{graph.Embedding{}, []graph.Shape{image, {2}}},
		{graph.Embedding{}, []graph.Shape{{4, 3}, {2, 1}}},
		{graph.EmbeddingGrad{Rows: 4}, []graph.Shape{{2}, {3, 3}}},
		{graph.EmbeddingGrad{}, []graph.Shape{{2}, {2, 3}}},
		{graph.SquaredError{}, []graph.Shape{{}, {}}},
		{graph.TimestepEmbedding{Dim: 5}, []graph.Shape{{2}}},
		{graph.TimestepEmbedding{Dim: 4}, []graph.Shape{flat}},
	} {
		if s, err := c.op.Infer(c.in); err == nil {
			t.Errorf("%T%+v of %v infers %v, want an error", c.op, c.op, c.in, s)
		}
	}
}

func TestFinishExplainsLosses(t *testing.T) {
	for _, c := range []struct {
		want  string
		build func(b *graph.Builder, w *graph.Node) *graph.Node
	}{
		{"graph: parameter spare.weight does not affect the loss", func(b *graph.Builder, w *graph.Node) *graph.Node {
			b.Scope("spare").Param("weight", graph.Vector, graph.Init{}, 5)
			return b.Mean(b.SiLU(w))
		}},
		{"graph: parameter target does not affect the loss", func(b *graph.Builder, w *graph.Node) *graph.Node {
			return b.Mean(b.SquaredError(w, b.Param("target", graph.Vector, graph.Init{}, 5)))
		}},
		{"graph: the loss has shape (5), want a scalar", func(b *graph.Builder, w *graph.Node) *graph.Node {
			return b.SiLU(w)
		}},
	} {
		b := graph.NewBuilder(graph.Float32)
		loss := c.build(b, b.Param("w", graph.Vector, graph.Init{}, 5))
		if _, err := b.Finish(loss, nil); err == nil || err.Error() != c.want {
			t.Errorf("have %v, want %s", err, c.want)
		}
	}
	b := graph.NewBuilder(graph.Float32)
	want := "graph: a loss, but no parameter to differentiate it by"
	if _, err := b.Finish(b.Mean(b.Input("x", graph.Float32, 5)), nil); err == nil || err.Error() != want {
		t.Errorf("have %v, want %s", err, want)
	}
}

// secretive is an operation whose printed form, and so its hash, hides N.
type secretive struct{ N float64 }

func (secretive) String() string                               { return "secretive" }
func (secretive) Infer(in []graph.Shape) (graph.Shape, error)  { return in[0].Clone(), nil }
func (o secretive) Eval(out graph.Operand, in []graph.Operand) { fill(out.Data, o.N) }

func fill(data []float64, v float64) {
	for i := range data {
		data[i] = v
	}
}

// TestHashCollisions makes nodes of equal hash: they must stay apart, and run
// apart, until there are more than Apply will try.
func TestHashCollisions(t *testing.T) {
	b := graph.NewBuilder(graph.Float64)
	x := b.Input("x", graph.Float64, 3)
	var nodes []*graph.Node
	for i := range 8 {
		n := b.Apply(secretive{float64(i)}, x)
		if b.Err() != nil {
			t.Fatal(b.Err())
		}
		if slices.Contains(nodes, n) {
			t.Fatalf("operation %d was merged with another", i)
		}
		nodes = append(nodes, n)
	}
	if n := b.Apply(secretive{3}, x); n != nodes[3] {
		t.Errorf("an operation that exists was applied anew")
	}
	g := finish(t, b, nil, map[string]*graph.Node{"first": nodes[0], "last": nodes[7]})
	d := define(t, g, feedsFor(g))
	d.run()
	if first, last := d.output("first"), d.output("last"); first[0] != 0 || last[0] != 7 {
		t.Errorf("outputs %v and %v, want 0 and 7", first, last)
	}
	if b.Apply(secretive{8}, x); b.Err() == nil || !strings.Contains(b.Err().Error(), "cannot tell") {
		t.Errorf("the ninth operation of one hash: error %v", b.Err())
	}
}

func TestEqualNodesMergeAndOthersDoNot(t *testing.T) {
	b := graph.NewBuilder(graph.Float32)
	x, y := b.Input("x", graph.Float32, 2, 4, 4, 3), b.Input("y", graph.Float32, 2, 4, 4, 3)
	key, coefs := b.Input("keys", graph.Uint32, 2, 4), b.Input("coefs", graph.Float32, graph.PSampleCoefs)
	for _, c := range []struct {
		what        string
		first, then *graph.Node
		same        bool
	}{
		{"one operation twice", b.SiLU(x), b.SiLU(x), true},
		{"other operands", b.SiLU(x), b.SiLU(y), false},
		{"operands the other way round", b.Concat(x, y), b.Concat(y, x), false},
		{"other attributes", b.View(b.SiLU(x), 0), b.View(b.SiLU(x), 1), false},
		{"dropout of two streams", b.Dropout(x, key, 0.5, rng.Dropout), b.Dropout(x, key, 0.5, rng.Dropout+1), false},
		{"dropout of two rates", b.Dropout(x, key, 0.5, rng.Dropout), b.Dropout(x, key, 0.25, rng.Dropout), false},
		{"one dropout twice", b.Dropout(x, key, 0.5, rng.Dropout), b.Dropout(x, key, 0.5, rng.Dropout), true},
		{"noise of two streams", b.Apply(graph.PSample{Stream: rng.Noise}, x, y, key, coefs), b.Apply(graph.PSample{Stream: rng.Prior}, x, y, key, coefs), false},
		{"operations of one shape", b.SiLU(x), b.Apply(graph.Copy{}, x), false},
	} {
		if b.Err() != nil {
			t.Fatal(b.Err())
		}
		if got := c.first == c.then; got != c.same {
			t.Errorf("%s: one node is %v, want %v", c.what, got, c.same)
		}
	}
}

func TestOpenNamesDevices(t *testing.T) {
	absent := errors.New("no such hardware")
	graph.RegisterBackend("cpu", func(graph.Options) (graph.Backend, error) { return reference.Backend{}, nil })
	graph.RegisterBackend("cuda", func(graph.Options) (graph.Backend, error) { return nil, absent })
	if b, why, err := graph.Open("auto", graph.Options{}); b == nil || !errors.Is(why, absent) || err != nil {
		t.Errorf("auto opens %v, passed over %v, error %v", b, why, err)
	}
	if _, _, err := graph.Open("cuda", graph.Options{}); !errors.Is(err, absent) {
		t.Errorf("a device that is absent: error %v", err)
	}
	_, _, err := graph.Open("tpu", graph.Options{})
	if want := `device "tpu": want one of auto, cpu, cuda`; err == nil || err.Error() != want {
		t.Errorf("have %v, want %s", err, want)
	}
}

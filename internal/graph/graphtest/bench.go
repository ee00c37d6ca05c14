package graphtest

import (
	"context"
	"fmt"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/rng"
)

// workload is where operations of a network are timed: the shapes preset and
// the cifar preset, its batch cut to what a CPU does in a moment.
type workload struct {
	name         string
	batch        int
	levels       [][2]int // height and channels of feature maps
	attention    [2]int
	groups, temb int
}

var workloads = []workload{
	{"shapes", 16, [][2]int{{16, 24}, {8, 48}}, [2]int{8, 48}, 4, 96},
	{"cifar", 4, [][2]int{{32, 128}, {16, 256}, {8, 256}, {4, 256}}, [2]int{16, 256}, 32, 512},
}

// BenchAll times a backend: each operation at the sizes it has in training, and
// training and sampling steps of the shapes preset. Throughput is GFLOP/s where
// multiply-adds dominate and bytes read and written elsewhere. The operations of
// group normalisation include its statistics.
func BenchAll(b *testing.B, be graph.Backend) {
	for _, w := range workloads {
		for _, c := range w.operations() {
			b.Run(w.name+"/"+c.name()[len("ops/"):], func(b *testing.B) { c.bench(b, be) })
		}
	}
	for _, training := range []bool{true, false} {
		name := map[bool]string{true: "training", false: "sampling"}[training]
		b.Run("shapes/network/"+name, func(b *testing.B) { benchNetwork(b, be, training) })
	}
	b.Run("shapes/update", func(b *testing.B) { benchUpdate(b, be) })
}

func (w workload) operations() []opCase {
	var ops []opCase
	add := func(op graph.Op, in ...operand) { ops = append(ops, opCase{op: op, in: in}) }
	convolution := func(op graph.Conv2D, n, h, c, k, r int) {
		x, weight := normal(n, h, h, c), normal(r, r, c, k)
		g, err := op.Geometry(x.shape, weight.shape)
		if err != nil {
			panic(err) // of this table alone
		}
		dy := normal(n, g.OH, g.OW, k)
		add(op, x, weight, normal(k))
		add(graph.Conv2DGradData{Conv2D: op, Height: h, Width: h}, weight, dy)
		add(graph.Conv2DGradWeight{Conv2D: op, R: r, S: r}, x, dy)
	}
	same := graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}
	n := w.batch
	for i, level := range w.levels {
		h, c := level[0], level[1]
		convolution(same, n, h, c, c, 3)
		if i == 0 {
			convolution(same, n, h, 3, c, 3)
			convolution(same, n, h, c, 3, 3)
			convolution(graph.Conv2D{Stride: 1}, n, h, 2*c, c, 1)
			convolution(graph.Conv2D{Stride: 2, Bottom: 1, Right: 1}, n, h, c, c, 3)
		}
	}
	h, c := w.levels[0][0], w.levels[0][1]
	x := normal(n, h, h, c)
	ops = append(ops, groupNorms(x, w.groups, 1e-6, 0)...)
	add(graph.SiLU{}, x)
	add(graph.SiLUGrad{}, x, x)
	add(graph.Add{}, x, x)
	add(graph.AddPerSample{}, x, normal(n, c))
	add(graph.SumPixels{}, x)
	add(graph.SumRows{}, x)
	add(graph.Concat{}, x, x)
	add(graph.SliceChannels{From: c / 2, Width: c / 2}, x)
	add(graph.Upsample{}, normal(n, h/2, h/2, c))
	add(graph.UpsampleGrad{}, x)
	add(graph.Dropout{P: 0.1, Stream: rng.Dropout}, x, keys(n))
	add(graph.Linear{}, normal(n, w.temb), normal(w.temb, c), normal(c))
	add(graph.LinearGradData{}, normal(w.temb, c), normal(n, c))
	add(graph.LinearGradWeight{}, normal(n, w.temb), normal(n, c))
	q := normal(n, w.attention[0], w.attention[0], w.attention[1])
	add(graph.Attention{Heads: 1}, q, q, q)
	add(graph.AttentionGrad{Heads: 1}, q, q, q, q)
	image := normal(n, h, h, 3)
	add(graph.QSample{Stream: rng.Noise}, bytes(n, h, h, 3), flips(n), keys(n), normal(n), normal(n), normal(n), normal(n))
	add(graph.PSample{Stream: rng.Ancestral, Clip: true}, image, image, keys(n), normal(graph.PSampleCoefs))
	add(graph.SquaredError{}, image, image)
	add(graph.SquaredErrorGrad{}, image, image, normal(n))
	both := normal(n, h, h, 6) // with variances
	add(graph.SquaredErrorGrad{}, both, image, normal(n))
	terms := vlbOperands(true, false, n, h, h, 3)
	add(graph.VLB{}, terms...)
	add(graph.VLBGrad{StopMean: true}, append(terms, normal(n))...)
	multistep := graph.PSample{Stream: rng.Ancestral, Learned: true, Limited: true, Kept: 2}
	add(multistep, image, both, keys(n), normal(multistep.Coefs()), limits(n), image, image)
	add(graph.X0Limit{Quantile: 0.995}, image, both, normal(graph.PSampleCoefs))
	add(graph.Guidance{Channels: 3, Rescale: 0.7}, both, values(3))
	add(graph.EmbeddingGrad{Rows: 11}, indices(n, 11), normal(n, w.temb))
	return ops
}

// bench times the operation on operands that lie on the device: as parameters,
// so that feeding them costs nothing.
func (c opCase) bench(b *testing.B, be graph.Backend) {
	builder := graph.NewBuilder(graph.Float32)
	feeds := graph.Feeds{}
	var in []*graph.Node
	var floats [][]float32
	moved := 0
	for i, o := range c.in {
		name := fmt.Sprintf("in%d", i)
		value := o.feed(i)
		if v, ok := value.([]float32); ok {
			in = append(in, builder.Param(name, graph.Vector, graph.Init{}, o.shape...))
			floats = append(floats, v)
			moved += 4 * len(v)
		} else {
			in = append(in, builder.Input(name, o.dtype, o.shape...))
			feeds[name] = value
		}
	}
	g, err := builder.Finish(nil, map[string]*graph.Node{"out": c.apply(builder, in)})
	if err != nil {
		b.Fatal(err)
	}
	weights := make([]float32, g.Layout.Size)
	for i, p := range g.Layout.Params {
		copy(weights[p.Offset:], floats[i])
	}
	moved += 4 * g.Outputs[0].Shape.TotalSize()
	benchRuns(b, be, g, weights, feeds, moved)
}

func benchRuns(b *testing.B, be graph.Backend, g *graph.Graph, weights []float32, feeds graph.Feeds, moved int) {
	s, err := open(be, g, weights)
	if err != nil {
		b.Fatal(err)
	}
	run := func() {
		if err := s.program.Run(context.Background(), feeds); err != nil {
			b.Fatal(err)
		}
	}
	run()
	flops := s.plan.Flops()
	if flops == 0 {
		b.SetBytes(int64(moved))
	}
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
	if flops > 0 {
		b.ReportMetric(float64(flops)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
	}
	if err := s.close(); err != nil {
		b.Error(err)
	}
}

// shapes is the network of the shapes preset.
var shapes = model.Config{
	Block: "resnet", Channels: 24, Mult: []float64{1, 2}, Blocks: 1, MidAttention: true,
	Groups: 4, NormEps: 1e-6, Init: "pytorch", FreqShift: 1,
}

func shapesGraph(training bool) (*graph.Graph, graph.Feeds, error) {
	const batch, size = 16, 16
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, batch, size, size, 3)
	out := model.UNet(b, shapes, model.Inputs{X: x, T: b.Input("t", graph.Float32, batch)})
	feeds := graph.Feeds{"x": normal(batch, size, size, 3).feed(0), "t": timesteps(batch).feed(1)}
	var loss *graph.Node
	if training {
		loss = b.Mean(b.SquaredError(out, b.Input("target", graph.Float32, batch, size, size, 3)))
		feeds["target"] = normal(batch, size, size, 3).feed(2)
	}
	g, err := b.Finish(loss, map[string]*graph.Node{"out": out})
	return g, feeds, err
}

func benchNetwork(b *testing.B, be graph.Backend, training bool) {
	g, feeds, err := shapesGraph(training)
	if err != nil {
		b.Fatal(err)
	}
	benchRuns(b, be, g, g.Layout.InitialWeights(0), feeds, 0)
}

func benchUpdate(b *testing.B, be graph.Backend) {
	g, _, err := shapesGraph(true)
	if err != nil {
		b.Fatal(err)
	}
	s, err := be.NewState(g.Layout, true)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Write(graph.Grads, arena(g.Layout, 1, 1)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(4 * 9 * g.Layout.Size)) // reads five arenas, writes four
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Update(smoothAdam); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Error(err)
	}
}

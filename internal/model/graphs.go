package model

import (
	"fmt"

	"ddpm/internal/graph"
	"ddpm/internal/rng"
)

// Size is the extent of the images a network works on.
type Size struct{ Height, Width, Channels int }

// Values is the number of values of an image.
func (s Size) Values() int { return s.Height * s.Width * s.Channels }

func (s Size) String() string {
	return fmt.Sprintf("%dx%d with %d channels", s.Width, s.Height, s.Channels)
}

// Inference is the graph of the network alone for a batch of n images: inputs
// x [n,H,W,C], t [n] and, of a network with classes, class [n]; output out [n,H,W,C],
// or [n,H,W,2C] with LearnSigma.
func Inference(c Config, s Size, n int) (*graph.Graph, error) {
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, n, s.Height, s.Width, s.Channels)
	out := UNet(b, c, c.inputs(b, x, n))
	return b.Finish(nil, map[string]*graph.Node{"out": out})
}

// inputs declares what the network reads besides n images x.
func (c Config) inputs(b *graph.Builder, x *graph.Node, n int) Inputs {
	in := Inputs{X: x, T: b.Input("t", graph.Float32, n)}
	if c.Classes > 0 {
		in.Class = b.Input("class", graph.Uint32, n)
	}
	return in
}

// Sampling says what a step of the reverse process does beside calling the network.
type Sampling struct {
	Clip     bool    // x_0 to [-1, 1]
	Quantile float64 // of dynamic thresholding, see graph.X0Limit; 0 is none
	Learned  bool    // the noise has the predicted variance
	Kept     int     // values that the sampler keeps from call to call
	Guided   bool    // classifier-free guidance
	Rescale  float64 // of guidance, see graph.Guidance
}

// Reverse is the graph of a step of the reverse process on a batch of n images: inputs
// x [n,H,W,C], t [n], keys [n,4], coefs and kept0, kept1 and so on [n,H,W,C] as graph.PSample
// has them, whose noise is that of rng.Ancestral; class [n] of a network with classes;
// outputs x_prev, x0, kept0 and so on [n,H,W,C].
//
// If Guided, t and class are [2n], of the images with their class and then without, and there is
// an input guidance [1], the weight.
func Reverse(c Config, s Size, n int, o Sampling) (*graph.Graph, error) {
	b := graph.NewBuilder(graph.Float32)
	images := func(name string) *graph.Node {
		return b.Input(name, graph.Float32, n, s.Height, s.Width, s.Channels)
	}
	x := images("x")
	keys := b.Input("keys", graph.Uint32, n, 4)
	op := graph.PSample{
		Stream: rng.Ancestral, Clip: o.Clip, Limited: o.Quantile > 0, Learned: o.Learned, Kept: o.Kept,
	}
	coefs := b.Input("coefs", graph.Float32, op.Coefs())
	var out *graph.Node
	if o.Guided {
		both := UNet(b, c, c.inputs(b, b.Twice(x), 2*n))
		out = b.Guidance(graph.Guidance{Channels: s.Channels, Rescale: o.Rescale}, both, b.Input("guidance", graph.Float32, 1))
	} else {
		out = UNet(b, c, c.inputs(b, x, n))
	}
	var limits *graph.Node
	if op.Limited {
		limits = b.X0Limit(graph.X0Limit{Quantile: o.Quantile}, x, out, coefs)
	}
	kept := make([]*graph.Node, o.Kept)
	for i := range kept {
		kept[i] = images(KeptName(i))
	}
	prev, x0, kept := b.PSample(op, x, out, keys, coefs, limits, kept...)
	outputs := map[string]*graph.Node{"x_prev": prev, "x0": x0}
	for i, k := range kept {
		outputs[KeptName(i)] = k
	}
	return b.Finish(nil, outputs)
}

// KeptName is the name of the i-th kept value among the inputs and the outputs of Reverse.
func KeptName(i int) string { return fmt.Sprintf("kept%d", i) }

// Layout is where the network's parameters are in an arena.
func Layout(c Config, s Size) (*graph.Layout, error) {
	g, err := Inference(c, s, 1)
	if err != nil {
		return nil, err
	}
	return g.Layout, nil
}

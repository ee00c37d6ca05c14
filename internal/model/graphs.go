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
// x [n,H,W,C] and t [n], output out [n,H,W,C].
func Inference(c Config, s Size, n int) (*graph.Graph, error) {
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, n, s.Height, s.Width, s.Channels)
	t := b.Input("t", graph.Float32, n)
	out := UNet(b, c, x, t, nil, s.Channels)
	return b.Finish(nil, map[string]*graph.Node{"out": out})
}

// Reverse is the graph of a step of the reverse process on a batch of n images:
// inputs x [n,H,W,C], t [n], keys [n,4] and coefs as graph.PSample has them, whose
// noise is that of rng.Ancestral; outputs x_prev and x0 [n,H,W,C].
func Reverse(c Config, s Size, n int, clip bool) (*graph.Graph, error) {
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, n, s.Height, s.Width, s.Channels)
	t := b.Input("t", graph.Float32, n)
	keys := b.Input("keys", graph.Uint32, n, 4)
	coefs := b.Input("coefs", graph.Float32, graph.PSampleCoefs)
	out := UNet(b, c, x, t, nil, s.Channels)
	prev, x0 := b.PSample(graph.PSample{Stream: rng.Ancestral, Clip: clip}, x, out, keys, coefs)
	return b.Finish(nil, map[string]*graph.Node{"x_prev": prev, "x0": x0})
}

// Layout is where the network's parameters are in an arena.
func Layout(c Config, s Size) (*graph.Layout, error) {
	g, err := Inference(c, s, 1)
	if err != nil {
		return nil, err
	}
	return g.Layout, nil
}

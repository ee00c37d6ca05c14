// Package generate draws images from a trained network: it runs the network on
// batches of any size, and draws the noise each image starts from and meets on
// its way, as functions of the seed and the image's number alone.
package generate

import (
	"context"
	"fmt"

	"ddpm/internal/graph"
	"ddpm/internal/model"
)

// Network is a U-Net ready for inference.
type Network struct {
	size    model.Size
	batch   int
	program graph.Program
	feeds   graph.Feeds
	x, t    []float32
	out     []float32
}

// NewNetwork compiles the network for batches of up to batch images, on the
// weights, graph.Params or graph.EMA, of a state.
func NewNetwork(b graph.Backend, state graph.State, weights graph.Arena, c model.Config, size model.Size, batch int) (*Network, error) {
	plan, err := compile(b, batch, func(n int) (*graph.Graph, error) { return model.Inference(c, size, n) })
	if err != nil {
		return nil, err
	}
	return Load(b, plan, state, weights)
}

// Load makes a plan of model.Inference ready to run.
func Load(b graph.Backend, plan *graph.Plan, state graph.State, weights graph.Arena) (*Network, error) {
	program, err := b.Load(plan, state, weights)
	if err != nil {
		return nil, err
	}
	out := plan.Outputs["out"].Shape // [N,H,W,C]
	n := &Network{
		size:  model.Size{Height: out[1], Width: out[2], Channels: out[3]},
		batch: out[0], program: program,
		x:   make([]float32, out.TotalSize()),
		t:   make([]float32, out[0]),
		out: make([]float32, out.TotalSize()),
	}
	n.feeds = graph.Feeds{"x": n.x, "t": n.t}
	return n, nil
}

// Size is the extent of the images.
func (n *Network) Size() model.Size { return n.size }

// Batch is the number of images run at once.
func (n *Network) Batch() int { return n.batch }

// Predict fills out with the network's raw output for images x, each of
// Size().Values() values [H,W,C], and the timestep t of each image.
func (n *Network) Predict(ctx context.Context, x []float32, t []int, out []float32) error {
	values := n.size.Values()
	if len(x) != len(t)*values || len(out) != len(x) {
		return fmt.Errorf("generate: %d values for %d images of %d", len(x), len(t), values)
	}
	for from := 0; from < len(t); from += n.batch {
		to := min(from+n.batch, len(t))
		images := copy(n.x, x[from*values:to*values])
		clear(n.x[images:])
		clear(n.t)
		for i, step := range t[from:to] {
			n.t[i] = float32(step)
		}
		if err := n.program.Run(ctx, n.feeds); err != nil {
			return err
		}
		if err := n.program.Output("out", n.out); err != nil {
			return err
		}
		copy(out[from*values:to*values], n.out)
	}
	return nil
}

// Close frees the network's memory on the device.
func (n *Network) Close() error { return n.program.Close() }

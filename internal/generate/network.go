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
	class   []uint32 // nil without classes
	noClass int
	out     []float32 // of the batch
}

// NewNetwork compiles the network for batches of up to batch images, on the
// weights, graph.Params or graph.EMA, of a state.
func NewNetwork(b graph.Backend, state graph.State, weights graph.Arena, c model.Config, size model.Size, batch int) (*Network, error) {
	plan, err := compile(b, batch, func(n int) (*graph.Graph, error) { return model.Inference(c, size, n) })
	if err != nil {
		return nil, err
	}
	return Load(b, plan, state, weights, c)
}

// Load makes a plan of model.Inference ready to run.
func Load(b graph.Backend, plan *graph.Plan, state graph.State, weights graph.Arena, c model.Config) (*Network, error) {
	program, err := b.Load(plan, state, weights)
	if err != nil {
		return nil, err
	}
	out := plan.Outputs["out"].Shape // [N,H,W,C or 2C]
	size := model.Size{Height: out[1], Width: out[2], Channels: out[3]}
	if c.LearnSigma {
		size.Channels /= 2
	}
	n := &Network{
		size: size, batch: out[0], program: program, noClass: c.NoClass(),
		x:   make([]float32, out[0]*size.Values()),
		t:   make([]float32, out[0]),
		out: make([]float32, out.TotalSize()),
	}
	n.feeds = graph.Feeds{"x": n.x, "t": n.t}
	if c.Classes > 0 {
		n.class = make([]uint32, out[0])
		n.feeds["class"] = n.class
	}
	return n, nil
}

// Size is the extent of the images.
func (n *Network) Size() model.Size { return n.size }

// Batch is the number of images run at once.
func (n *Network) Batch() int { return n.batch }

// OutValues is the number of values of the output for an image: those of the image, or
// twice as many where the network predicts variances too.
func (n *Network) OutValues() int { return len(n.out) / n.batch }

// Predict fills out, OutValues() for each image, with the network's raw output for images x, each of
// Size().Values() values [H,W,C], the timestep t of each image and its class, negative for
// none; nil is none for all.
func (n *Network) Predict(ctx context.Context, x []float32, t []float64, class []int, out []float32) error {
	values, outValues := n.size.Values(), n.OutValues()
	if len(x) != len(t)*values || len(out) != len(t)*outValues || class != nil && len(class) != len(t) {
		return fmt.Errorf("generate: %d values and %d classes, for %d results, of %d images of %d", len(x), len(class), len(out), len(t), values)
	}
	for from := 0; from < len(t); from += n.batch {
		to := min(from+n.batch, len(t))
		clear(n.x[copy(n.x, x[from*values:to*values]):])
		clear(n.t)
		for i, step := range t[from:to] {
			n.t[i] = float32(step)
		}
		for i := range n.class {
			n.class[i] = uint32(n.noClass)
			if class != nil && from+i < to && class[from+i] >= 0 {
				n.class[i] = uint32(class[from+i])
			}
		}
		if err := n.program.Run(ctx, n.feeds); err != nil {
			return err
		}
		if err := n.program.Output("out", n.out); err != nil {
			return err
		}
		copy(out[from*outValues:to*outValues], n.out)
	}
	return nil
}

// Close frees the network's memory on the device.
func (n *Network) Close() error { return n.program.Close() }

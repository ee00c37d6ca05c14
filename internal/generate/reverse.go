package generate

import (
	"context"
	"fmt"

	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/sched"
)

// Reverse makes steps of the reverse process on batches of images, which stay on
// the device from the first step to the last.
type Reverse struct {
	size    model.Size
	batch   int
	program graph.Program
	// first are the feeds of the first step, later those of the others, which go
	// on from where the last one ended.
	first, later graph.Feeds
	x, t, coefs  []float32
	keys         []uint32
	started      bool
	values       []float32 // of an output
}

// NewReverse compiles the reverse process of a network for batches of up to batch
// images, on the weights, graph.Params or graph.EMA, of a state. With clip it
// keeps every prediction of x_0 in [-1, 1].
func NewReverse(b graph.Backend, state graph.State, weights graph.Arena, c model.Config, size model.Size, batch int, clip bool) (*Reverse, error) {
	plan, err := compile(b, batch, func(n int) (*graph.Graph, error) { return model.Reverse(c, size, n, clip) })
	if err != nil {
		return nil, err
	}
	return LoadReverse(b, plan, state, weights)
}

// compile plans the graph of a batch of images and checks that it fits; if not, it
// says which batch would.
func compile(b graph.Backend, batch int, build func(n int) (*graph.Graph, error)) (*graph.Plan, error) {
	var tooLarge error
	for n := batch; n > 0; n /= 2 {
		g, err := build(n)
		if err != nil {
			return nil, err
		}
		plan, err := graph.Compile(g, b)
		if err != nil {
			return nil, err
		}
		err = graph.CheckMemory(b, 4*int64(plan.Arena+plan.Kept))
		switch {
		case err == nil && n == batch:
			return plan, nil
		case err == nil:
			return nil, fmt.Errorf("%w: a batch of %d would fit", tooLarge, n)
		case n == batch:
			tooLarge = fmt.Errorf("a batch of %d images: %w", batch, err)
		}
	}
	return nil, fmt.Errorf("%w, and not even one image fits", tooLarge)
}

// LoadReverse makes a plan of model.Reverse ready to run.
func LoadReverse(b graph.Backend, plan *graph.Plan, state graph.State, weights graph.Arena) (*Reverse, error) {
	program, err := b.Load(plan, state, weights)
	if err != nil {
		return nil, err
	}
	x := plan.Outputs["x_prev"].Shape // [N,H,W,C]
	r := &Reverse{
		size:  model.Size{Height: x[1], Width: x[2], Channels: x[3]},
		batch: x[0], program: program,
		x: make([]float32, x.TotalSize()), t: make([]float32, x[0]), coefs: make([]float32, graph.PSampleCoefs),
		keys: make([]uint32, 4*x[0]), values: make([]float32, x.TotalSize()),
	}
	r.first = graph.Feeds{"x": r.x, "t": r.t, "keys": r.keys, "coefs": r.coefs}
	r.later = graph.Feeds{"x": graph.FromOutput("x_prev"), "t": r.t, "keys": r.keys, "coefs": r.coefs}
	return r, nil
}

// Size is the extent of the images.
func (r *Reverse) Size() model.Size { return r.size }

// Batch is the number of images run at once.
func (r *Reverse) Batch() int { return r.batch }

// begin starts a batch from x_T of images first, first+1, ...
func (r *Reverse) begin(x []float32, seed uint64, first int) {
	clear(r.x[copy(r.x, x):])
	for i := range r.batch {
		copy(r.keys[4*i:], []uint32{uint32(seed), uint32(seed >> 32), 0, uint32(first + i)})
	}
	r.started = false
}

// step makes the k-th step.
func (r *Reverse) step(ctx context.Context, k int, step sched.Step, s *sched.Schedule, p sched.Prediction) error {
	for i := range r.batch {
		r.t[i] = float32(step.T)
		r.keys[4*i+2] = uint32(k)
	}
	set := func(at int, value float64) { r.coefs[at] = float32(value) }
	onXt, onOut := p.XStartCoefs(s, step.T)
	set(graph.X0OnXt, onXt)
	set(graph.X0OnOut, onOut)
	onXt, onOut = p.EpsCoefs(s, step.T)
	set(graph.EpsOnXt, onXt)
	set(graph.EpsOnOut, onOut)
	set(graph.PrevOnXt, step.OnXt)
	set(graph.PrevOnX0, step.OnX0)
	set(graph.PrevOnEps, step.OnEps)
	set(graph.PrevOnNoise, step.OnNoise)
	feeds := r.first
	if r.started {
		feeds = r.later
	}
	r.started = true
	return r.program.Run(ctx, feeds)
}

// end copies the images out.
func (r *Reverse) end(x []float32) error {
	values, err := r.output("x_prev", len(x)/r.size.Values())
	copy(x, values)
	return err
}

// output fetches the first n images of an output of the last step.
func (r *Reverse) output(name string, n int) ([]float32, error) {
	err := r.program.Output(name, r.values)
	return r.values[:n*r.size.Values()], err
}

// Close frees the memory on the device.
func (r *Reverse) Close() error { return r.program.Close() }

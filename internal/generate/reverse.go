package generate

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"ddpm/internal/graph"
	"ddpm/internal/model"
	"ddpm/internal/sched"
)

// Reverse makes steps of the reverse process on batches of images, which stay on
// the device from the first step to the last.
type Reverse struct {
	size    model.Size
	batch   int
	classes int  // that the network knows; 0 is none
	guided  bool // each step calls it with the class and without
	program graph.Program
	// first are the feeds of the first step, later those of the others, which go
	// on from where the last one ended.
	first, later graph.Feeds
	x, t, coefs  []float32
	class        []uint32  // nil without classes
	guidance     []float32 // the weight, if guided
	op           graph.PSample
	keys         []uint32
	started      bool
	values       []float32   // of an output
	none         []float32   // what is kept before the first step
	kept         [][]float32 // what is kept by another program, nil before there is one
}

// NewReverse compiles the reverse process of a network for batches of up to batch
// images, on the weights, graph.Params or graph.EMA, of a state.
func NewReverse(b graph.Backend, state graph.State, weights graph.Arena, c sched.SamplerConfig, m model.Config, size model.Size, batch int) (*Reverse, error) {
	plan, err := compile(b, batch, func(n int) (*graph.Graph, error) { return Graph(c, m, size, n) })
	if err != nil {
		return nil, err
	}
	return LoadReverse(b, plan, state, weights, m)
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

// LoadReverse makes a plan of Graph ready to run.
func LoadReverse(b graph.Backend, plan *graph.Plan, state graph.State, weights graph.Arena, m model.Config) (*Reverse, error) {
	program, err := b.Load(plan, state, weights)
	if err != nil {
		return nil, err
	}
	x := plan.Outputs["x_prev"].Shape // [N,H,W,C]
	r := &Reverse{
		size:  model.Size{Height: x[1], Width: x[2], Channels: x[3]},
		batch: x[0], classes: m.Classes, program: program,
		x: make([]float32, x.TotalSize()), keys: make([]uint32, 4*x[0]), values: make([]float32, x.TotalSize()),
	}
	calls := x[0] // of the network, for a step
	for _, in := range plan.Graph.Inputs {
		if in.Name == "guidance" {
			r.guided, r.guidance, calls = true, make([]float32, 1), 2*x[0]
		}
	}
	r.t = make([]float32, calls)
	for plan.Outputs[model.KeptName(r.op.Kept)].Shape != nil {
		r.op.Kept++
	}
	r.coefs = make([]float32, r.op.Coefs())
	r.first = graph.Feeds{"t": r.t, "keys": r.keys, "coefs": r.coefs}
	if r.classes > 0 {
		r.class = slices.Repeat([]uint32{uint32(m.NoClass())}, calls)
		r.first["class"] = r.class
	}
	if r.guided {
		r.first["guidance"] = r.guidance
	}
	r.later = maps.Clone(r.first)
	r.first["x"], r.later["x"] = r.x, graph.FromOutput("x_prev")
	if r.op.Kept > 0 {
		r.none = make([]float32, x.TotalSize())
	}
	for i := range r.op.Kept {
		r.later[model.KeptName(i)] = graph.FromOutput(model.KeptName(i))
	}
	return r, nil
}

// Graph is a step of the reverse process of a network on n images, as a way of sampling
// needs it: with guidance, if there is any. The sampler is one by name, not auto.
func Graph(c sched.SamplerConfig, m model.Config, size model.Size, n int) (*graph.Graph, error) {
	sampler, err := sched.SamplerByName(c.Sampler)
	if err != nil {
		return nil, err
	}
	o := model.Sampling{Clip: c.Clip, Quantile: c.Threshold, Kept: sampler.Kept, Guided: Guided(c, m)}
	if o.Quantile > 0 {
		o.Clip = false
	}
	if o.Guided {
		o.Rescale = c.GuidanceRescale
	}
	if slices.Contains(sampler.Uses, "variance") && c.Variance == sched.Learned.String() {
		if !m.LearnSigma {
			return nil, fmt.Errorf("sample.variance %q: the model predicts no variance (model.learn_sigma): want fixed_small or fixed_large", c.Variance)
		}
		o.Learned = true
	}
	return model.Reverse(m, size, n, o)
}

// Resolve gives c a sampler by name, if it is auto, that suits a network.
func Resolve(c sched.SamplerConfig, d sched.Config, m model.Config) sched.SamplerConfig {
	return c.Resolve(sched.Traits{Consistency: d.Consistency, Learned: m.LearnSigma})
}

// Guided reports whether a way of sampling has classifier-free guidance, for which the
// network runs on each image twice: with its class and without.
func Guided(c sched.SamplerConfig, m model.Config) bool { return m.Classes > 0 && c.Guidance != 1 }

// Size is the extent of the images.
func (r *Reverse) Size() model.Size { return r.size }

// Batch is the number of images run at once.
func (r *Reverse) Batch() int { return r.batch }

// begin starts a batch of images first, first+1, ... from x, which is x_T or where
// something else than a step of this program has led. class gives those of the images,
// negative for none.
func (r *Reverse) begin(x []float32, seed uint64, first int, class func(image int) int) error {
	clear(r.x[copy(r.x, x):])
	for i := range r.batch {
		copy(r.keys[4*i:], []uint32{uint32(seed), uint32(seed >> 32), 0, uint32(first + i)})
	}
	for i := range r.class {
		r.class[i] = uint32(r.classes) // none
		if i >= len(x)/r.size.Values() {
			continue
		}
		switch c := class(first + i); {
		case c >= r.classes:
			return fmt.Errorf("generate: image %d is of class %d: want 0 to %d, or a negative number for none", first+i, c, r.classes-1)
		case c >= 0:
			r.class[i] = uint32(c)
		}
	}
	for i := range r.op.Kept {
		r.first[model.KeptName(i)] = r.none
	}
	r.started = false
	return nil
}

// follow goes on with a batch, of as many images, from where another program with the
// same sampler has led it.
func (r *Reverse) follow(other *Reverse) error {
	if err := other.program.Output("x_prev", r.x); err != nil {
		return err
	}
	copy(r.keys, other.keys)
	copy(r.class[:min(len(r.class), r.batch)], other.class)
	for i := range r.op.Kept {
		if len(r.kept) == i {
			r.kept = append(r.kept, make([]float32, len(r.x)))
		}
		name := model.KeptName(i)
		if err := other.program.Output(name, r.kept[i]); err != nil {
			return err
		}
		r.first[name] = r.kept[i]
	}
	r.started = false
	return nil
}

// step makes the k-th step, with guidance of a weight if guided.
func (r *Reverse) step(ctx context.Context, k int, step sched.Step, p sched.Parametrization, weight float64) error {
	for i := range r.t {
		r.t[i] = float32(step.T)
	}
	for i := range r.batch {
		r.keys[4*i+2] = uint32(k)
	}
	if r.guided {
		r.guidance[0] = float32(weight)
	}
	set := func(at int, value float64) { r.coefs[at] = float32(value) }
	onXt, onOut := p.XStartCoefs(step.Node)
	set(graph.X0OnXt, onXt)
	set(graph.X0OnOut, onOut)
	onXt, onOut = p.EpsCoefs(step.Node)
	set(graph.EpsOnXt, onXt)
	set(graph.EpsOnOut, onOut)
	set(graph.PrevOnXt, step.Prev.OnXt)
	set(graph.PrevOnX0, step.Prev.OnX0)
	set(graph.PrevOnEps, step.Prev.OnEps)
	set(graph.PrevOnNoise, step.Prev.OnNoise)
	set(graph.LogVarMin, step.LogVarMin)
	set(graph.LogVarMax, step.LogVarMax)
	for i := range r.op.Kept {
		set(r.op.KeptCoef(i), step.Prev.OnKept[i])
		row, at := step.Kept[i], r.op.KeptRow(i)
		set(at, row.OnXt)
		set(at+1, row.OnX0)
		set(at+2, row.OnEps)
		for j := range r.op.Kept {
			set(at+3+j, row.OnKept[j])
		}
	}
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

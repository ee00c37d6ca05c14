// Package cpu runs plans on the processor: kernels in Go, and in Go assembly
// where the processor has wide vectors, over a fixed pool of workers. No cgo.
//
// A kernel is bound once: it gets its operands' memory and extents and returns
// the function that runs it, which neither allocates nor decides anything. Its
// work is cut into tasks by extents alone, each output element has one owner,
// and sums run in an order that extents fix; so a result depends on neither the
// number of workers nor on luck. It may depend on the instruction set.
package cpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu/bf16"
	"ddpm/internal/graph/cpu/gemm"
	"ddpm/internal/graph/cpu/isa"
)

func init() {
	graph.RegisterBackend("cpu", func(o graph.Options) (graph.Backend, error) {
		name := os.Getenv("DDPM_CPU")
		set, err := isa.Choose(name)
		if err != nil {
			return nil, err
		}
		b := New(o.Threads, set)
		switch o.Precision {
		case "", graph.FP32:
		case graph.TF32:
			return nil, errors.Join(errors.New("precision tf32 is of NVIDIA GPUs: want fp32 or bf16 on a CPU"), b.Close())
		case graph.BF16:
			kind, err := isa.BF16(set, name != "")
			if err != nil {
				return nil, errors.Join(err, b.Close())
			}
			b.RoundTo(kind)
		}
		return b, nil
	})
}

// Backend is the processor. It implements graph.Backend.
type Backend struct{ *engine }

// New starts a backend of so many threads, 0 for one each core, whose matrix
// kernels use one instruction set.
func New(threads int, set isa.Set) *Backend {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Backend{newEngine(threads, set)}
}

// RoundTo makes the operands of products bfloat16, multiplied by a supported
// family of instructions; see graph.Precision. It is called before plans are
// compiled for the backend.
func (b *Backend) RoundTo(kind isa.BF16Kind) { b.bf16 = bf16.New(kind) }

func (b *Backend) Name() string {
	plural := "s"
	if b.pool.Workers() == 1 {
		plural = ""
	}
	name := fmt.Sprintf("cpu: %v, %d thread%s", b.set, b.pool.Workers(), plural)
	if b.bf16 != nil {
		name += fmt.Sprintf(", bf16 by %v", b.bf16.Kind())
	}
	return name
}

func (b *Backend) Precision() graph.Precision {
	if b.bf16 != nil {
		return graph.BF16
	}
	return graph.FP32
}

// Workspace is the memory of an operation's kernel, in elements.
func (b *Backend) Workspace(op graph.Op, out graph.Shape, in []graph.Shape, keep bool) (scratch, kept int) {
	if k, ok := b.weightsKernel(op, in, keep); ok {
		return k.memory(keep)
	}
	return b.kernel(op, out, in).workspace, 0
}

// Close ends the workers.
func (b *Backend) Close() error {
	b.pool.Close()
	return nil
}

// Load binds every instruction of a plan to its memory.
func (b *Backend) Load(plan *graph.Plan, s graph.State, weights graph.Arena) (graph.Program, error) {
	st, ok := s.(*state)
	if !ok || !st.layout.Equal(plan.Graph.Layout) {
		return nil, fmt.Errorf("cpu: the plan was made for another network than the state")
	}
	if plan.Graph.Trains() && st.arenas[graph.Grads] == nil {
		return nil, fmt.Errorf("cpu: the plan computes gradients, but the state was made without training")
	}
	p := &program{
		plan:    plan,
		state:   st,
		arena:   make([]float32, plan.Arena),
		version: -1,
		weights: st.arenas[weights],
		grads:   st.arenas[graph.Grads],
	}
	kept := make([]float32, gemm.Scratch(plan.Kept))
	p.kept = gemm.Carve(&kept, plan.Kept)
	for _, in := range plan.Graph.Inputs {
		feed := memory{}
		n := graph.Ref{Shape: in.Shape}.Len()
		switch in.DType {
		case graph.Float32:
			feed.floats = make([]float32, n)
		case graph.Uint8:
			feed.bytes = make([]uint8, n)
		case graph.Uint32:
			feed.words = make([]uint32, n)
		default:
			return nil, fmt.Errorf("cpu: input %q: no element type %v", in.Name, in.DType)
		}
		p.feeds = append(p.feeds, feed)
	}
	for _, instruction := range plan.Instructions {
		shapes := make([]graph.Shape, len(instruction.In))
		m := operands{out: p.at(instruction.Out).floats, ws: p.at(instruction.Scratch).floats}
		for i, r := range instruction.In {
			shapes[i] = r.Shape
			m.in = append(m.in, p.at(r))
		}
		keep := instruction.Kept.Len() > 0
		if k, ok := b.weightsKernel(instruction.Op, shapes, keep); ok {
			at, _ := graph.WeightsAt(instruction.Op)
			p.load(k, m, m.f(at), p.at(instruction.Kept).floats)
			continue
		}
		k := b.kernel(instruction.Op, instruction.Out.Shape, shapes)
		if k.bind == nil {
			return nil, fmt.Errorf("cpu: no kernel for %T", instruction.Op)
		}
		p.code = append(p.code, k.bind(m))
	}
	return p, nil
}

// load appends a kernel with weights. They are transformed when they have
// changed, if there is memory to keep them, and else whenever the kernel runs:
// once a step, as a step makes use of each form of a weight once.
func (p *program) load(k weightsKernel, m operands, weights, kept []float32) {
	if k.transform == nil {
		p.code = append(p.code, k.bind(m))
		return
	}
	if len(kept) > 0 {
		m.form = kept
		p.transforms = append(p.transforms, k.transform(kept, weights))
		p.code = append(p.code, k.bind(m))
		return
	}
	m.form = gemm.Carve(&m.ws, k.weights)
	transform, run := k.transform(m.form, weights), k.bind(m)
	p.code = append(p.code, func() {
		transform()
		run()
	})
}

// memory is a value: one of the slices, by its type.
type memory struct {
	floats []float32
	bytes  []uint8
	words  []uint32
}

// operands are the memory of one instruction.
type operands struct {
	out  []float32
	in   []memory
	form []float32 // the weights as the kernel wants them
	ws   []float32
}

// f is the i-th operand, of float32.
func (m operands) f(i int) []float32 { return m.in[i].floats }

// optional is the i-th operand, or nil if there are fewer.
func (m operands) optional(i int) []float32 {
	if i < len(m.in) {
		return m.f(i)
	}
	return nil
}

// program is a plan whose kernels are bound.
type program struct {
	plan    *graph.Plan
	state   *state
	arena   []float32
	kept    []float32
	weights []float32
	grads   []float32
	feeds   []memory
	code    []func()
	// transforms fill kept from the weights of a version of the state.
	transforms []func()
	version    int
}

func (p *program) at(r graph.Ref) memory {
	from, to := r.Offset, r.Offset+r.Len()
	switch r.Space {
	case graph.Kept:
		return memory{floats: p.kept[from:to:to]}
	case graph.Weights:
		return memory{floats: p.weights[from:to:to]}
	case graph.Gradients:
		return memory{floats: p.grads[from:to:to]}
	case graph.Fed:
		return p.feeds[r.Offset]
	case graph.Constant:
		return memory{floats: []float32{float32(r.Value)}}
	}
	return memory{floats: p.arena[from:to:to]}
}

// Run feeds the inputs and runs the code. It stops between two instructions
// when ctx ends.
func (p *program) Run(ctx context.Context, feeds graph.Feeds) error {
	if err := p.begin(feeds); err != nil {
		return err
	}
	for _, run := range p.code {
		if err := ctx.Err(); err != nil {
			return err
		}
		run()
	}
	return nil
}

// begin takes the inputs, and transforms the weights if they have changed.
func (p *program) begin(feeds graph.Feeds) error {
	for i, in := range p.plan.Graph.Inputs {
		from, carried, err := p.plan.Carried(in, feeds)
		if err != nil {
			return err
		}
		if carried {
			copy(p.feeds[i].floats, p.at(from).floats)
			continue
		}
		if err := p.feeds[i].feed(in, feeds); err != nil {
			return err
		}
	}
	if p.version != p.state.version {
		for _, transform := range p.transforms {
			transform()
		}
		p.version = p.state.version
	}
	return nil
}

func (m memory) feed(in graph.Input, feeds graph.Feeds) error {
	switch {
	case m.bytes != nil:
		v, err := graph.Feed[uint8](in, feeds)
		copy(m.bytes, v)
		return err
	case m.words != nil:
		v, err := graph.Feed[uint32](in, feeds)
		copy(m.words, v)
		return err
	}
	v, err := graph.Feed[float32](in, feeds)
	copy(m.floats, v)
	return err
}

func (p *program) Output(name string, dst []float32) error {
	r, ok := p.plan.Outputs[name]
	if !ok {
		return fmt.Errorf("cpu: the program has no output %q", name)
	}
	if len(dst) != r.Len() {
		return fmt.Errorf("cpu: output %q: want room for %d values, have %d", name, r.Len(), len(dst))
	}
	copy(dst, p.at(r).floats)
	return nil
}

func (p *program) Close() error { return nil }

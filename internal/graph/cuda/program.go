//go:build gpu && !cpu

package cuda

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// program is a plan whose launches are bound to memory and captured as one graph
// of the driver. Run queues it and returns; Output waits.
type program struct {
	device  *device
	plan    *graph.Plan
	state   *state
	weights graph.Arena

	memory    kernels.Ptr // all of the program's: activations, inputs, constants
	inputs    []input
	constants map[float32]kernels.Ptr
	feeds     kernels.Ptr   // where the inputs lie, one after the other
	feedBytes int           // of all inputs
	pinned    driver.Pinned // the inputs, on their way
	uploaded  *driver.Event // they have left pinned

	convert []launch   // of inputs that kernels want in another element type
	code    [][]launch // by instruction
	once    []launch   // that make what is kept of the weights
	kept    kernels.Ptr
	made    int // what is kept is of the weights after so many changes
	graph   *driver.Graph

	doRun, doTimed, doOutput, doQueue func() error
	call                              runCall
	narrow                            []uint16 // of an output
	events                            []*driver.Event
}

// runCall are the arguments of a call that runs on the device's thread.
type runCall struct {
	feeds graph.Feeds
	spent []time.Duration
	ref   graph.Ref
	dst   []float32
}

// input is a value that is fed.
type input struct {
	graph.Input
	offset int    // within the feeds, in bytes
	bytes  int    // as fed
	value  tensor // as kernels read it
}

// Load binds every instruction of a plan to its memory.
func (b *Backend) Load(plan *graph.Plan, s graph.State, weights graph.Arena) (graph.Program, error) {
	p, err := b.load(plan, s, weights)
	if err != nil {
		return nil, err
	}
	if err := b.device.Do(p.capture); err != nil {
		return nil, errors.Join(p.explain(err), p.Close())
	}
	return p, nil
}

func (b *Backend) load(plan *graph.Plan, s graph.State, weights graph.Arena) (*program, error) {
	st, ok := s.(*state)
	if !ok || st.device != b.device || !st.layout.Equal(plan.Graph.Layout) {
		return nil, errors.New("cuda: the plan was made for another network than the state")
	}
	if plan.Graph.Trains() && st.arenas[graph.Grads] == 0 {
		return nil, errors.New("cuda: the plan computes gradients, but the state was made without training")
	}
	p := &program{device: b.device, plan: plan, state: st, weights: weights, made: -1, constants: map[float32]kernels.Ptr{}}
	p.doRun, p.doTimed, p.doOutput, p.doQueue = p.runNow, p.timeNow, p.outputNow, p.queue
	if err := b.device.Do(p.bind); err != nil {
		return nil, errors.Join(p.explain(err), p.Close())
	}
	return p, nil
}

// explain adds to an error of too little memory what the plan says.
func (p *program) explain(err error) error {
	if !errors.Is(err, driver.ErrOutOfMemory) {
		return err
	}
	return fmt.Errorf("%w: activations and scratch memory take %s, and %s had %s free when it was opened: a smaller batch, or one in more parts, takes less",
		err, graph.Bytes(4*int64(p.plan.Arena)), p.device.Info.Name, graph.Bytes(p.device.Info.Free))
}

// bind lays out the program's memory, allocates it and binds the launches.
func (p *program) bind() (err error) {
	size := align(4 * p.plan.Arena)
	take := func(bytes int) (offset int) {
		offset = size
		size += align(bytes)
		return offset
	}
	for _, in := range p.plan.Graph.Inputs {
		bytes := graph.Ref{Shape: in.Shape}.Len() * int(in.DType.Size())
		p.inputs = append(p.inputs, input{Input: in, offset: p.feedBytes, bytes: bytes, value: tensor{shape: in.Shape}})
		p.feedBytes += align(bytes)
	}
	feeds := take(p.feedBytes)
	converted := make([]int, len(p.inputs))
	for i, in := range p.inputs {
		if in.DType == graph.Float32 && p.device.stored(in.Shape) {
			p.inputs[i].value.bf16 = true
			converted[i] = take(in.bytes / 2)
		}
	}
	values := p.constantValues()
	constants := take(4 * len(values))
	kept := take(4 * p.plan.Kept)
	if p.memory, err = p.device.Alloc(int64(max(size, 1))); err != nil {
		return err
	}
	p.feeds, p.kept = p.memory+kernels.Ptr(feeds), p.memory+kernels.Ptr(kept)
	for i := range p.inputs {
		in := &p.inputs[i]
		in.value.ptr = p.feeds + kernels.Ptr(in.offset)
		if in.value.bf16 {
			fed := in.value.ptr
			in.value.ptr = p.memory + kernels.Ptr(converted[i])
			p.convert = append(p.convert, p.device.roundLaunches(in.value.ptr, fed, in.value.len())...)
		}
	}
	if err := p.device.stream.Write(p.memory+kernels.Ptr(constants), driver.Bytes(values)); err != nil {
		return err
	}
	for i, v := range values {
		p.constants[v] = p.memory + kernels.Ptr(constants+4*i)
	}
	if p.pinned, err = p.device.AllocPinned(max(p.feedBytes, 1)); err != nil {
		return err
	}
	if p.uploaded, err = p.device.NewEvent(false); err != nil {
		return err
	}
	for _, instruction := range p.plan.Instructions {
		launches, err := p.launches(instruction)
		if err != nil {
			return err
		}
		rest := slices.DeleteFunc(slices.Clone(launches), func(l launch) bool { return l.once })
		if len(rest) < len(launches) {
			p.once = append(p.once, slices.DeleteFunc(launches, func(l launch) bool { return !l.once })...)
		}
		p.code = append(p.code, rest)
	}
	all := slices.Concat(append([][]launch{p.convert, p.once}, p.code...)...)
	if err := p.device.settle(all); err != nil {
		return err
	}
	return p.device.prepareAll(all)
}

// constantValues are the different constants of the plan.
func (p *program) constantValues() []float32 {
	var values []float32
	seen := map[float32]bool{}
	for _, instruction := range p.plan.Instructions {
		for _, r := range instruction.In {
			if v := float32(r.Value); r.Space == graph.Constant && !seen[v] {
				seen[v] = true
				values = append(values, v)
			}
		}
	}
	return values
}

// launches are those of an instruction.
func (p *program) launches(instruction graph.Instruction) ([]launch, error) {
	shapes := make([]graph.Shape, len(instruction.In))
	m := operands{out: p.at(instruction.Out), scratch: p.memory + kernels.Ptr(4*instruction.Scratch.Offset)}
	for i, r := range instruction.In {
		shapes[i] = r.Shape
		m.in = append(m.in, p.at(r))
	}
	if k := instruction.Kept; len(k.Shape) > 0 && k.Len() > 0 {
		m.kept = p.kept + kernels.Ptr(4*k.Offset)
	}
	for _, r := range instruction.Found {
		m.found = append(m.found, p.at(r))
	}
	if a := instruction.Aside; a != nil {
		m.aside = &aside{op: a.Op, out: p.at(a.Out)}
		for _, r := range a.In {
			m.aside.in = append(m.aside.in, p.at(r))
		}
	}
	k, ok := p.device.kernel(instruction.Op, instruction.Out.Shape, shapes)
	if !ok {
		return nil, fmt.Errorf("cuda: no kernel for %T", instruction.Op)
	}
	return k.launches(m), nil
}

// at is the memory of a value.
func (p *program) at(r graph.Ref) tensor {
	t := tensor{shape: r.Shape, bf16: r.DType == graph.BFloat16}
	switch r.Space {
	case graph.Weights:
		t.ptr = p.state.arenas[p.weights] + kernels.Ptr(4*r.Offset)
		if rounded := p.state.rounded[p.weights]; rounded != 0 {
			t.rounded = rounded + kernels.Ptr(2*r.Offset)
		}
	case graph.Gradients:
		t.ptr = p.state.arenas[graph.Grads] + kernels.Ptr(4*r.Offset)
	case graph.Fed:
		return p.inputs[r.Offset].value
	case graph.Constant:
		t.ptr = p.constants[float32(r.Value)]
	default:
		t.ptr = p.memory + kernels.Ptr(4*r.Offset)
	}
	return t
}

// capture makes the graph.
func (p *program) capture() (err error) {
	p.graph, err = p.device.capture(p.doQueue)
	return err
}

// queue launches everything.
func (p *program) queue() error {
	if err := p.device.runAll(p.convert); err != nil {
		return err
	}
	for _, launches := range p.code {
		if err := p.device.runAll(launches); err != nil {
			return err
		}
	}
	return nil
}

// Run uploads the inputs and queues the graph. It returns when the inputs may
// change.
func (p *program) Run(ctx context.Context, feeds graph.Feeds) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.call.feeds = feeds
	err := p.device.Do(p.doRun)
	p.call.feeds = nil
	return err
}

func (p *program) runNow() error {
	if err := p.upload(); err != nil {
		return err
	}
	return p.device.launch(p.graph, p.doQueue)
}

// upload queues the inputs, and weights that changed.
func (p *program) upload() error {
	if err := p.uploaded.Synchronize(); err != nil {
		return err
	}
	if err := p.fill(p.pinned, p.call.feeds); err != nil {
		return err
	}
	stream := p.device.stream
	if err := stream.Upload(p.feeds, p.pinned[:p.feedBytes]); err != nil {
		return err
	}
	if err := stream.Record(p.uploaded); err != nil {
		return err
	}
	for _, in := range p.inputs {
		from, carried, err := p.plan.Carried(in.Input, p.call.feeds)
		if err != nil {
			return err
		}
		if !carried {
			continue
		}
		fed := tensor{ptr: p.feeds + kernels.Ptr(in.offset), shape: in.Shape}
		if err := p.device.copyTo(fed, p.at(from)); err != nil {
			return err
		}
	}
	if err := p.state.refresh(p.weights); err != nil {
		return err
	}
	if changes := p.state.changes[p.weights]; len(p.once) > 0 && p.made != changes {
		p.made = changes
		return p.device.runAll(p.once)
	}
	return nil
}

// copyTo queues a copy of a value, whose element type may differ.
func (d *device) copyTo(to, from tensor) error {
	if !from.bf16 {
		return d.stream.Copy(to.ptr, from.ptr, int64(4*from.len()))
	}
	k, _ := d.kernel(graph.Copy{}, to.shape, []graph.Shape{from.shape})
	return d.runAll(k.launches(operands{out: to, in: []tensor{from}}))
}

// fill copies the values that the host feeds to where they are uploaded from.
func (p *program) fill(to []byte, feeds graph.Feeds) error {
	for _, in := range p.inputs {
		if _, carried, err := p.plan.Carried(in.Input, feeds); carried {
			if err != nil {
				return err
			}
			continue
		}
		var from []byte
		switch in.DType {
		case graph.Uint8:
			v, err := graph.Feed[uint8](in.Input, feeds)
			if err != nil {
				return err
			}
			from = v
		case graph.Uint32:
			v, err := graph.Feed[uint32](in.Input, feeds)
			if err != nil {
				return err
			}
			from = driver.Bytes(v)
		default:
			v, err := graph.Feed[float32](in.Input, feeds)
			if err != nil {
				return err
			}
			from = driver.Bytes(v)
		}
		copy(to[in.offset:], from)
	}
	return nil
}

// RunTimed runs the instructions one by one, with the device's clock between them.
func (p *program) RunTimed(ctx context.Context, feeds graph.Feeds, spent []time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.call.feeds, p.call.spent = feeds, spent
	err := p.device.Do(p.doTimed)
	p.call.feeds, p.call.spent = nil, nil
	return err
}

func (p *program) timeNow() error {
	stream := p.device.stream
	for len(p.events) <= len(p.code) {
		e, err := p.device.NewEvent(true)
		if err != nil {
			return err
		}
		p.events = append(p.events, e)
	}
	if err := p.upload(); err != nil {
		return err
	}
	if err := p.device.runAll(p.convert); err != nil {
		return err
	}
	for i, launches := range p.code {
		if err := stream.Record(p.events[i]); err != nil {
			return err
		}
		if err := p.device.runAll(launches); err != nil {
			return err
		}
	}
	if err := stream.Record(p.events[len(p.code)]); err != nil {
		return err
	}
	if err := stream.Synchronize(); err != nil {
		return err
	}
	for i := range p.code {
		var err error
		if p.call.spent[i], err = driver.Elapsed(p.events[i], p.events[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) Output(name string, dst []float32) error {
	r, ok := p.plan.Outputs[name]
	if !ok {
		return fmt.Errorf("cuda: the program has no output %q", name)
	}
	if len(dst) != r.Len() {
		return fmt.Errorf("cuda: output %q: want room for %d values, have %d", name, r.Len(), len(dst))
	}
	p.call.ref, p.call.dst = r, dst
	err := p.device.Do(p.doOutput)
	p.call.dst = nil
	return err
}

func (p *program) outputNow() error {
	t, dst := p.at(p.call.ref), p.call.dst
	if !t.bf16 {
		return p.device.stream.Read(driver.Bytes(dst), t.ptr)
	}
	if cap(p.narrow) < len(dst) {
		p.narrow = make([]uint16, len(dst))
	}
	narrow := p.narrow[:len(dst)]
	if err := p.device.stream.Read(driver.Bytes(narrow), t.ptr); err != nil {
		return err
	}
	for i, bits := range narrow {
		dst[i] = math.Float32frombits(uint32(bits) << 16)
	}
	return nil
}

// Close frees the program's memory.
func (p *program) Close() error {
	return p.device.Release(func() error {
		errs := []error{p.device.stream.Synchronize()}
		if p.graph != nil {
			errs = append(errs, p.graph.Destroy())
		}
		for _, e := range append(p.events, p.uploaded) {
			if e != nil {
				errs = append(errs, e.Destroy())
			}
		}
		errs = append(errs, p.device.FreePinned(p.pinned), p.device.Free(p.memory))
		p.graph, p.events, p.uploaded, p.pinned, p.memory = nil, nil, nil, nil, 0
		return errors.Join(errs...)
	})
}

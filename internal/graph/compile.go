package graph

import (
	"cmp"
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
)

// Space says which memory a value lives in.
type Space int

const (
	Activations Space = iota // the plan's own arena, at Ref.Offset
	Weights                  // the parameters the program was loaded on
	Gradients                // the state's gradient arena
	Fed                      // the input of index Ref.Offset
	Constant                 // the scalar Ref.Value
	Kept                     // what kernels made of the weights; the plan's own
)

// Ref is a value's place.
type Ref struct {
	Space  Space
	Offset int // in words; for Fed, the index of the input
	Shape  Shape
	DType  DType
	Value  float64 // of a Constant
}

// Len is the number of elements.
func (r Ref) Len() int { return elements(r.Shape) }

// Words is the memory the value takes, in elements of the graph's DType; a word
// holds two of BFloat16.
func (r Ref) Words() int { return words(r.Shape, r.DType) }

func words(s Shape, dt DType) int {
	if dt == BFloat16 {
		return (elements(s) + 1) / 2
	}
	return elements(s)
}

// Instruction applies one operation.
type Instruction struct {
	Op  Op
	In  []Ref
	Out Ref
	// Scratch is memory in the activation arena for this instruction alone.
	Scratch Ref
	// Kept is memory for what the kernel makes of the weights.
	Kept Ref
	// Aside is what the kernel computes beside the result, nil for nothing.
	Aside *Aside
	// Found is what others computed aside of this operation, in the order of the
	// operands that they computed; none if nobody did.
	Found []Ref
}

// Plan is a compiled graph: instructions in order, over memory that is fully
// assigned. It belongs to no device, but its scratch memory was sized for one.
type Plan struct {
	Graph        *Graph
	Instructions []Instruction
	Outputs      map[string]Ref
	// Arena is the size, in words, of the activations and scratch memory.
	Arena int
	// Separate is what the arena would be if no memory were used twice.
	Separate int
	// Kept is the size, in words, of the weights as kernels want them, which
	// are made again only when the weights change.
	Kept int
}

// Flops is the number of floating-point operations of one run, two for each
// multiply-add of convolutions, linear layers and attention.
func (p *Plan) Flops() int64 {
	var total int64
	for _, in := range p.Instructions {
		if op, ok := in.Op.(Costed); ok {
			shapes := make([]Shape, len(in.In))
			for i, r := range in.In {
				shapes[i] = r.Shape
			}
			total += op.Flops(in.Out.Shape, shapes)
		}
	}
	return total
}

// buffer is memory in the activation arena, used from instruction first to
// instruction last.
type buffer struct {
	size, first, last int
	offset            int
}

// compiler carries the state of one Compile.
type compiler struct {
	graph *Graph
	plan  *Plan
	// place is each node's value; for Activations, Offset counts from the
	// start of its buffer until the arena is laid out.
	place   map[*Node]Ref
	owner   map[*Node]*buffer
	uses    map[*Node]int
	buffers []*buffer
	homes   []homes // by instruction
	left    map[*step]*aside
	found   map[*step][]*aside
}

// homes are the buffers that the places of an instruction are in.
type homes struct {
	in           []*buffer
	out, scratch *buffer
	asideIn      []*buffer
	aside        *buffer
	found        []*buffer
}

// Compile orders the graph's operations, drops those that no output or gradient
// needs, merges those the backend can run as one, see Fusing, and assigns
// memory: a value's memory is used again after its last use.
// Nodes run in the order they were created, forward before backward, so the
// plan is the same in every process.
func Compile(g *Graph, b Backend) (*Plan, error) {
	c := &compiler{
		graph: g,
		plan:  &Plan{Graph: g, Outputs: make(map[string]Ref)},
		place: make(map[*Node]Ref),
		owner: make(map[*Node]*buffer),
		uses:  make(map[*Node]int),
	}
	steps, err := c.steps()
	if err != nil {
		return nil, err
	}
	if g.Recompute {
		steps = recompute(steps, g.loss)
	}
	if f, ok := b.(Fusing); ok {
		steps = fuse(steps, c.ends(), f)
	}
	if l, ok := b.(Leaving); ok {
		c.left, c.found = leave(steps, l)
	}
	c.countUses(steps)
	c.leaves()
	home := c.gradientHomes()
	for _, s := range steps {
		if err := c.emit(s, home, b); err != nil {
			return nil, err
		}
	}
	c.finish()
	c.layout()
	return c.plan, nil
}

// steps returns the operations that are needed, operands first.
func (c *compiler) steps() ([]*step, error) {
	needed := map[*Node]bool{}
	var steps []*step
	var visit func(n *Node) error
	visit = func(n *Node) error {
		if needed[n] {
			return nil
		}
		needed[n] = true
		in := children(c.graph.expr, n)
		for _, child := range in {
			if child.ID() >= n.ID() {
				return fmt.Errorf("graph: node %v is older than its operand %v", n, child)
			}
			if err := visit(child); err != nil {
				return err
			}
		}
		op, err := opOf(n)
		steps = append(steps, &step{op, n, in})
		return err
	}
	for _, n := range c.ends() {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(steps, func(a, b *step) int { return cmp.Compare(a.node.ID(), b.node.ID()) })
	return steps, nil
}

// countUses counts how often every node is read.
func (c *compiler) countUses(steps []*step) {
	for _, s := range steps {
		for _, n := range s.in {
			c.uses[n]++
		}
	}
	for _, n := range c.ends() {
		c.uses[n]++
	}
}

// ends are the nodes whose values are wanted.
func (c *compiler) ends() []*Node {
	var ends []*Node
	for _, o := range c.graph.Outputs {
		ends = append(ends, o.node)
	}
	return append(ends, c.graph.grads...)
}

func (c *compiler) leaves() {
	for i, in := range c.graph.Inputs {
		c.place[in.node] = Ref{Space: Fed, Offset: i, Shape: in.Shape, DType: in.DType}
	}
	for i, p := range c.graph.Layout.Params {
		c.place[c.graph.params[i]] = Ref{Space: Weights, Offset: p.Offset, Shape: p.Shape, DType: c.graph.DType}
	}
}

// gradientHomes maps a node to the parameter whose gradient it is. A node that
// is the gradient of two parameters belongs to the first; finish copies it to
// the other.
func (c *compiler) gradientHomes() map[*Node]int {
	home := map[*Node]int{}
	for i, n := range c.graph.grads {
		if _, taken := home[n]; !taken {
			home[n] = i
		}
	}
	return home
}

func (c *compiler) gradient(i int) Ref {
	p := c.graph.Layout.Params[i]
	return Ref{Space: Gradients, Offset: p.Offset, Shape: p.Shape, DType: c.graph.DType}
}

func (c *compiler) emit(s *step, home map[*Node]int, b Backend) error {
	n := s.node
	if _, isLeaf := c.place[n]; isLeaf {
		return nil
	}
	if s.op == nil {
		value, ok := n.Value().(gorgonia.Scalar)
		if !ok {
			return fmt.Errorf("graph: %v is neither an operation nor a scalar constant", n)
		}
		c.place[n] = Ref{Space: Constant, DType: c.graph.DType, Value: toFloat64(value)[0]}
		return nil
	}
	now := len(c.plan.Instructions)
	if view, ok := s.op.(View); ok {
		if c.place[s.in[0]].Space == Fed {
			return fmt.Errorf("graph: %v is a view of an input: apply Copy to the input first", n)
		}
		c.alias(n, s.in[0], view.Index*words(n.Shape(), c.place[s.in[0]].DType))
		return nil
	}
	in := Instruction{Op: s.op, Out: Ref{Shape: n.Shape(), DType: c.stored(s.op, n.Shape(), b)}}
	shapes := shapesOf(s.in)
	for _, operand := range s.in {
		in.In = append(in.In, c.place[operand])
		c.uses[operand]--
		if o := c.owner[operand]; o != nil {
			o.last = max(o.last, now)
		}
	}
	size := in.Out.Words()
	c.plan.Separate += align(size)
	out := c.reusable(s, size)
	switch i, isGradient := home[n]; {
	case isGradient:
		in.Out = c.gradient(i)
		out = nil
	case out == nil:
		out = c.allocate(size, now)
	}
	c.place[n], c.owner[n] = in.Out, out
	at, weighted := WeightsAt(s.op)
	keep := c.graph.KeepWeights && weighted && in.In[at].Space == Weights
	scratch, kept := b.Workspace(s.op, n.Shape(), shapes, keep)
	in.Scratch = Ref{Shape: Shape{scratch}, DType: c.graph.DType}
	in.Kept = Ref{Space: Kept, Offset: c.plan.Kept, Shape: Shape{kept}, DType: c.graph.DType}
	c.plan.Kept += align(kept)
	h := homes{in: c.owners(s.in), out: out}
	if scratch > 0 {
		h.scratch = c.allocate(scratch, now)
	}
	c.addAside(s, &in, &h)
	c.push(in, h)
	return nil
}

// addAside gives memory to what a step leaves, and what it finds to the step. The
// reader's operands are there until the reader has run.
func (c *compiler) addAside(s *step, in *Instruction, h *homes) {
	now := len(c.plan.Instructions)
	if a := c.left[s]; a != nil {
		a.buffer = c.allocate(a.size, now)
		h.aside, h.asideIn = a.buffer, c.owners(a.in)
		in.Aside = &Aside{Op: a.op, Out: Ref{Shape: Shape{a.size}, DType: c.graph.DType}}
		for _, operand := range a.in {
			in.Aside.In = append(in.Aside.In, c.place[operand])
		}
		c.plan.Separate += align(a.size)
	}
	for _, a := range c.found[s] {
		a.buffer.last = max(a.buffer.last, now)
		h.found = append(h.found, a.buffer)
		in.Found = append(in.Found, Ref{Shape: Shape{a.size}, DType: c.graph.DType})
	}
}

// owners are the buffers of nodes, nil for those elsewhere.
func (c *compiler) owners(nodes []*Node) []*buffer {
	owners := make([]*buffer, len(nodes))
	for i, n := range nodes {
		owners[i] = c.owner[n]
	}
	return owners
}

// stored is the element type of what op computes.
func (c *compiler) stored(op Op, out Shape, b Backend) DType {
	if s, ok := b.(Storing); ok {
		return s.Stored(op, out)
	}
	return c.graph.DType
}

// push appends an instruction and remembers the buffers its places are in.
func (c *compiler) push(in Instruction, h homes) {
	c.homes = append(c.homes, h)
	c.plan.Instructions = append(c.plan.Instructions, in)
}

func (c *compiler) allocate(size, now int) *buffer {
	b := &buffer{size: align(size), first: now, last: now}
	c.buffers = append(c.buffers, b)
	return b
}

// alias places n inside the memory of its operand, offset elements from its
// start.
func (c *compiler) alias(n, operand *Node, offset int) {
	r := c.place[operand]
	r.Offset += offset
	r.Shape = n.Shape()
	c.place[n], c.owner[n] = r, c.owner[operand]
}

// reusable returns the buffer of the operand that a step may overwrite, if any:
// nothing reads it later, and it is all of its buffer.
func (c *compiler) reusable(s *step, size int) *buffer {
	at := 0
	switch s.op.(type) {
	case InPlace:
	case Plus:
		at = len(s.in) - 1
	default:
		return nil
	}
	operand := s.in[at]
	b := c.owner[operand]
	if b == nil || b.size != align(size) || c.uses[operand] > 0 || c.place[operand].Offset != 0 {
		return nil
	}
	if parent, _ := opOf(operand); parent != nil {
		if _, isView := parent.(View); isView {
			return nil
		}
	}
	for i, other := range s.in {
		if i != at && c.owner[other] == b {
			return nil
		}
	}
	return b
}

// finish copies gradients that are not at their home yet, and keeps the
// outputs to the end.
func (c *compiler) finish() {
	for i, n := range c.graph.grads {
		want := c.gradient(i)
		if r := c.place[n]; r.Space == Gradients && r.Offset == want.Offset {
			continue
		}
		if o := c.owner[n]; o != nil {
			o.last = max(o.last, len(c.plan.Instructions))
		}
		c.push(Instruction{Op: Copy{}, In: []Ref{c.place[n]}, Out: want}, homes{in: []*buffer{c.owner[n]}})
	}
	for _, o := range c.graph.Outputs {
		if b := c.owner[o.node]; b != nil {
			b.last = len(c.plan.Instructions)
		}
		c.plan.Outputs[o.Name] = c.place[o.node]
	}
}

// layout assigns offsets, the largest buffer first, each at the lowest place
// that is free for as long as the buffer is used; then it turns offsets within
// buffers into offsets within the arena.
func (c *compiler) layout() {
	bySize := slices.Clone(c.buffers)
	slices.SortStableFunc(bySize, func(a, b *buffer) int {
		return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.first, b.first))
	})
	var placed []*buffer // by offset
	for _, b := range bySize {
		for _, other := range placed {
			overlaps := b.first <= other.last && other.first <= b.last
			if overlaps && other.offset < b.offset+b.size && b.offset < other.offset+other.size {
				b.offset = other.offset + other.size
			}
		}
		at, _ := slices.BinarySearchFunc(placed, b, func(a, b *buffer) int { return cmp.Compare(a.offset, b.offset) })
		placed = slices.Insert(placed, at, b)
		c.plan.Arena = max(c.plan.Arena, b.offset+b.size)
	}
	for i := range c.plan.Instructions {
		in, h := &c.plan.Instructions[i], c.homes[i]
		relocateAll(in.In, h.in)
		relocate(&in.Out, h.out)
		relocate(&in.Scratch, h.scratch)
		if in.Aside != nil {
			relocateAll(in.Aside.In, h.asideIn)
			relocate(&in.Aside.Out, h.aside)
		}
		relocateAll(in.Found, h.found)
	}
	for _, o := range c.graph.Outputs {
		r := c.plan.Outputs[o.Name]
		relocate(&r, c.owner[o.node])
		c.plan.Outputs[o.Name] = r
	}
}

func relocate(r *Ref, b *buffer) {
	if b != nil {
		r.Offset += b.offset
	}
}

func relocateAll(refs []Ref, buffers []*buffer) {
	for i := range refs {
		relocate(&refs[i], buffers[i])
	}
}

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
)

// Ref is a value's place.
type Ref struct {
	Space  Space
	Offset int // in elements; for Fed, the index of the input
	Shape  Shape
	DType  DType
	Value  float64 // of a Constant
}

// Len is the number of elements.
func (r Ref) Len() int { return elements(r.Shape) }

// Instruction applies one operation.
type Instruction struct {
	Op  Op
	In  []Ref
	Out Ref
	// Scratch is memory in the activation arena for this instruction alone.
	Scratch Ref
}

// Plan is a compiled graph: instructions in order, over memory that is fully
// assigned. It belongs to no device, but its scratch memory was sized for one.
type Plan struct {
	Graph        *Graph
	Instructions []Instruction
	Outputs      map[string]Ref
	// Arena is the size, in elements, of the activations and scratch memory.
	Arena int
	// Separate is what the arena would be if no memory were used twice.
	Separate int
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
	homes   [][]*buffer
}

// Compile orders the graph's operations, drops those that no output or gradient
// needs, and assigns memory: a value's memory is used again after its last use.
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
	order, err := c.order()
	if err != nil {
		return nil, err
	}
	c.leaves()
	home := c.gradientHomes()
	for _, n := range order {
		if err := c.emit(n, home, b); err != nil {
			return nil, err
		}
	}
	c.finish()
	c.layout()
	return c.plan, nil
}

// order returns the operations that are needed, operands first, and counts the
// uses of every node.
func (c *compiler) order() ([]*Node, error) {
	needed := map[*Node]bool{}
	var order []*Node
	var visit func(n *Node) error
	visit = func(n *Node) error {
		c.uses[n]++
		if needed[n] {
			return nil
		}
		needed[n] = true
		for _, child := range children(c.graph.expr, n) {
			if child.ID() >= n.ID() {
				return fmt.Errorf("graph: node %v is older than its operand %v", n, child)
			}
			if err := visit(child); err != nil {
				return err
			}
		}
		order = append(order, n)
		return nil
	}
	for _, n := range c.ends() {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(order, func(a, b *Node) int { return cmp.Compare(a.ID(), b.ID()) })
	return order, nil
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

func (c *compiler) emit(n *Node, home map[*Node]int, b Backend) error {
	if _, isLeaf := c.place[n]; isLeaf {
		return nil
	}
	op, err := opOf(n)
	if err != nil {
		return err
	}
	if op == nil {
		value, ok := n.Value().(gorgonia.Scalar)
		if !ok {
			return fmt.Errorf("graph: %v is neither an operation nor a scalar constant", n)
		}
		c.place[n] = Ref{Space: Constant, DType: c.graph.DType, Value: toFloat64(value)[0]}
		return nil
	}
	operands := children(c.graph.expr, n)
	now := len(c.plan.Instructions)
	if view, ok := op.(View); ok {
		if c.place[operands[0]].Space == Fed {
			return fmt.Errorf("graph: %v is a view of an input: apply Copy to the input first", n)
		}
		c.alias(n, operands[0], view.Index*elements(n.Shape()))
		return nil
	}
	in := Instruction{Op: op, Out: Ref{Shape: n.Shape(), DType: c.graph.DType}}
	shapes := make([]Shape, len(operands))
	for i, operand := range operands {
		in.In = append(in.In, c.place[operand])
		shapes[i] = operand.Shape()
		c.uses[operand]--
		if o := c.owner[operand]; o != nil {
			o.last = max(o.last, now)
		}
	}
	size := elements(n.Shape())
	c.plan.Separate += align(size)
	out := c.reusable(op, operands, size)
	switch i, isGradient := home[n]; {
	case isGradient:
		in.Out = c.gradient(i)
		out = nil
	case out == nil:
		out = c.allocate(size, now)
	}
	c.place[n], c.owner[n] = in.Out, out
	scratch := b.Workspace(op, n.Shape(), shapes)
	in.Scratch = Ref{Shape: Shape{scratch}, DType: c.graph.DType}
	c.push(in, operands, out, scratch)
	return nil
}

// push appends an instruction and remembers the buffers its places are in.
func (c *compiler) push(in Instruction, operands []*Node, out *buffer, scratch int) {
	now := len(c.plan.Instructions)
	homes := make([]*buffer, 0, len(operands)+2)
	for _, operand := range operands {
		homes = append(homes, c.owner[operand])
	}
	var ws *buffer
	if scratch > 0 {
		ws = c.allocate(scratch, now)
	}
	c.homes = append(c.homes, append(homes, out, ws))
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

// reusable returns the buffer of operand 0 if an elementwise op may overwrite
// it: nothing reads it later, and it is all of its buffer.
func (c *compiler) reusable(op Op, operands []*Node, size int) *buffer {
	if _, ok := op.(InPlace); !ok {
		return nil
	}
	first := operands[0]
	b := c.owner[first]
	if b == nil || b.size != align(size) || c.uses[first] > 0 || c.place[first].Offset != 0 {
		return nil
	}
	if parent, _ := opOf(first); parent != nil {
		if _, isView := parent.(View); isView {
			return nil
		}
	}
	for _, other := range operands[1:] {
		if c.owner[other] == b {
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
		c.push(Instruction{Op: Copy{}, In: []Ref{c.place[n]}, Out: want}, []*Node{n}, nil, 0)
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
		in := &c.plan.Instructions[i]
		homes := c.homes[i]
		for j := range in.In {
			relocate(&in.In[j], homes[j])
		}
		relocate(&in.Out, homes[len(in.In)])
		relocate(&in.Scratch, homes[len(in.In)+1])
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

package graph

import (
	"fmt"
	"slices"

	"gorgonia.org/gorgonia"
)

// Builder adds nodes to a graph. The first error sticks: later calls do
// nothing and return a nil node, Finish reports it with the scope it happened
// in. So a network reads as a network, without a check on each line.
type Builder struct {
	*builderState
	scope string
}

type builderState struct {
	expr   *gorgonia.ExprGraph
	dtype  DType
	inputs []Input
	layout *Layout
	params []*Node
	names  map[string]bool
	err    error
}

// NewBuilder starts a graph whose activations and parameters are dt, Float32 or
// Float64.
func NewBuilder(dt DType) *Builder {
	return &Builder{builderState: &builderState{
		expr:   gorgonia.NewGraph(),
		dtype:  dt,
		layout: new(Layout),
		names:  make(map[string]bool),
	}}
}

// Scope returns a builder for a part of the network: it prefixes the names of
// parameters and the errors with name and a dot.
func (b *Builder) Scope(name string) *Builder {
	return &Builder{b.builderState, b.scope + name + "."}
}

// Err is the first error, nil if there is none.
func (b *Builder) Err() error { return b.err }

// Failf records an error at the builder's scope, unless there is one already.
func (b *Builder) Failf(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("graph: %s%s", b.prefix(), fmt.Sprintf(format, args...))
	}
}

func (b *Builder) prefix() string {
	if b.scope == "" {
		return ""
	}
	return b.scope[:len(b.scope)-1] + ": "
}

// Input declares a value fed before every run.
func (b *Builder) Input(name string, dt DType, shape ...int) *Node {
	if !b.claim(name) {
		return nil
	}
	n := gorgonia.NewTensor(b.expr, dt, len(shape), gorgonia.WithShape(shape...), gorgonia.WithName(name))
	b.inputs = append(b.inputs, Input{Name: name, Shape: shape, DType: dt, node: n})
	return n
}

// Param declares a parameter. Its full name, the scope and name, is its name in
// checkpoints.
func (b *Builder) Param(name string, kind ParamKind, init Init, shape ...int) *Node {
	name = b.scope + name
	if !b.claim(name) {
		return nil
	}
	n := gorgonia.NewTensor(b.expr, b.dtype, len(shape), gorgonia.WithShape(shape...), gorgonia.WithName(name))
	b.layout.add(ParamSpec{Name: name, Shape: shape, Kind: kind, Init: init})
	b.params = append(b.params, n)
	return n
}

// claim takes a name: two nodes of one name would be merged by the graph.
func (b *Builder) claim(name string) bool {
	if b.err != nil {
		return false
	}
	if b.names[name] {
		b.Failf("two nodes named %q", name)
		return false
	}
	b.names[name] = true
	return true
}

// Apply adds an operation. Gorgonia merges nodes of equal 32-bit hash without
// looking at their operands, so the result is checked and, on a collision,
// applied again under another hash.
func (b *Builder) Apply(op Op, in ...*Node) *Node {
	if b.err != nil {
		return nil
	}
	shapes := make([]Shape, len(in))
	types := make([]operandType, len(in))
	for i, n := range in {
		shapes[i], types[i] = n.Shape(), typeOf(n)
	}
	shape, err := op.Infer(shapes)
	if err != nil {
		b.Failf("%v", err)
		return nil
	}
	for salt := range 8 {
		o := &bound{Op: op, builder: b, in: types, out: operandType{b.dtype, len(shape)}, salt: salt}
		n, err := gorgonia.ApplyOp(o, in...)
		if err != nil {
			b.Failf("%v", err)
			return nil
		}
		got, isBound := n.Op().(*bound)
		if isBound && got.Op == op && slices.Equal(children(b.expr, n), in) {
			return n
		}
	}
	b.Failf("cannot tell %T apart from another node of equal hash", op)
	return nil
}

// Finish ends the graph. With a loss, a scalar, it adds the gradient of every
// parameter; each must be used.
func (b *Builder) Finish(loss *Node, outputs map[string]*Node) (*Graph, error) {
	if b.err != nil {
		return nil, b.err
	}
	g := &Graph{DType: b.dtype, Inputs: b.inputs, Layout: b.layout, expr: b.expr, params: b.params, loss: loss}
	for _, name := range sortedKeys(outputs) {
		n := outputs[name]
		g.Outputs = append(g.Outputs, Output{Name: name, Shape: n.Shape(), node: n})
	}
	if loss == nil {
		g.KeepWeights = true
		return g, nil
	}
	if err := g.checkLoss(); err != nil {
		return nil, err
	}
	grads, err := gorgonia.Grad(loss, b.params...)
	if err != nil {
		return nil, fmt.Errorf("graph: differentiating the loss: %w", err)
	}
	if b.err != nil {
		return nil, b.err
	}
	g.grads = grads
	return g, nil
}

// checkLoss finds the mistakes that gorgonia.Grad would report in its own words.
func (g *Graph) checkLoss() error {
	if len(g.params) == 0 {
		return fmt.Errorf("graph: a loss, but no parameter to differentiate it by")
	}
	if len(g.loss.Shape()) != 0 {
		return fmt.Errorf("graph: the loss has shape %v, want a scalar", g.loss.Shape())
	}
	reached := map[*Node]bool{}
	var visit func(n *Node)
	visit = func(n *Node) {
		if reached[n] {
			return
		}
		reached[n] = true
		op, _ := opOf(n)
		if d, ok := op.(Differentiable); ok {
			operands := children(g.expr, n)
			for i, differentiable := range d.Wrt() {
				if differentiable {
					visit(operands[i])
				}
			}
		}
	}
	visit(g.loss)
	for i, n := range g.params {
		if !reached[n] {
			return fmt.Errorf("graph: parameter %s does not affect the loss", g.Layout.Params[i].Name)
		}
	}
	return nil
}

func sortedKeys(m map[string]*Node) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

package graph

import (
	"fmt"
	"hash"
	"hash/fnv"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Operand is one argument of a definition: its values, row-major, as float64
// whatever the element type in the graph. Integers are exact.
type Operand struct {
	Shape Shape
	Data  []float64
}

// Op is one operation. It must be a comparable struct of plain attributes: its
// printed form tells two operations apart when the graph merges equal nodes.
type Op interface {
	// Infer returns the output's shape, or says which operand does not fit.
	Infer(in []Shape) (Shape, error)
	// Eval is the definition of the operation. It writes every element of
	// out.Data, which does not overlap the operands.
	Eval(out Operand, in []Operand)
}

// Differentiable is an Op with a gradient.
type Differentiable interface {
	Op
	// Wrt says for each operand whether the output is differentiable in it.
	Wrt() []bool
	// Grad adds the nodes of d loss/d operand, given dout = d loss/d out, one
	// for each operand and nil where Wrt is false.
	Grad(b *Builder, in []*Node, out, dout *Node) []*Node
}

// InPlace is an elementwise Op whose kernel may write its output over operand 0.
type InPlace interface{ InPlace() }

// Costed is an Op whose cost is counted in floating-point operations, two for
// each multiply-add; the others are memory-bound and count as none.
type Costed interface {
	Flops(out Shape, in []Shape) int64
}

// Weighted is an Op one of whose operands is weights, which a backend may
// transform and keep.
type Weighted interface {
	// WeightsAt is the index of the operand.
	WeightsAt() int
}

// operandType is the static type of a value.
type operandType struct {
	dtype DType
	rank  int
}

func typeOf(n *Node) operandType { return operandType{n.Dtype(), len(n.Shape())} }

func (t operandType) hm() hm.Type {
	if t.rank == 0 {
		return t.dtype
	}
	return gorgonia.TensorType{Dims: t.rank, Of: t.dtype}
}

// bound is an Op applied to operands of known type: the gorgonia.SDOp that sits
// in the expression graph.
type bound struct {
	Op
	builder *Builder
	in      []operandType
	out     operandType
	// salt tells apart two different nodes whose 32-bit hashes collide.
	salt int
}

func (o *bound) Arity() int { return len(o.in) }

// Type builds the type anew on each call: the type checker returns it to a pool.
func (o *bound) Type() hm.Type {
	types := make([]hm.Type, 0, len(o.in)+1)
	for _, t := range o.in {
		types = append(types, t.hm())
	}
	return hm.NewFnType(append(types, o.out.hm())...)
}

func (o *bound) InferShape(sizes ...gorgonia.DimSizer) (tensor.Shape, error) {
	shapes, err := gorgonia.DimSizersToShapes(sizes)
	if err != nil {
		return nil, err
	}
	return o.Infer(shapes)
}

func (o *bound) ReturnsPtr() bool     { return true }
func (o *bound) CallsExtern() bool    { return false }
func (o *bound) OverwritesInput() int { return -1 }

func (o *bound) String() string { return fmt.Sprintf("%T%+v", o.Op, o.Op) }

func (o *bound) WriteHash(h hash.Hash) { fmt.Fprint(h, o.String(), o.in, o.out, o.salt) }

func (o *bound) Hashcode() uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

func (o *bound) DiffWRT(inputs int) []bool {
	if d, ok := o.Op.(Differentiable); ok {
		return d.Wrt()
	}
	return make([]bool, inputs)
}

func (o *bound) SymDiff(in gorgonia.Nodes, out, dout *Node) (gorgonia.Nodes, error) {
	grads := o.Op.(Differentiable).Grad(o.builder, in, out, dout)
	return grads, o.builder.Err()
}

// Do runs the definition, for Gorgonia's TapeMachine.
func (o *bound) Do(values ...gorgonia.Value) (gorgonia.Value, error) {
	in := make([]Operand, len(values))
	shapes := make([]Shape, len(values))
	for i, v := range values {
		in[i] = Operand{Shape: v.Shape(), Data: toFloat64(v)}
		shapes[i] = v.Shape()
	}
	shape, err := o.Infer(shapes)
	if err != nil {
		return nil, err
	}
	out := Operand{Shape: shape, Data: make([]float64, elements(shape))}
	o.Eval(out, in)
	return fromFloat64(out, o.out.dtype), nil
}

func toFloat64(v gorgonia.Value) []float64 {
	switch v := v.(type) {
	case *gorgonia.F32:
		return []float64{float64(*v)}
	case *gorgonia.F64:
		return []float64{float64(*v)}
	}
	switch data := v.Data().(type) {
	case []float64:
		return data
	case []float32:
		return widen(data)
	case []uint8:
		return widen(data)
	case []uint32:
		return widen(data)
	}
	panic(fmt.Sprintf("graph: no element type %v", v.Dtype()))
}

func widen[T float32 | uint8 | uint32](data []T) []float64 {
	wide := make([]float64, len(data))
	for i, v := range data {
		wide[i] = float64(v)
	}
	return wide
}

func fromFloat64(v Operand, dt DType) gorgonia.Value {
	if dt == Float64 {
		if len(v.Shape) == 0 {
			return gorgonia.NewF64(v.Data[0])
		}
		return tensor.New(tensor.WithShape(v.Shape...), tensor.WithBacking(v.Data))
	}
	narrow := make([]float32, len(v.Data))
	for i, x := range v.Data {
		narrow[i] = float32(x)
	}
	if len(v.Shape) == 0 {
		return gorgonia.NewF32(narrow[0])
	}
	return tensor.New(tensor.WithShape(v.Shape...), tensor.WithBacking(narrow))
}

// opOf returns the operation a node applies; nil for inputs, parameters and
// constants. The sums that gorgonia.Grad inserts where a value is used more
// than once count as Add.
func opOf(n *Node) (Op, error) {
	switch op := n.Op().(type) {
	case nil:
		return nil, nil
	case *bound:
		return op.Op, nil
	default:
		if s := op.String(); s == "+ false" || s == "+" {
			return Add{}, nil
		}
		if op.Arity() == 0 {
			return nil, nil
		}
		return nil, fmt.Errorf("graph: no kernel for Gorgonia's %v", op)
	}
}

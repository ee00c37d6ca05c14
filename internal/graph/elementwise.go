package graph

import "fmt"

// Add is a + b, of one shape.
type Add struct{}

// AddPerSample adds v [N,C] to every pixel of x [N,H,W,C].
type AddPerSample struct{}

// SumPixels sums x [N,H,W,C] over the pixels: [N,C].
type SumPixels struct{}

// Add adds a + b.
func (b *Builder) Add(x, y *Node) *Node { return b.Apply(Add{}, x, y) }

// AddPerSample adds v [N,C] to every pixel of x [N,H,W,C].
func (b *Builder) AddPerSample(x, v *Node) *Node { return b.Apply(AddPerSample{}, x, v) }

func (Add) Infer(in []Shape) (Shape, error) { return sameShape("add", in) }
func (Add) InPlace()                        {}

func (Add) Eval(out Operand, in []Operand) {
	for i := range out.Data {
		out.Data[i] = in[0].Data[i] + in[1].Data[i]
	}
}

func (Add) Wrt() []bool { return []bool{true, true} }

func (Add) Grad(_ *Builder, _ []*Node, _, dy *Node) []*Node { return []*Node{dy, dy} }

func (AddPerSample) Infer(in []Shape) (Shape, error) {
	x, v := in[0], in[1]
	if len(x) != 4 || !v.Eq(Shape{x[0], x[3]}) {
		return nil, fmt.Errorf("add per sample: %v and %v do not fit", x, v)
	}
	return x.Clone(), nil
}

func (AddPerSample) InPlace() {}

func (AddPerSample) Eval(out Operand, in []Operand) {
	pixels, c := out.Shape[1]*out.Shape[2], out.Shape[3]
	for i := range out.Data {
		out.Data[i] = in[0].Data[i] + in[1].Data[i/(pixels*c)*c+i%c]
	}
}

func (AddPerSample) Wrt() []bool { return []bool{true, true} }

func (AddPerSample) Grad(b *Builder, _ []*Node, _, dy *Node) []*Node {
	return []*Node{dy, b.Apply(SumPixels{}, dy)}
}

func (SumPixels) Infer(in []Shape) (Shape, error) { return Shape{in[0][0], in[0][3]}, nil }

func (SumPixels) Eval(out Operand, in []Operand) {
	pixels, c := in[0].Shape[1]*in[0].Shape[2], in[0].Shape[3]
	clear(out.Data)
	for i, v := range in[0].Data {
		out.Data[i/(pixels*c)*c+i%c] += v
	}
}

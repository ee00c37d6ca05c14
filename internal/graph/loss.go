package graph

import "fmt"

// SquaredError is the mean squared error of each image: pred and target
// [N,...] to [N].
type SquaredError struct{}

// SquaredErrorGrad is d loss/dpred of SquaredError, from pred, target and the
// gradient [N] of the errors.
type SquaredErrorGrad struct{}

// Mean is the mean of x [N], a scalar.
type Mean struct{}

// MeanGrad is d loss/dx of Mean over N values, from a scalar.
type MeanGrad struct{ N int }

// SquaredError adds the mean squared error of each image.
func (b *Builder) SquaredError(pred, target *Node) *Node {
	return b.Apply(SquaredError{}, pred, target)
}

// Mean adds the mean of x [N].
func (b *Builder) Mean(x *Node) *Node { return b.Apply(Mean{}, x) }

func (SquaredError) Infer(in []Shape) (Shape, error) {
	if len(in[0]) == 0 {
		return nil, fmt.Errorf("squared error: want [N,...], have a scalar")
	}
	s, err := sameShape("squared error", in)
	if err != nil {
		return nil, err
	}
	return s[:1], nil
}

func (SquaredError) Eval(out Operand, in []Operand) {
	size := len(in[0].Data) / len(out.Data)
	clear(out.Data)
	for i, p := range in[0].Data {
		e := p - in[1].Data[i]
		out.Data[i/size] += e * e / float64(size)
	}
}

func (SquaredError) Wrt() []bool { return []bool{true, false} }

func (SquaredError) Grad(b *Builder, in []*Node, _, derr *Node) []*Node {
	return []*Node{b.Apply(SquaredErrorGrad{}, in[0], in[1], derr), nil}
}

func (SquaredErrorGrad) Infer(in []Shape) (Shape, error) {
	return sameShape("squared error gradient", in[:2])
}

func (SquaredErrorGrad) Eval(out Operand, in []Operand) {
	size := len(out.Data) / len(in[2].Data)
	for i := range out.Data {
		out.Data[i] = in[2].Data[i/size] * 2 / float64(size) * (in[0].Data[i] - in[1].Data[i])
	}
}

func (Mean) Infer([]Shape) (Shape, error) { return Shape{}, nil }

func (Mean) Eval(out Operand, in []Operand) {
	out.Data[0] = 0
	for _, x := range in[0].Data {
		out.Data[0] += x / float64(len(in[0].Data))
	}
}

func (Mean) Wrt() []bool { return []bool{true} }

func (Mean) Grad(b *Builder, in []*Node, _, dout *Node) []*Node {
	return []*Node{b.Apply(MeanGrad{in[0].Shape()[0]}, dout)}
}

func (o MeanGrad) Infer([]Shape) (Shape, error) { return Shape{o.N}, nil }

func (o MeanGrad) Eval(out Operand, in []Operand) {
	for i := range out.Data {
		out.Data[i] = in[0].Data[0] / float64(o.N)
	}
}

package graph

import (
	"fmt"
	"math"
)

// SquaredError is the mean squared error of each image: pred [N,...,C or 2C] and target
// [N,...,C] to [N]. Channels of pred beyond those of target are not read: variances.
type SquaredError struct{}

// SquaredErrorGrad is d loss/dpred of SquaredError, from pred, target and the
// gradient [N] of the errors: 0 for channels that are not read.
type SquaredErrorGrad struct{}

// Mean is the mean of x [N], a scalar.
type Mean struct{}

// MeanGrad is d loss/dx of Mean over N values, from a scalar.
type MeanGrad struct{ N int }

// Weigh multiplies what belongs to each image by its weight: x [N] and w [N] to [N].
// It is differentiable in x.
type Weigh struct{}

// PseudoHuber is sqrt(e + C^2) - C of each e >= 0 in [N], C > 0: for small errors e, mean squares,
// it grows with e, for large ones with its root, so that no image dominates (Song &
// Dhariwal, "Improved Techniques for Training Consistency Models", 2023, eq. 8).
type PseudoHuber struct{ C float64 }

// PseudoHuberGrad is d loss/de of PseudoHuber, from e [N] and the gradient [N] of its
// results.
type PseudoHuberGrad struct{ C float64 }

// SquaredError adds the mean squared error of each image.
func (b *Builder) SquaredError(pred, target *Node) *Node {
	return b.Apply(SquaredError{}, pred, target)
}

// Weigh adds x times w, both [N].
func (b *Builder) Weigh(x, w *Node) *Node { return b.Apply(Weigh{}, x, w) }

// PseudoHuber adds the pseudo-Huber loss of mean squared errors e [N].
func (b *Builder) PseudoHuber(e *Node, c float64) *Node { return b.Apply(PseudoHuber{c}, e) }

// Mean adds the mean of x [N].
func (b *Builder) Mean(x *Node) *Node { return b.Apply(Mean{}, x) }

func (SquaredError) Infer(in []Shape) (Shape, error) {
	if err := checkWide(in[1], in[0]); err != nil {
		return nil, fmt.Errorf("squared error: %w", err)
	}
	return in[1][:1].Clone(), nil
}

func (SquaredError) Eval(out Operand, in []Operand) {
	pred, target := in[0], in[1]
	size, c, wide := len(target.Data)/len(out.Data), last(target.Shape), last(pred.Shape)
	clear(out.Data)
	for i, t := range target.Data {
		e := pred.Data[i/c*wide+i%c] - t
		out.Data[i/size] += e * e / float64(size)
	}
}

func (SquaredError) Wrt() []bool { return []bool{true, false} }

func (SquaredError) Grad(b *Builder, in []*Node, _, derr *Node) []*Node {
	return []*Node{b.Apply(SquaredErrorGrad{}, in[0], in[1], derr), nil}
}

func (SquaredErrorGrad) Infer(in []Shape) (Shape, error) {
	if err := checkWide(in[1], in[0]); err != nil {
		return nil, fmt.Errorf("squared error gradient: %w", err)
	}
	return in[0].Clone(), nil
}

func (SquaredErrorGrad) Eval(out Operand, in []Operand) {
	pred, target := in[0], in[1]
	size, c, wide := len(target.Data)/len(in[2].Data), last(target.Shape), last(pred.Shape)
	clear(out.Data)
	for i, t := range target.Data {
		at := i/c*wide + i%c
		out.Data[at] = in[2].Data[i/size] * 2 / float64(size) * (pred.Data[at] - t)
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

func (Weigh) Infer(in []Shape) (Shape, error) {
	if len(in[0]) != 1 {
		return nil, fmt.Errorf("weigh: want one value for each image, have %v", in[0])
	}
	return sameShape("weigh", in)
}

func (Weigh) InPlace() {}

func (Weigh) Eval(out Operand, in []Operand) {
	for i, w := range in[1].Data {
		out.Data[i] = in[0].Data[i] * w
	}
}

func (Weigh) Wrt() []bool { return []bool{true, false} }

func (Weigh) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(Weigh{}, dy, in[1]), nil}
}

func (o PseudoHuber) Infer(in []Shape) (Shape, error) {
	if len(in[0]) != 1 || !(o.C > 0) {
		return nil, fmt.Errorf("pseudo-huber: errors %v and constant %g: want one for each image and a constant above 0", in[0], o.C)
	}
	return in[0].Clone(), nil
}

func (o PseudoHuber) Eval(out Operand, in []Operand) {
	for i, e := range in[0].Data {
		out.Data[i] = math.Sqrt(e+o.C*o.C) - o.C
	}
}

func (PseudoHuber) Wrt() []bool { return []bool{true} }

func (o PseudoHuber) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(PseudoHuberGrad{o.C}, in[0], dy)}
}

func (PseudoHuberGrad) Infer(in []Shape) (Shape, error) {
	return sameShape("pseudo-huber gradient", in)
}

func (o PseudoHuberGrad) Eval(out Operand, in []Operand) {
	for i, e := range in[0].Data {
		out.Data[i] = in[1].Data[i] / (2 * math.Sqrt(e+o.C*o.C))
	}
}

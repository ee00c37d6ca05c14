package graph

import "math"

// SiLU is x*sigmoid(x).
type SiLU struct{}

// SiLUGrad is d loss/dx of SiLU, from x and dy.
type SiLUGrad struct{}

// SiLU adds x*sigmoid(x).
func (b *Builder) SiLU(x *Node) *Node { return b.Apply(SiLU{}, x) }

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// siluSlope is the derivative of SiLU.
func siluSlope(x float64) float64 {
	s := sigmoid(x)
	return s * (1 + x*(1-s))
}

func (SiLU) Infer(in []Shape) (Shape, error) { return in[0].Clone(), nil }
func (SiLU) InPlace()                        {}

func (SiLU) Eval(out Operand, in []Operand) {
	for i, x := range in[0].Data {
		out.Data[i] = x * sigmoid(x)
	}
}

func (SiLU) Wrt() []bool { return []bool{true} }

func (SiLU) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(SiLUGrad{}, in[0], dy)}
}

func (SiLUGrad) Infer(in []Shape) (Shape, error) { return sameShape("silu gradient", in) }

func (SiLUGrad) Eval(out Operand, in []Operand) {
	for i, x := range in[0].Data {
		out.Data[i] = in[1].Data[i] * siluSlope(x)
	}
}

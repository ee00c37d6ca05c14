package graph

import "fmt"

// Linear is y = x w + bias over the last dimension: x [...,in], w [in,out],
// bias [out]: y [...,out].
type Linear struct{}

// LinearGradData is d loss/dx of a Linear, from w and dy.
type LinearGradData struct{}

// LinearGradWeight is d loss/dw of a Linear, from x and dy.
type LinearGradWeight struct{}

// SumRows sums over all dimensions but the last: [...,C] to [C].
type SumRows struct{}

// Linear adds y = x w + bias.
func (b *Builder) Linear(x, w, bias *Node) *Node { return b.Apply(Linear{}, x, w, bias) }

func last(s Shape) int { return s[len(s)-1] }

func withLast(s Shape, n int) Shape {
	s = s.Clone()
	s[len(s)-1] = n
	return s
}

func (Linear) Infer(in []Shape) (Shape, error) {
	x, w, bias := in[0], in[1], in[2]
	if len(x) == 0 || len(w) != 2 || last(x) != w[0] || len(bias) != 1 || bias[0] != w[1] {
		return nil, fmt.Errorf("linear: input %v, weights %v and bias %v do not fit", x, w, bias)
	}
	return withLast(x, w[1]), nil
}

func (Linear) Eval(out Operand, in []Operand) {
	k, n := in[1].Shape[0], in[1].Shape[1]
	for i := range out.Data {
		row, col := i/n, i%n
		sum := in[2].Data[col]
		for j := range k {
			sum += in[0].Data[row*k+j] * in[1].Data[j*n+col]
		}
		out.Data[i] = sum
	}
}

func (Linear) Flops(out Shape, in []Shape) int64 {
	return 2 * int64(elements(out)) * int64(in[1][0])
}

func (Linear) WeightsAt() int { return 1 }

func (Linear) Wrt() []bool { return []bool{true, true, true} }

func (Linear) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{
		b.Apply(LinearGradData{}, in[1], dy),
		b.Apply(LinearGradWeight{}, in[0], dy),
		b.Apply(SumRows{}, dy),
	}
}

func (LinearGradData) Infer(in []Shape) (Shape, error) {
	w, dy := in[0], in[1]
	if len(w) != 2 || last(dy) != w[1] {
		return nil, fmt.Errorf("linear: weights %v and output gradient %v do not fit", w, dy)
	}
	return withLast(dy, w[0]), nil
}

func (LinearGradData) Eval(out Operand, in []Operand) {
	k, n := in[0].Shape[0], in[0].Shape[1]
	for i := range out.Data {
		row, col := i/k, i%k
		var sum float64
		for j := range n {
			sum += in[1].Data[row*n+j] * in[0].Data[col*n+j]
		}
		out.Data[i] = sum
	}
}

func (LinearGradData) Flops(out Shape, in []Shape) int64 {
	return 2 * int64(elements(out)) * int64(in[0][1])
}

func (LinearGradData) WeightsAt() int { return 0 }

func (LinearGradWeight) Infer(in []Shape) (Shape, error) {
	x, dy := in[0], in[1]
	if elements(x)/last(x) != elements(dy)/last(dy) {
		return nil, fmt.Errorf("linear: input %v and output gradient %v do not fit", x, dy)
	}
	return Shape{last(x), last(dy)}, nil
}

func (LinearGradWeight) Eval(out Operand, in []Operand) {
	k, n := out.Shape[0], out.Shape[1]
	clear(out.Data)
	for row := range len(in[0].Data) / k {
		for i := range k {
			for j := range n {
				out.Data[i*n+j] += in[0].Data[row*k+i] * in[1].Data[row*n+j]
			}
		}
	}
}

func (LinearGradWeight) Flops(out Shape, in []Shape) int64 {
	return 2 * int64(elements(out)) * int64(elements(in[0])/last(in[0]))
}

func (SumRows) Infer(in []Shape) (Shape, error) { return Shape{last(in[0])}, nil }

func (SumRows) Eval(out Operand, in []Operand) {
	clear(out.Data)
	for i, v := range in[0].Data {
		out.Data[i%len(out.Data)] += v
	}
}

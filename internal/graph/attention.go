package graph

import (
	"fmt"
	"math"
)

// Attention is scaled dot-product self-attention over the pixels of an image
// (Vaswani et al., 2017): for each head, owning D = C/Heads neighbouring
// channels, of q, k, v [N,H,W,C]
//
//	out = softmax(q kᵀ / sqrt(D)) v
type Attention struct{ Heads int }

// AttentionGrad is d loss/dq, d loss/dk and d loss/dv of Attention, from q, k,
// v and dout: [3,N,H,W,C].
type AttentionGrad struct{ Heads int }

// Attention adds self-attention over pixels.
func (b *Builder) Attention(q, k, v *Node, heads int) *Node {
	return b.Apply(Attention{heads}, q, k, v)
}

func (o Attention) Infer(in []Shape) (Shape, error) {
	s, err := sameShape("attention", in)
	if err == nil && (len(s) != 4 || o.Heads < 1 || s[3]%o.Heads != 0) {
		err = fmt.Errorf("attention: %v not divisible into %d heads", s, o.Heads)
	}
	return s, err
}

// attend calls f for each query: row and head, with its probabilities over the
// keys and a function from key to the offset of its first channel.
func attend(heads int, q, k Operand, f func(query int, p []float64, key func(j int) int)) {
	n, length, c := q.Shape[0], q.Shape[1]*q.Shape[2], q.Shape[3]
	d := c / heads
	scale := 1 / math.Sqrt(float64(d))
	p := make([]float64, length)
	for image := range n {
		for head := range heads {
			at := func(row int) int { return (image*length+row)*c + head*d }
			for i := range length {
				highest := math.Inf(-1)
				for j := range p {
					p[j] = 0
					for e := range d {
						p[j] += scale * q.Data[at(i)+e] * k.Data[at(j)+e]
					}
					highest = max(highest, p[j])
				}
				var sum float64
				for j := range p {
					p[j] = math.Exp(p[j] - highest)
					sum += p[j]
				}
				for j := range p {
					p[j] /= sum
				}
				f(at(i), p, at)
			}
		}
	}
}

func (o Attention) Eval(out Operand, in []Operand) {
	q, k, v := in[0], in[1], in[2]
	d := last(q.Shape) / o.Heads
	clear(out.Data)
	attend(o.Heads, q, k, func(query int, p []float64, key func(int) int) {
		for j := range p {
			for e := range d {
				out.Data[query+e] += p[j] * v.Data[key(j)+e]
			}
		}
	})
}

func (o Attention) Flops(out Shape, _ []Shape) int64 {
	return 4 * int64(elements(out)) * int64(out[1]*out[2])
}

func (o Attention) Wrt() []bool { return []bool{true, true, true} }

func (o Attention) Grad(b *Builder, in []*Node, _, dout *Node) []*Node {
	packed := b.Apply(AttentionGrad(o), in[0], in[1], in[2], dout)
	return []*Node{b.View(packed, 0), b.View(packed, 1), b.View(packed, 2)}
}

func (o AttentionGrad) Infer(in []Shape) (Shape, error) {
	s, err := sameShape("attention gradient", in)
	return append(Shape{3}, s...), err
}

func (o AttentionGrad) Eval(out Operand, in []Operand) {
	q, k, v, dout := in[0], in[1], in[2], in[3]
	d := last(q.Shape) / o.Heads
	scale := 1 / math.Sqrt(float64(d))
	clear(out.Data)
	size := len(q.Data)
	dq, dk, dv := out.Data[:size], out.Data[size:2*size], out.Data[2*size:]
	dp := make([]float64, q.Shape[1]*q.Shape[2])
	attend(o.Heads, q, k, func(query int, p []float64, key func(int) int) {
		var mean float64
		for j := range p {
			dp[j] = 0
			for e := range d {
				dp[j] += dout.Data[query+e] * v.Data[key(j)+e]
				dv[key(j)+e] += p[j] * dout.Data[query+e]
			}
			mean += p[j] * dp[j]
		}
		for j := range p {
			ds := scale * p[j] * (dp[j] - mean)
			for e := range d {
				dq[query+e] += ds * k.Data[key(j)+e]
				dk[key(j)+e] += ds * q.Data[query+e]
			}
		}
	})
}

// Flops counts the four products of the gradient; the scores computed anew are
// the kernel's choice.
func (o AttentionGrad) Flops(_ Shape, in []Shape) int64 {
	return 8 * int64(elements(in[0])) * int64(in[0][1]*in[0][2])
}

package graph

import (
	"fmt"
	"math"
)

// TimestepEmbedding is the sinusoidal embedding of t [N]: [N,Dim], the sines of
// t f_i, then the cosines (the other way round with CosFirst),
//
//	f_i = 10000^(-i / (Dim/2 - FreqShift)),  i = 0 .. Dim/2-1
type TimestepEmbedding struct {
	Dim       int
	CosFirst  bool
	FreqShift float64
}

// Embedding is row index[n] of a table for each n: table [K,D] and index [N], whole
// numbers below K, to [N,D]. It is differentiable in the table.
type Embedding struct{}

// EmbeddingGrad is d loss/dtable of an Embedding, from index [N] and the gradient [N,D] of
// its result: each row of [Rows,D] is the sum of the gradients of its uses, in their order.
type EmbeddingGrad struct{ Rows int }

// TimestepEmbedding adds the sinusoidal embedding of t [N].
func (b *Builder) TimestepEmbedding(op TimestepEmbedding, t *Node) *Node { return b.Apply(op, t) }

// Embedding adds rows of table [K,D], as index [N] of Uint32 picks them.
func (b *Builder) Embedding(table, index *Node) *Node { return b.Apply(Embedding{}, table, index) }

func (o TimestepEmbedding) Infer(in []Shape) (Shape, error) {
	if len(in[0]) != 1 || o.Dim < 2 || o.Dim%2 != 0 {
		return nil, fmt.Errorf("timestep embedding: t %v and an odd or empty dimension %d", in[0], o.Dim)
	}
	if o.FreqShift == float64(o.Dim/2) {
		return nil, fmt.Errorf("timestep embedding: a frequency shift of %g leaves dimension %d no frequency", o.FreqShift, o.Dim)
	}
	return Shape{in[0][0], o.Dim}, nil
}

func (o TimestepEmbedding) Eval(out Operand, in []Operand) {
	half := o.Dim / 2
	for n, t := range in[0].Data {
		for i := range half {
			sin, cos := math.Sincos(t * math.Exp(-math.Log(10000)*float64(i)/(float64(half)-o.FreqShift)))
			row := out.Data[n*o.Dim:]
			if o.CosFirst {
				sin, cos = cos, sin
			}
			row[i], row[half+i] = sin, cos
		}
	}
}

func (Embedding) Infer(in []Shape) (Shape, error) {
	table, index := in[0], in[1]
	if len(table) != 2 || len(index) != 1 {
		return nil, fmt.Errorf("embedding: table %v and index %v do not fit", table, index)
	}
	return Shape{index[0], table[1]}, nil
}

func (Embedding) Eval(out Operand, in []Operand) {
	d := in[0].Shape[1]
	for n, row := range in[1].Data {
		copy(out.Data[n*d:(n+1)*d], in[0].Data[int(row)*d:])
	}
}

func (Embedding) Wrt() []bool { return []bool{true, false} }

func (Embedding) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(EmbeddingGrad{Rows: in[0].Shape()[0]}, in[1], dy), nil}
}

func (o EmbeddingGrad) Infer(in []Shape) (Shape, error) {
	index, dy := in[0], in[1]
	if len(index) != 1 || len(dy) != 2 || dy[0] != index[0] || o.Rows < 1 {
		return nil, fmt.Errorf("embedding gradient: index %v and output gradient %v do not fit", index, dy)
	}
	return Shape{o.Rows, dy[1]}, nil
}

func (EmbeddingGrad) Eval(out Operand, in []Operand) {
	d := out.Shape[1]
	clear(out.Data)
	for n, row := range in[0].Data {
		for i := range d {
			out.Data[int(row)*d+i] += in[1].Data[n*d+i]
		}
	}
}

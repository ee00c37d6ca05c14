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

// TimestepEmbedding adds the sinusoidal embedding of t [N].
func (b *Builder) TimestepEmbedding(op TimestepEmbedding, t *Node) *Node { return b.Apply(op, t) }

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

package graph

import "fmt"

// View is the Index-th slice of the first dimension, sharing its memory: no
// instruction runs for it.
type View struct{ Index int }

// Copy copies its operand. Compile inserts it where a value must also live in
// another arena.
type Copy struct{}

// View takes x[index].
func (b *Builder) View(x *Node, index int) *Node { return b.Apply(View{index}, x) }

func (o View) Infer(in []Shape) (Shape, error) {
	if len(in[0]) < 2 || o.Index >= in[0][0] {
		return nil, fmt.Errorf("view: slice %d of %v", o.Index, in[0])
	}
	return in[0][1:].Clone(), nil
}

func (o View) Eval(out Operand, in []Operand) {
	copy(out.Data, in[0].Data[o.Index*len(out.Data):])
}

func (Copy) Infer(in []Shape) (Shape, error) { return in[0].Clone(), nil }
func (Copy) Eval(out Operand, in []Operand)  { copy(out.Data, in[0].Data) }

package graph

import "fmt"

// Upsample doubles height and width by repeating each pixel (nearest
// neighbour).
type Upsample struct{}

// UpsampleGrad is d loss/dx of Upsample: the sum of each 2x2 block of dy.
type UpsampleGrad struct{}

// Concat joins a [...,A] and b [...,B] on channels: [...,A+B].
type Concat struct{}

// SliceChannels takes Width channels from From on.
type SliceChannels struct{ From, Width int }

// Upsample doubles the height and width of x [N,H,W,C].
func (b *Builder) Upsample(x *Node) *Node { return b.Apply(Upsample{}, x) }

// Concat joins x and y on channels.
func (b *Builder) Concat(x, y *Node) *Node { return b.Apply(Concat{}, x, y) }

func (Upsample) Infer(in []Shape) (Shape, error) {
	x := in[0]
	if len(x) != 4 {
		return nil, fmt.Errorf("upsample: want [N,H,W,C], have %v", x)
	}
	return Shape{x[0], 2 * x[1], 2 * x[2], x[3]}, nil
}

// eachUpsampled calls f with the offsets of every element of the large image
// and of the one it repeats.
func eachUpsampled(large Shape, f func(large, small int)) {
	h, w, c := large[1], large[2], large[3]
	for i := range elements(large) {
		n, y, x, ch := i/(h*w*c), i/(w*c)%h, i/c%w, i%c
		f(i, ((n*(h/2)+y/2)*(w/2)+x/2)*c+ch)
	}
}

func (Upsample) Eval(out Operand, in []Operand) {
	eachUpsampled(out.Shape, func(large, small int) { out.Data[large] = in[0].Data[small] })
}

func (Upsample) Wrt() []bool { return []bool{true} }

func (Upsample) Grad(b *Builder, _ []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(UpsampleGrad{}, dy)}
}

func (UpsampleGrad) Infer(in []Shape) (Shape, error) {
	dy := in[0]
	return Shape{dy[0], dy[1] / 2, dy[2] / 2, dy[3]}, nil
}

func (UpsampleGrad) Eval(out Operand, in []Operand) {
	clear(out.Data)
	eachUpsampled(in[0].Shape, func(large, small int) { out.Data[small] += in[0].Data[large] })
}

func (Concat) Infer(in []Shape) (Shape, error) {
	a, b := in[0], in[1]
	if !withLast(a, 1).Eq(withLast(b, 1)) {
		return nil, fmt.Errorf("concat: %v and %v differ in more than channels", a, b)
	}
	return withLast(a, last(a)+last(b)), nil
}

func (Concat) Eval(out Operand, in []Operand) {
	c, ca := last(out.Shape), last(in[0].Shape)
	for i := range out.Data {
		row, ch := i/c, i%c
		if ch < ca {
			out.Data[i] = in[0].Data[row*ca+ch]
		} else {
			out.Data[i] = in[1].Data[row*(c-ca)+ch-ca]
		}
	}
}

func (Concat) Wrt() []bool { return []bool{true, true} }

func (Concat) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	ca, cb := last(in[0].Shape()), last(in[1].Shape())
	return []*Node{b.Apply(SliceChannels{0, ca}, dy), b.Apply(SliceChannels{ca, cb}, dy)}
}

func (o SliceChannels) Infer(in []Shape) (Shape, error) {
	if o.From+o.Width > last(in[0]) {
		return nil, fmt.Errorf("slice: channels %d to %d of %v", o.From, o.From+o.Width, in[0])
	}
	return withLast(in[0], o.Width), nil
}

func (o SliceChannels) Eval(out Operand, in []Operand) {
	c := last(in[0].Shape)
	for i := range out.Data {
		out.Data[i] = in[0].Data[i/o.Width*c+o.From+i%o.Width]
	}
}

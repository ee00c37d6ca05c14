package graph

import (
	"fmt"

	"ddpm/internal/rng"
)

// Normalize maps bytes [N,H,W,C] to byte/127.5 - 1 in [-1, 1], mirrored left to
// right where flip [N], floats, is 1. Operands: the bytes, flip.
type Normalize struct{}

// Noise draws standard normal values [N,H,W,C] from keys [N,4]: the words of
// the seed, low then high, the step and the sample of an rng.Key of Stream.
type Noise struct {
	Stream  rng.Stream
	H, W, C int
}

// Mix is a x + b z with one a and b for each image: a [N], x [N,...], b [N],
// z [N,...]. With the tables of a schedule it is the forward process,
// x_t = sqrt(abar_t) x_0 + sqrt(1-abar_t) eps, and the network's target.
type Mix struct{}

// Dropout zeroes each element with probability P and scales the others by
// 1/(1-P). The mask is a function of keys [N,4] and Stream, so the gradient
// draws it again instead of keeping it. Operands: x, keys.
type Dropout struct {
	P      float64
	Stream rng.Stream
}

// Normalize adds the map from bytes to the network's range.
func (b *Builder) Normalize(images, flip *Node) *Node { return b.Apply(Normalize{}, images, flip) }

// Noise adds standard normal values of shape [N,h,w,c], N of keys [N,4].
func (b *Builder) Noise(keys *Node, stream rng.Stream, h, w, c int) *Node {
	return b.Apply(Noise{stream, h, w, c}, keys)
}

// Mix adds a x + z c, a and c one value for each image.
func (b *Builder) Mix(a, x, c, z *Node) *Node { return b.Apply(Mix{}, a, x, c, z) }

// Dropout adds dropout of probability p, whose masks come from stream.
func (b *Builder) Dropout(x, keys *Node, p float64, stream rng.Stream) *Node {
	return b.Apply(Dropout{p, stream}, x, keys)
}

func (Normalize) Infer(in []Shape) (Shape, error) {
	if len(in[0]) != 4 || !in[1].Eq(Shape{in[0][0]}) {
		return nil, fmt.Errorf("normalize: images %v and flips %v do not fit", in[0], in[1])
	}
	return in[0].Clone(), nil
}

func (Normalize) Eval(out Operand, in []Operand) {
	h, w, c := out.Shape[1], out.Shape[2], out.Shape[3]
	for i := range out.Data {
		from := i
		if in[1].Data[i/(h*w*c)] != 0 {
			column := i / c % w
			from += (w - 1 - 2*column) * c
		}
		out.Data[i] = in[0].Data[from]/127.5 - 1
	}
}

func key(keys []float64, sample int, stream rng.Stream) rng.Key {
	k := keys[4*sample : 4*sample+4]
	return rng.Key{Seed: uint64(k[0]) | uint64(k[1])<<32, Stream: stream, Step: uint32(k[2]), Sample: uint32(k[3])}
}

func checkKeys(keys Shape, n int) error {
	if !keys.Eq(Shape{n, 4}) {
		return fmt.Errorf("keys %v, want [%d,4]", keys, n)
	}
	return nil
}

func (o Noise) Infer(in []Shape) (Shape, error) {
	n := in[0][0]
	return Shape{n, o.H, o.W, o.C}, checkKeys(in[0], n)
}

func (o Noise) Eval(out Operand, in []Operand) {
	size := o.H * o.W * o.C
	z := make([]float32, size)
	for n := range out.Shape[0] {
		key(in[0].Data, n, o.Stream).Normals(z)
		copy(out.Data[n*size:], widen(z))
	}
}

func (Mix) Infer(in []Shape) (Shape, error) {
	a, x, b, z := in[0], in[1], in[2], in[3]
	if !a.Eq(Shape{x[0]}) || !b.Eq(a) || !x.Eq(z) {
		return nil, fmt.Errorf("mix: %v, %v, %v and %v do not fit", a, x, b, z)
	}
	return x.Clone(), nil
}

func (Mix) Eval(out Operand, in []Operand) {
	size := len(out.Data) / out.Shape[0]
	for i := range out.Data {
		out.Data[i] = in[0].Data[i/size]*in[1].Data[i] + in[2].Data[i/size]*in[3].Data[i]
	}
}

func (o Dropout) Infer(in []Shape) (Shape, error) {
	return in[0].Clone(), checkKeys(in[1], in[0][0])
}

func (Dropout) InPlace()      {}
func (Dropout) Recomputable() {}

func (o Dropout) Eval(out Operand, in []Operand) {
	size := len(out.Data) / out.Shape[0]
	for i, x := range in[0].Data {
		word := key(in[1].Data, i/size, o.Stream).Block(uint32(i % size / 4))[i%size%4]
		out.Data[i] = 0
		if rng.Uniform(word) >= o.P {
			out.Data[i] = x / (1 - o.P)
		}
	}
}

func (o Dropout) Wrt() []bool { return []bool{true, false} }

func (o Dropout) Grad(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(o, dy, in[1]), nil}
}

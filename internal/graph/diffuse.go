package graph

import (
	"fmt"
	"math"

	"ddpm/internal/rng"
)

// QSample is the forward process q(x_t | x_0) and the network's target, for each
// image of a batch with its own coefficients:
//
//	x_0    = byte/127.5 - 1, mirrored left to right where flip is 1
//	x_t    = signal x_0 + noise eps,   eps ~ N(0, I)
//	target = targetSignal x_0 + targetNoise eps
//
// Operands: bytes [N,H,W,C], flip [N], keys [N,4], signal, noise, targetSignal
// and targetNoise [N]. A key is the words of the seed, low then high, the step
// and the sample of an rng.Key, whose Stream eps is drawn from. The result is
// x_t, then the target: [2,N,H,W,C].
type QSample struct{ Stream rng.Stream }

// PSample is a step of the reverse process, from the network's output at x_t:
//
//	x_0    = X0OnXt x_t + X0OnOut out, clipped to [-1, 1] if Clip; NaN if not finite
//	eps    = EpsOnXt x_t + EpsOnOut out
//	x_prev = PrevOnXt x_t + PrevOnX0 x_0 + PrevOnEps eps + PrevOnNoise z,   z ~ N(0, I)
//
// Operands: x_t and out [N,...], keys [N,4] as those of QSample, whose Stream z
// is drawn from, and the coefficients [PSampleCoefs] in the order of their
// constants. The result is x_prev, then x_0: [2,N,...].
type PSample struct {
	Stream rng.Stream
	Clip   bool
}

// The coefficients of PSample.
const (
	X0OnXt = iota
	X0OnOut
	EpsOnXt
	EpsOnOut
	PrevOnXt
	PrevOnX0
	PrevOnEps
	PrevOnNoise
	PSampleCoefs // how many there are
)

// Dropout zeroes each element with probability P and scales the others by
// 1/(1-P). The mask is a function of keys [N,4] and Stream, so the gradient
// draws it again instead of keeping it. Operands: x, keys.
type Dropout struct {
	P      float64
	Stream rng.Stream
}

// QSample adds the forward process and returns x_t and the target. The operands
// after keys are one value for each image.
func (b *Builder) QSample(stream rng.Stream, images, flip, keys, signal, noise, targetSignal, targetNoise *Node) (xt, target *Node) {
	packed := b.Apply(QSample{stream}, images, flip, keys, signal, noise, targetSignal, targetNoise)
	return b.halves(packed)
}

// PSample adds a step of the reverse process and returns x_prev and x_0.
func (b *Builder) PSample(op PSample, xt, out, keys, coefs *Node) (prev, x0 *Node) {
	return b.halves(b.Apply(op, xt, out, keys, coefs))
}

func (b *Builder) halves(packed *Node) (first, second *Node) {
	return b.View(packed, 0), b.View(packed, 1)
}

// Dropout adds dropout of probability p, whose masks come from stream.
func (b *Builder) Dropout(x, keys *Node, p float64, stream rng.Stream) *Node {
	return b.Apply(Dropout{p, stream}, x, keys)
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

func (QSample) Infer(in []Shape) (Shape, error) {
	images, keys := in[0], in[2]
	if len(images) != 4 {
		return nil, fmt.Errorf("q sample: want images [N,H,W,C], have %v", images)
	}
	n := images[0]
	for _, i := range []int{1, 3, 4, 5, 6} {
		if !in[i].Eq(Shape{n}) {
			return nil, fmt.Errorf("q sample: operand %d is %v, want one value for each of %d images", i, in[i], n)
		}
	}
	return append(Shape{2}, images...), checkKeys(keys, n)
}

func (o QSample) Eval(out Operand, in []Operand) {
	images := in[0].Shape
	w, c := images[2], images[3]
	size := images[1] * w * c
	eps := make([]float32, size)
	xt, target := out.Data[:len(out.Data)/2], out.Data[len(out.Data)/2:]
	for n := range images[0] {
		key(in[2].Data, n, o.Stream).Normals(eps)
		for i, e := range eps {
			from := i
			if in[1].Data[n] != 0 {
				column := i / c % w
				from += (w - 1 - 2*column) * c
			}
			x0 := in[0].Data[n*size+from]/127.5 - 1
			xt[n*size+i] = in[3].Data[n]*x0 + in[4].Data[n]*float64(e)
			target[n*size+i] = in[5].Data[n]*x0 + in[6].Data[n]*float64(e)
		}
	}
}

func (PSample) Infer(in []Shape) (Shape, error) {
	x, out, keys, coefs := in[0], in[1], in[2], in[3]
	if len(x) == 0 || !x.Eq(out) || !coefs.Eq(Shape{PSampleCoefs}) {
		return nil, fmt.Errorf("p sample: %v, %v and coefficients %v do not fit", x, out, coefs)
	}
	return append(Shape{2}, x...), checkKeys(keys, x[0])
}

func (o PSample) Eval(out Operand, in []Operand) {
	x, y, c := in[0].Data, in[1].Data, in[3].Data
	size := len(x) / in[0].Shape[0]
	z := make([]float32, size)
	for i := range x {
		if i%size == 0 {
			key(in[2].Data, i/size, o.Stream).Normals(z)
		}
		x0 := c[X0OnXt]*x[i] + c[X0OnOut]*y[i]
		if x0-x0 != 0 {
			x0 = math.NaN()
		}
		if o.Clip {
			x0 = min(max(x0, -1), 1)
		}
		eps := c[EpsOnXt]*x[i] + c[EpsOnOut]*y[i]
		out.Data[i] = c[PrevOnXt]*x[i] + c[PrevOnX0]*x0 + c[PrevOnEps]*eps + c[PrevOnNoise]*float64(z[i%size])
		out.Data[len(x)+i] = x0
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
